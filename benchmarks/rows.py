"""Time a step of two processes that share the rows against one process, a thread each.

python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2 \
    benchmarks/rows.py
"""

import os
import statistics
import time

import torch
from common import agree, arguments, record, show
from torch import distributed

from lop_utils import factored, observed
from lop_utils.book import sharded

ETA, K = 1e-6, 10


def problem(d: int, n: int):
    generator = torch.Generator().manual_seed(0)
    kind = dict(generator=generator, dtype=torch.float64)
    place = torch.randint(d * d, (n,), generator=generator).unique()
    values = torch.randn(len(place), **kind)
    obs = observed.ObservedEntries(place // d, place % d, values, (d, d))
    Ws = [torch.randn(shape, **kind) / shape[1] ** 0.5 for shape in [(K, d), (K, K), (d, K)]]
    return obs, Ws


def stepper(Ws, two_layers):
    Ws, loss = [W.clone() for W in Ws], factored.of_factors(two_layers)

    def step():
        value, grads = loss(Ws)
        for W, G in zip(Ws, grads, strict=True):
            W.sub_(G, alpha=ETA)
        return value

    return step, Ws


def main() -> None:
    options = arguments(__doc__.splitlines()[0], threads=1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    alone = "RANK" not in os.environ
    if alone:
        print("Started without torch.distributed.run: one process, nothing to compare.")
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        store = distributed.HashStore()
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    else:
        distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    d, n = (200, 4000) if options.quick else (20_000, 2_000_000)
    obs, Ws = problem(d, n)
    block = sharded.row_blocks(obs, size)[rank]
    part = sharded.rows_between(obs, block)
    loss = sharded.summed_loss(factored.fastest_loss(part, K))
    step, shared = stepper([*Ws[:-1], Ws[-1][slice(*block)]], loss)
    single, whole = stepper(Ws, factored.fastest_loss(obs, K)) if rank == 0 else (None, None)

    # One step of each in turn; while rank 0 is alone the others wait at the barrier.
    taken: dict[str, list[float]] = {"one": [], "all": []}
    for turn in range(5 if options.quick else 60):
        distributed.barrier()
        if rank == 0:
            start = time.perf_counter()
            single()
            taken["one"].append(time.perf_counter() - start)
        distributed.barrier()
        start = time.perf_counter()
        step()
        distributed.barrier()  # the step is done when all have done it
        taken["all"].append(time.perf_counter() - start)
        if turn == 0:
            last = sharded.gather_rows(shared[-1])
            if rank == 0:
                agree("rows", [*shared[:-1], last], whole)
    if rank == 0:
        one, many = ([f(t[2:]) for f in (statistics.median, min)] for t in taken.values())
        row = {
            "processes": size,
            "d": d,
            "n": len(obs.values),
            "exchanged": 1 + K * d,
            "median": {"one": one[0], "all": many[0]},
            "minimum": {"one": one[1], "all": many[1]},
            "speedup": one[0] / many[0],
            "speedup_minimum": one[1] / many[1],
        }
        show(
            ["processes", "d", "n", "one ms", "all ms", "speed-up", "by minima", "numbers a step"],
            [
                [size, d, row["n"], one[0] * 1e3, many[0] * 1e3]
                + [row["speedup"], row["speedup_minimum"], row["exchanged"]]
            ],
        )
        if not options.quick and not alone:
            record("rows", {"k": K, "rows": [row]})
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
