"""The cost model of lop_utils.cost against the clock: ratios to a step of the full network."""

import statistics

import common
import torch

from lop_utils import cost, dln, factored, losses, sampling


def step(Ws, residual, gradients=dln.gradients):
    """Return a function that takes one step of gradient descent."""

    def run():
        _, grads = gradients(Ws, residual)
        return [W - 0.01 * G for W, G in zip(Ws, grads, strict=True)]

    return run


def problems(d, L, generator):
    """Return name -> (function to time, width k that the constants belong to, its work)."""
    Phi = torch.randn(d, d, generator=generator, dtype=torch.float64)
    residual = losses.matrix_residual(Phi)

    def layers(k):
        return dln.orthogonal_init((d, *[k] * (L - 1), d), 0.1, generator=generator)

    eye = 0.1 * torch.eye(6, dtype=torch.float64)
    found = {
        "full": (step(layers(d), residual), 10, cost.full_step(d, L)),
        "width 10": (step(layers(10), residual), 10, cost.dense_step(d, d, 10, L)),
        "width 40": (step(layers(40), residual), 40, cost.dense_step(d, d, 40, L)),
        "core, 6": (
            step([eye] * L, losses.matrix_residual(Phi[:6, :6].contiguous())),
            10,
            cost.core_step(6, L),
        ),
    }
    for p in (0.05, 0.01):
        rows, cols = (torch.rand(d, d, generator=generator) < p).nonzero().T
        obs = sampling.observe(rows, cols, Phi[rows, cols], (d, d))
        form = factored.sampled_residual(obs)
        found[f"width 10, {p:.0%} sampled"] = (
            step(layers(10), form, factored.contracted_gradients),
            10,
            cost.sampled_step(len(rows), d, d, 10, L),
        )
    return found


def main():
    """Run the benchmark and record its table."""
    options = common.arguments(__doc__)
    generator, rows = torch.Generator().manual_seed(0), []
    for d in (60,) if options.quick else (200, 500, 1000):
        cases = problems(d, 3, generator)
        # Calibrated before, between and after, as the contenders are interleaved: what disturbs
        # the machine meanwhile disturbs both alike.
        machines = {k: [] for k in (10, 40)}
        times = {name: [] for name in cases}
        for _ in range(1 if options.quick else 5):
            for k, found in machines.items():
                found.append(cost.calibrate(d, k))
            timings = common.interleaved(
                {name: case[0] for name, case in cases.items()}, 0.1 if options.quick else 4.0
            )
            for name, timing in timings.items():
                times[name].append(timing.median)
        machine = {
            k: cost.Machine(*map(statistics.median, zip(*found, strict=True)))
            for k, found in machines.items()
        }
        clock = {name: statistics.median(found) for name, found in times.items()}
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
