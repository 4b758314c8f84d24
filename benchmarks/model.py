"""The cost model of lop_utils.book.cost against the clock: ratios to a step of the full network.

On one thread, by the least of many short times: what else the machine does only ever adds.
"""

import common
import torch

from lop_utils import factored, init, losses, observed
from lop_utils.book import cost


def step(Ws, loss):
    """Return a function that takes one step of gradient descent."""

    def run():
        _, grads = loss(Ws)
        return [W - 0.01 * G for W, G in zip(Ws, grads, strict=True)]

    return run


def problems(d, L, generator):
    """Return name -> (function to time, width k that the constants belong to, its work)."""
    Phi = torch.randn(d, d, generator=generator, dtype=torch.float64)
    loss = losses.squared_error(Phi)

    def layers(k):
        return init.orthogonal((d, *[k] * (L - 1), d), 0.1, generator=generator)

    eye = 0.1 * torch.eye(6, dtype=torch.float64)
    found = {
        "full": (step(layers(d), loss), 10, cost.full_step(d, L)),
        "width 10": (step(layers(10), loss), 10, cost.dense_step(d, d, 10, L)),
        "width 40": (step(layers(40), loss), 40, cost.dense_step(d, d, 40, L)),
        "core, 6": (
            step([eye] * L, losses.squared_error(Phi[:6, :6].contiguous())),
            10,
            cost.core_step(6, L),
        ),
    }
    for k, p in ((10, 0.05), (10, 0.01), (40, 0.05), (40, 0.01)):
        rows, cols = (torch.rand(d, d, generator=generator) < p).nonzero().T
        obs = observed.ObservedEntries(rows, cols, Phi[rows, cols], (d, d))
        form = factored.of_factors(factored.sampled_loss(obs))
        found[f"width {k}, {p:.0%} sampled"] = (
            step(layers(k), form),
            k,
            cost.sampled_step(len(rows), d, d, k, L),
        )
    return found


def main():
    """Run the benchmark and record its table."""
    options = common.arguments(__doc__.splitlines()[0], threads=1)
    generator, rows = torch.Generator().manual_seed(0), []
    for d in (60,) if options.quick else (200, 500, 1000):
        cases = problems(d, 3, generator)
        machines = {k: [] for k in (10, 40)}
        clock = dict.fromkeys(cases, float("inf"))
        for _ in range(1 if options.quick else 4):
            for k, found in machines.items():
                found.append(cost.calibrate(d, k))
            timings = common.interleaved(
                {name: case[0] for name, case in cases.items()},
                0.1 if options.quick else 4.0,
                block=0.003,
            )
            for name, timing in timings.items():
                clock[name] = min(clock[name], timing.minimum)
        # overhead, rate, bandwidth, thin, fetch: the best of each
        best = (min, max, max, max, min)
        machine = {}
        for k, found in machines.items():
            columns = zip(*found, strict=True)
            machine[k] = cost.Machine(*(of(c) for of, c in zip(best, columns, strict=True)))
        model = {name: cost.seconds(work, machine[k]) for name, (_, k, work) in cases.items()}
        for name in list(cases)[1:]:
            measured, predicted = (t["full"] / t[name] for t in (clock, model))
            rows.append([d, name, clock[name], measured, predicted, predicted / measured - 1])
    columns = ["d", "network", "seconds", "ratio", "predicted", "off"]
    common.show(columns, rows)
    if not options.quick:
        common.record("model", {"columns": columns, "rows": rows})


if __name__ == "__main__":
    main()
