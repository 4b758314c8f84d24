"""Time one gradient step of matrix completion: this package, autograd, JAX.

Three layers of width 10 in double precision. The rivals form the product in full and mask it,
the small factors first; JAX compiles the step and reuses the memory of the layers. Of JAX's two
forms, differentiated and written by hand, the quicker one counts.
"""

import torch
from common import agree, arguments, interleaved, jax_or_none, record, show

from lop_utils import factored, sampling

ETA, K, L = 1e-6, 10, 3
# (d, share observed): how many times as quick as JAX the package is meant to be
GOALS = {(1000, 0.2): 1.0, (1000, 0.05): 3.0, (3000, 0.05): None, (5000, 0.02): 12.0}
QUICK = {(60, 0.2): None, (80, 0.05): None}


def problem(d: int, p: float):
    generator = torch.Generator().manual_seed(0)
    kind = dict(generator=generator, dtype=torch.float64)
    seen = torch.rand(d, d, generator=generator) < p
    rows, cols = seen.nonzero(as_tuple=True)
    Phi = torch.randn(d, 3, **kind) @ torch.randn(3, d, **kind) / d**0.5
    obs = sampling.observe(rows, cols, Phi[rows, cols], (d, d))
    shapes = [(K, d), (K, K), (d, K)]
    return obs, [torch.randn(shape, **kind) / shape[1] ** 0.5 for shape in shapes]


def ours(obs, Ws):
    Ws, residual = [W.clone() for W in Ws], factored.fastest_residual(obs, K)

    def step():
        loss, grads = factored.contracted_gradients(Ws, residual)
        for W, G in zip(Ws, grads, strict=True):
            W.sub_(G, alpha=ETA)
        return loss

    return step, lambda: Ws


def dense(obs):
    mask, values = (torch.zeros(obs.shape, dtype=torch.float64) for _ in range(2))
    mask[obs.rows, obs.cols], values[obs.rows, obs.cols] = 1.0, obs.values
    return mask, values


def autograd(mask, values, Ws):
    Ws = [W.clone().requires_grad_() for W in Ws]

    def step():
        W1, W2, W3 = Ws
        loss = 0.5 * (mask * (W3 @ (W2 @ W1) - values)).square().sum()
        grads = torch.autograd.grad(loss, Ws)
        with torch.no_grad():
            for W, G in zip(Ws, grads, strict=True):
                W.sub_(G, alpha=ETA)
        return loss

    return step, lambda: [W.detach() for W in Ws]


def jax_steps(jax, mask, values, Ws):
    jnp = jax.numpy
    mask, values = jnp.asarray(mask.numpy()), jnp.asarray(values.numpy())

    def loss_of(Ws, mask, values):
        W1, W2, W3 = Ws
        return 0.5 * jnp.sum(jnp.square(mask * (W3 @ (W2 @ W1) - values)))

    def differentiated(Ws, mask, values):
        loss, grads = jax.value_and_grad(loss_of)(Ws, mask, values)
        return loss, [W - ETA * G for W, G in zip(Ws, grads, strict=True)]

    def by_hand(Ws, mask, values):
        W1, W2, W3 = Ws
        Q = W2 @ W1
        R = mask * (W3 @ Q - values)
        PtR = W3.T @ R
        grads = W2.T @ PtR, PtR @ W1.T, R @ Q.T
        loss = 0.5 * jnp.sum(jnp.square(R))
        return loss, [W - ETA * G for W, G in zip(Ws, grads, strict=True)]

    def contender(function):
        compiled = jax.jit(function, donate_argnums=0)
        state = [jnp.array(W.numpy(), copy=True) for W in Ws]

        def step():
            nonlocal state
            loss, state = compiled(state, mask, values)
            jax.block_until_ready((loss, state))
            return loss

        return step, lambda: state

    return {"jax": contender(differentiated), "jax, by hand": contender(by_hand)}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    jax, rows = jax_or_none(), []
    for (d, p), goal in (QUICK if options.quick else GOALS).items():
        obs, Ws = problem(d, p)
        mask, values = dense(obs)
        runs = {"ours": ours(obs, Ws), "autograd": autograd(mask, values, Ws)}
        if jax:
            runs |= jax_steps(jax, mask, values, Ws)
        ends = {}
        for name, (step, layers) in runs.items():
            loss = step()
            ends[name] = [loss.detach() if name in ("ours", "autograd") else loss, *layers()]
        # The update is small: what must agree is the change of the layers.
        base = [W0 - W for W0, W in zip(Ws, ends["autograd"][1:], strict=True)]
        for name, (loss, *layers) in ends.items():
            layers = [torch.tensor(W.tolist(), dtype=torch.float64) for W in layers]
            agree(name, [loss, *layers], [ends["autograd"][0], *ends["autograd"][1:]])
            # The subtraction leaves eps / ETA of the change's digits.
            agree(name, [W0 - W for W0, W in zip(Ws, layers, strict=True)], base, 1e-6)
        times = interleaved(
            {name: step for name, (step, _) in runs.items()},
            seconds=0.1 if options.quick else 30.0,
        )
        rivals = [times[name] for name in ("jax", "jax, by hand") if name in times]
        best = min(rivals, key=lambda timing: timing.median) if rivals else None
        rows.append(
            {
                "d": d,
                "p": p,
                "n": len(obs.values),
                "goal": goal,
                "median": {name: timing.median for name, timing in times.items()},
                "minimum": {name: timing.minimum for name, timing in times.items()},
                "over_jax": best and best.median / times["ours"].median,
                "over_jax_minimum": best
                and min(t.minimum for t in rivals) / times["ours"].minimum,
                "over_autograd": times["autograd"].median / times["ours"].median,
            }
        )
    names = ["ours", "autograd", "jax", "jax, by hand"]
    show(
        ["d", "p", *(f"{name} ms" for name in names), "jax/ours", "by minima", "goal"],
        [
            [row["d"], row["p"]]
            + [row["median"][name] * 1e3 if name in row["median"] else None for name in names]
            + [row["over_jax"], row["over_jax_minimum"], row["goal"]]
            for row in rows
        ],
    )
    if not jax:
        print("JAX is not installed: it was not timed.")
    elif not options.quick:
        record("step", {"k": K, "L": L, "rows": rows})


if __name__ == "__main__":
    main()
