"""The bold driver, with which completion steps, against what it says."""

import math

import pytest
import torch

from lop_utils import _completing, descent
from lop_utils.losses import squared_error

F64 = {"dtype": torch.float64}
PHI = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), **F64)
WS = [
    0.5 * torch.randn(*s, generator=torch.Generator().manual_seed(2), **F64)
    for s in ((5, 4), (3, 5))
]


def test_bold_driver_is_what_it_says():
    loss, eta, lam, most = squared_error(PHI), 0.4, 0.2, 3.0
    rule = _completing.bold_driver(grow=1.5, shrink=0.3, most=most)
    run = descent.train(WS, loss, rule, eta=(eta, eta / 2), lam=lam, steps=60)
    Ws, factor, kept, events = WS, 1.0, None, []
    for it in run:
        assert max((W - V).abs().max() for W, V in zip(it.Ws, Ws, strict=True)) < 1e-12
        value, grads = loss(Ws)
        total = value + lam / 2 * sum(W.square().sum() for W in Ws)
        if kept is None or total <= kept[2] * (1 + 64 * torch.finfo(torch.float64).eps):
            events.append("kept" if kept is None else "capped" if factor * 1.5 > most else "grown")
            factor = 1.0 if kept is None else min(most, factor * 1.5)
            kept = Ws, [G + lam * W for G, W in zip(grads, Ws, strict=True)], total
        else:
            events.append("undone")
            factor *= 0.3
        Ws = [W - factor * e * G for W, G, e in zip(kept[0], kept[1], (eta, eta / 2), strict=True)]
    assert {"undone", "grown"} <= set(events)
    small = descent.train(WS, loss, _completing.bold_driver(most=1.3), eta=1e-3, steps=20)
    factors = [it.memory["factor"][0].item() for it in small if it.t]
    assert factors[:3] == pytest.approx([1, 1.05, 1.05**2]) and factors[-1] == 1.3


def test_bold_driver_takes_back_what_is_no_number_and_lets_rounding_pass():
    def steps(values):
        rule, memory, W = _completing.bold_driver(most=8.0), {}, torch.ones(1, 1, **F64)
        for value in values:
            memory = rule.step([W], torch.tensor(value, **F64), [W], [0.1], 0.0, memory)[1]
        return memory["factor"][0].item()

    assert steps([1.0, math.nan]) == steps([1.0, math.inf]) == steps([1.0, 1.1]) == 0.5
    assert steps([1.0, 1.0]) == steps([1.0, 1 + 1e-14]) == 1.05 and steps([1.0, 1 + 2e-14]) == 0.5
