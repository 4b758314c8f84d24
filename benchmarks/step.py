"""Time one gradient step of matrix completion: this package, autograd, JAX.

Three layers of width 10 in double precision. The rivals form the product in full and mask it,
the small factors first; JAX compiles the step and reuses the memory of the layers. Of JAX's three
forms, differentiated, written by hand, and by hand in blocks of rows that stay in the cache, the
quickest counts; of torch's, autograd and this package, one thread or two, the quicker.
"""

import torch
from common import agree, arguments, interleaved, jax_or_none, record, show

from lop_utils import factored, observed

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
    obs = observed.ObservedEntries(rows, cols, Phi[rows, cols], (d, d))
    shapes = [(K, d), (K, K), (d, K)]
    return obs, [torch.randn(shape, **kind) / shape[1] ** 0.5 for shape in shapes]


def ours(obs, Ws):
    Ws, loss = [W.clone() for W in Ws], factored.of_factors(factored.fastest_loss(obs, K))

    def step():
        value, grads = loss(Ws)
        for W, G in zip(Ws, grads, strict=True):
            W.sub_(G, alpha=ETA)
        return value

    return step, lambda: Ws


def on_one_thread(step):
    def alone():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return step()
        finally:
            torch.set_num_threads(threads)

    return alone


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
    d = len(mask)
    height = max(h for h in range(1, 251) if d % h == 0)
    mask, values = jnp.asarray(mask.numpy() > 0), jnp.asarray(values.numpy())

    def loss_of(Ws, mask, values):
        W1, W2, W3 = Ws
        return 0.5 * jnp.sum(jnp.square(jnp.where(mask, W3 @ (W2 @ W1) - values, 0.0)))

    def updated(Ws, grads):
        return [W - ETA * G for W, G in zip(Ws, grads, strict=True)]

    def differentiated(Ws, mask, values):
        loss, grads = jax.value_and_grad(loss_of)(Ws, mask, values)
        return loss, updated(Ws, grads)

    def by_hand(Ws, mask, values):
        W1, W2, W3 = Ws
        Q = W2 @ W1
        R = jnp.where(mask, W3 @ Q - values, 0.0)
        PtR = W3.T @ R
        loss = 0.5 * jnp.sum(jnp.square(R))
        return loss, updated(Ws, [W2.T @ PtR, PtR @ W1.T, R @ Q.T])

    def in_blocks(Ws, mask, values):
        W1, W2, W3 = Ws
        Q = W2 @ W1

        def add(sums, block):
            (loss, PtR), (mask, values, P) = sums, block
            R = jnp.where(mask, P @ Q - values, 0.0)
            return (loss + 0.5 * jnp.sum(jnp.square(R)), PtR + P.T @ R), R @ Q.T

        blocks = [A.reshape(d // height, height, -1) for A in (mask, values, W3)]
        (loss, PtR), RQt = jax.lax.scan(add, (jnp.zeros(()), jnp.zeros_like(Q)), tuple(blocks))
        return loss, updated(Ws, [W2.T @ PtR, PtR @ W1.T, RQt.reshape(d, K)])

    def contender(function):
        compiled = jax.jit(function, donate_argnums=0)
        state = [jnp.array(W.numpy(), copy=True) for W in Ws]

        def step():
            nonlocal state
            loss, state = compiled(state, mask, values)
            jax.block_until_ready((loss, state))
            return loss

        return step, lambda: state

    return {
        "jax": contender(differentiated),
        "jax, by hand": contender(by_hand),
        "jax, in blocks": contender(in_blocks),
    }


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
        steps = {name: step for name, (step, _) in runs.items()}
        for name in ("ours", "autograd"):
            steps[f"{name}, 1 thread"] = on_one_thread(steps[name])
        times = interleaved(
            steps, seconds=0.1 if options.quick else 30.0, block=0.0 if options.quick else 0.15
        )

        def best(who, times=times):
            """Return the least median and the least minimum of a contender's forms."""
            forms = [timing for name, timing in times.items() if name.split(",")[0] == who]
            return [min(column) for column in zip(*forms, strict=True)] if forms else None

        best = {who: best(who) for who in ("ours", "autograd", "jax")}
        ratio = {
            who: best[who] and [a / b for a, b in zip(best[who], best["ours"], strict=True)]
            for who in ("autograd", "jax")
        }
        rows.append(
            {
                "d": d,
                "p": p,
                "n": len(obs.values),
                "goal": goal,
                # of the least over the forms, by medians and by minima
                "best": best,
                "over": ratio,
                "met": None if goal is None or not jax else min(ratio["jax"]) > goal,
                "median": {name: timing.median for name, timing in times.items()},
                "minimum": {name: timing.minimum for name, timing in times.items()},
            }
        )
    show(
        ["d", "p", *(f"{name} ms" for name in rows[0]["median"]), "jax/ours", "by minima", "goal"],
        [
            [row["d"], row["p"], *(1e3 * seconds for seconds in row["median"].values())]
            + [*(row["over"]["jax"] or [None, None]), row["goal"]]
            for row in rows
        ],
    )
    if not jax:
        print("JAX is not installed: it was not timed.")
    elif not options.quick:
        record("step", {"k": K, "L": L, "rows": rows})


if __name__ == "__main__":
    main()
