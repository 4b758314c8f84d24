"""Time a step where everything is observed: the core of width 2r against the whole network.

Three layers, a target of rank 3, double precision. The core is read off the wide network's start
by `compression.compress`, once; after that the width does not enter.
"""

import time
from functools import partial

import torch
from common import agree, arguments, interleaved, jax_or_none, record, show

from lop_utils import compression, data, descent, init, losses

ETA, EPS, L, RANK = 1e-3, 0.5, 3, 3
GOAL = 1e-4  # seconds a step, at any width


def problem(d: int):
    generator = torch.Generator().manual_seed(0)
    strengths = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    Phi = data.low_rank_target(d, d, strengths, generator=generator)
    Ws = init.orthogonal((d,) * (L + 1), EPS, generator=generator)
    start = time.perf_counter()
    small = compression.compress(Ws, Phi, rhat=RANK, eps=EPS)
    return Ws, Phi, small, time.perf_counter() - start


def side_by_side(Ws, Phi, steps, runs):
    Ws, loss = [W.expand(runs, *W.shape) for W in Ws], losses.squared_error(Phi)

    def block():
        *_, last = descent.train(Ws, loss, eta=ETA, steps=steps, every=steps)
        return [W[-1] for W in last.Ws]

    return block


def trained(Ws, Phi, steps, every=1):
    def block():
        run = descent.train(Ws, losses.squared_error(Phi), eta=ETA, steps=steps, every=every)
        for last in run:  # noqa: B007 - the last is returned
            pass
        return last.Ws

    return block


def autograd(Ws, Phi, steps):
    def block():
        layers = [W.clone().requires_grad_() for W in Ws]
        for _ in range(steps):
            W1, W2, W3 = layers
            loss = 0.5 * (W3 @ W2 @ W1 - Phi).square().sum()
            grads = torch.autograd.grad(loss, layers)
            with torch.no_grad():
                for W, G in zip(layers, grads, strict=True):
                    W.sub_(G, alpha=ETA)
        return [W.detach() for W in layers]

    return block


def jax_loop(jax, Ws, Phi, steps, runs=None):
    jnp = jax.numpy
    state, target = [jnp.array(W.numpy(), copy=True) for W in Ws], jnp.asarray(Phi.numpy())
    if runs:
        state = [jnp.tile(W, (runs, 1, 1)) for W in state]

    def loss_of(Ws):
        W1, W2, W3 = Ws
        return 0.5 * jnp.sum(jnp.square(W3 @ W2 @ W1 - target))

    def loop(Ws):
        def step(_, Ws):
            grads = jax.grad(loss_of)(Ws)
            return [W - ETA * G for W, G in zip(Ws, grads, strict=True)]

        return jax.lax.fori_loop(0, steps, step, Ws)

    compiled = jax.jit(jax.vmap(loop) if runs else loop)

    def block():
        found = jax.block_until_ready(compiled(state))
        return [W[-1] for W in found] if runs else found

    return block


def cuda_graph(Ws, Phi, steps):
    """Return a block of steps as one CUDA graph: the calls are paid for once."""
    layers, Phi = [W.cuda() for W in Ws], Phi.cuda()
    first = [W.clone() for W in layers]

    def block_of_steps():
        for _ in range(steps):
            W1, W2, W3 = layers
            W21 = W2 @ W1
            R = W3 @ W21 - Phi
            S = W3.T @ R
            grads = [W2.T @ S, S @ W1.T, R @ W21.T]
            for W, G in zip(layers, grads, strict=True):
                W.sub_(G, alpha=ETA)

    aside = torch.cuda.Stream()  # what is captured must have run before, on another stream
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        block_of_steps()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        block_of_steps()

    def block():
        for W, W0 in zip(layers, first, strict=True):
            W.copy_(W0)
        graph.replay()
        torch.cuda.synchronize()
        return [W.cpu() for W in layers]

    return block


def on_gpu(options) -> None:
    if not torch.cuda.is_available():
        print("There is no GPU: the CUDA graphs were not run.")
        return
    steps, rows = (20 if options.quick else 500), []
    for d in (20, 30) if options.quick else (100, 300, 1000):
        small = problem(d)[2]
        calls = {"graph": cuda_graph(small.Ws, small.Phi, steps)}
        agree("graph", calls["graph"](), trained(small.Ws, small.Phi, steps)())
        times = interleaved(calls, seconds=0.1 if options.quick else 5.0)
        rows.append([d, times["graph"].median / steps * 1e3, times["graph"].minimum / steps * 1e3])
    columns = ["d", "CUDA graph ms a step", "least ms"]
    show(columns, rows)
    if not options.quick:
        record("core-cuda", {"columns": columns, "rows": rows}, device="cuda")


def main() -> None:
    device = dict(choices=["cpu", "cuda"], default="cpu", help="cuda: the graphs alone")
    options = arguments(__doc__.splitlines()[0], device=device)
    if options.device == "cuda":
        return on_gpu(options)
    jax, rows, many = jax_or_none(), [], []
    quick = options.quick
    steps, seconds = (20, 0.05) if quick else (500, 8.0)
    for d in (20, 30) if quick else (100, 300, 1000):
        Ws, Phi, small, setup = problem(d)
        core = small.Ws, small.Phi, steps
        calls = {
            "ours": trained(*core, every=steps),
            "generator": trained(*core),
            "autograd": autograd(*core),
        }
        if jax:
            calls["jax"] = jax_loop(jax, *core)
        wanted = calls["autograd"]()
        for name, call in calls.items():
            agree(name, call(), wanted)
        times = interleaved(calls, seconds=seconds)
        whole = partial(losses.squared_error(Phi), Ws)
        wide = interleaved({"wide": whole}, seconds / 5)["wide"]
        row = {
            name: {"median": t.median / steps, "minimum": t.minimum / steps}
            for name, t in times.items()
        }
        row["wide"] = wide._asdict()
        rows.append({"d": d, "setup": setup, "goal": GOAL} | row)
    for runs in (2, 3) if quick else (8, 64, 512):  # the core of the last width
        calls = {"ours": side_by_side(*core, runs=runs)}
        if jax:
            calls["jax"] = jax_loop(jax, *core, runs=runs)
        for name, call in calls.items():
            agree(name, call(), wanted)
        times = interleaved(calls, seconds=seconds, warm=1)
        per_run = {
            name: {"median": t.median / steps / runs, "minimum": t.minimum / steps / runs}
            for name, t in times.items()
        }
        many.append({"runs": runs} | per_run)

    def microseconds(row, name):
        return row[name]["median"] * 1e6 if name in row else None

    names = ["ours", "generator", "autograd", "jax", "wide"]
    print("Microseconds a step of the core; wide: of the whole network")
    show(["d", *names], [[row["d"], *(microseconds(row, name) for name in names)] for row in rows])
    print("Many runs at once: microseconds a step and run")
    show(
        ["runs", "ours", "jax"],
        [[row["runs"], microseconds(row, "ours"), microseconds(row, "jax")] for row in many],
    )
    if not jax:
        print("JAX is not installed: it was not timed.")
    elif not quick:
        record("core", {"L": L, "rank": RANK, "steps": steps, "rows": rows, "batches": many})


if __name__ == "__main__":
    main()
