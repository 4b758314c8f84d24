"""Update rules against torch's optimisers and against what they say."""

import math
import re

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop

from lop_utils import descent, rules, spectra
from lop_utils.losses import squared_error

F64 = {"dtype": torch.float64}
PHI = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), **F64)
WS = [
    0.5 * torch.randn(*s, generator=torch.Generator().manual_seed(2), **F64)
    for s in ((5, 4), (3, 5))
]
BOTH = [torch.stack([W, 0.9 * W]) for W in WS]


def by_torch(optimiser, Ws, steps, eta, **options):
    """Train as every tutorial does: parameters, autograd, an optimiser. The oracle."""
    params = [W.clone().requires_grad_() for W in Ws]
    etas = eta if isinstance(eta, (list, tuple)) else [eta] * len(Ws)
    groups = [{"params": [p], "lr": rate} for p, rate in zip(params, etas, strict=True)]
    method = optimiser(groups, **options)
    for _ in range(steps + 1):
        loss = 0.5 * (params[1] @ params[0] - PHI).square().sum()
        yield [p.detach().clone() for p in params], loss.item()
        method.zero_grad()
        loss.backward()
        method.step()


def gap(run, states):
    return max(
        max((W - V).abs().max().item() for W, V in zip(it.Ws, Ws, strict=True))
        for it, (Ws, _) in zip(run, states, strict=True)
    )


RULES = {
    "gradient descent": (rules.gradient_descent, SGD, {}),
    "momentum": (lambda: rules.momentum(0.9), SGD, {"momentum": 0.9}),
    "Nesterov": (lambda: rules.nesterov(0.9), SGD, {"momentum": 0.9, "nesterov": True}),
    "no momentum": (lambda: rules.momentum(0.0), SGD, {}),
    "torch's SGD": (lambda: rules.from_torch(SGD, momentum=0.9), SGD, {"momentum": 0.9}),
    "Adam": (lambda: rules.from_torch(Adam), Adam, {}),
    "amsgrad": (lambda: rules.from_torch(Adam, amsgrad=True), Adam, {"amsgrad": True}),
    "RMSprop": (lambda: rules.from_torch(RMSprop, momentum=0.5), RMSprop, {"momentum": 0.5}),
    "Adagrad": (lambda: rules.from_torch(Adagrad), Adagrad, {}),
}


ETAS = {"one": 0.02, "two": (0.02, 0.005), "frozen": [0.0, 0.02], "schedule": lambda t: 0.02}


@pytest.mark.parametrize("eta", ETAS.values(), ids=ETAS)
@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize(("make", "optimiser", "options"), RULES.values(), ids=RULES)
def test_every_step_is_torch_s(make, optimiser, options, lam, eta):
    run = list(descent.train(WS, squared_error(PHI), make(), eta=eta, lam=lam, steps=20))
    rates = 0.02 if callable(eta) else eta
    states = list(by_torch(optimiser, WS, 20, rates, weight_decay=lam, **options))
    assert gap(run, states) < 1e-13
    assert [it.loss.item() for it in run] == pytest.approx([loss for _, loss in states], rel=1e-12)
    for other in [{"weight_decay": lam + 0.1}, {"eta": 0.017}] * (eta == 0.02):
        options = {"eta": eta, "weight_decay": lam} | options | other  # it would be seen
        assert gap(run, by_torch(optimiser, WS, 20, **options)) > 1e-4
    if isinstance(eta, list):
        assert torch.equal(run[-1].Ws[0], WS[0])  # frozen, decay and all


def test_an_optimiser_s_own_options_reach_it():
    run = descent.train(
        WS, squared_error(PHI), rules.from_torch(AdamW, weight_decay=0.3), eta=0.01, steps=9
    )
    assert gap(run, by_torch(AdamW, WS, 9, 0.01, weight_decay=0.3)) < 1e-13
    assert rules.from_torch(AdamW).name == "AdamW"


@pytest.mark.parametrize("make", [entry[0] for entry in RULES.values()], ids=RULES)
def test_a_step_changes_nothing_that_goes_in(make):
    rule, grads, memory = make(), [torch.ones_like(W) for W in WS], make().start(WS)
    Ws = [W.clone() for W in WS]
    for _ in range(3):
        kept = [A.clone() for As in (Ws, grads, *memory.values()) for A in As]
        after, more = rule.step(Ws, torch.tensor(1.0), grads, [0.1, 0.2], 0.0, memory)
        assert all(map(torch.equal, (A for As in (Ws, grads, *memory.values()) for A in As), kept))
        assert not any(A.requires_grad for As in (after, *more.values()) for A in As)
        Ws, memory = after, more


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="it came with torch 2.9")
@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize(
    "Ws", [WS, [W.mT.contiguous() for W in reversed(WS)]], ids=["wide", "tall"]
)
def test_muon_is_torch_s_but_for_the_precision(monkeypatch, lam, Ws):
    loss = squared_error(PHI if Ws is WS else PHI.mT)

    def run(rule, lam=0.0):
        return descent.record(
            descent.train(Ws, loss, rule, eta=0.02, lam=lam, steps=30),
            a=lambda it: it.Ws[0],
            b=lambda it: it.Ws[1],
        )

    def apart(one, two):
        return max((one[name] - two[name]).abs().max().item() for name in "ab")

    ours = run(rules.muon(0.9), lam)
    theirs = rules.from_torch(torch.optim.Muon, momentum=0.9, weight_decay=lam)
    assert 1e-4 < apart(ours, run(theirs)) < 0.05  # bfloat16
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)
    assert apart(ours, run(theirs)) < 1e-12
    assert apart(run(rules.muon(0.8), lam), run(theirs)) > 1e-4


def test_muon_decays_beside_what_it_orthogonalises():
    fitted = squared_error(WS[1] @ WS[0])  # no gradient: whatever moves is rounding, but for decay
    *_, it = descent.train(WS, fitted, rules.muon(), eta=0.01, lam=0.1, steps=1)
    assert all(torch.equal(W, V - 0.01 * (0.1 * V)) for W, V in zip(it.Ws, WS, strict=True))


def test_muon_goes_on_where_one_run_diverges_and_says_where_all_do():
    three = [torch.stack([W] * 3) for W in WS]
    eta = torch.tensor([0.01, 1e200, 0.01], **F64)
    *_, it = descent.train(three, squared_error(PHI), rules.muon(), eta=eta, steps=9, every=9)
    *_, alone = descent.train(WS, squared_error(PHI), rules.muon(), eta=0.01, steps=9, every=9)
    assert not it.loss[1].isfinite() and it.loss[2] == it.loss[0] == pytest.approx(alone.loss)
    run = descent.train(WS, squared_error(PHI), rules.muon(), eta=1e120, steps=50, every=50)
    with pytest.raises(FloatingPointError, match=r"step t = 50 with eta = 1e\+120"):
        list(run)


@pytest.mark.parametrize("f", [lambda G: G[:1], lambda G: G.sum(), lambda G: None])
def test_muon_refuses_what_is_no_matrix_of_the_shape(f):
    run = descent.train(WS, squared_error(PHI), rules.muon(orthogonalise=f), eta=0.01, steps=1)
    with pytest.raises(ValueError, match=r"^orthogonalise: wanted shape \(5, 4\), got "):
        list(run)


def test_muon_takes_another_polar_factor():
    loss, (G,) = squared_error(PHI), squared_error(PHI)([torch.zeros(3, 4, **F64)]).grads
    exact = rules.muon(0.0, lambda A: spectra.polar(A, 1e-10))
    *_, it = descent.train([torch.zeros(3, 4, **F64)], loss, exact, eta=0.1, steps=1)
    assert (it.Ws[0] + 0.1 * spectra.polar(G, 1e-10)).abs().max() < 1e-15


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (0.1, [0.1, 0.1]),
        (2, [2.0, 2.0]),
        (torch.tensor(0.5), [0.5, 0.5]),
        (np.float32(0.5), [0.5, 0.5]),
        ((0.1, 0), [0.1, 0.0]),
        ([torch.tensor(0.5), 0.25], [0.5, 0.25]),
    ],
)
def test_step_sizes_of_all_and_of_each_layer(eta, expected):
    for Ws in (WS, BOTH):
        assert rules._rates(eta, Ws) == expected


@pytest.mark.parametrize(
    "eta", [torch.tensor([0.5, 0.25]), np.array([0.5, 0.25]), torch.tensor([2, 1])]
)
def test_step_sizes_of_each_run(eta):
    for rate in rules._rates(eta, BOTH):
        assert rate.shape == (2, 1, 1) and rate.dtype == torch.float64
        assert rate.flatten().tolist() == eta.tolist()


EACH = "eta: wanted positive step sizes of shape "


@pytest.mark.parametrize(
    ("eta", "Ws", "error", "message"),
    [
        ([0.1], WS, ValueError, "eta: wanted one or L = 2 step sizes, got 1"),
        ([], WS, ValueError, "eta: wanted one or L = 2 step sizes, got 0"),
        ([0.1, -1], WS, ValueError, "eta[1]: wanted eta[1] >= 0, got -1"),
        ([math.inf, 0.1], WS, ValueError, "eta[0]: wanted a finite number, got inf"),
        ([0.1, None], WS, TypeError, "eta[1]: wanted a real number, got None"),
        ([0, 0.0], WS, ValueError, "eta: wanted at least one layer with eta[l] > 0, got (0, 0.0)"),
        (0.0, WS, ValueError, "eta: wanted eta > 0, got 0.0"),
        (torch.tensor(-1.0), WS, ValueError, "eta: wanted eta > 0, got tensor(-1.)"),
        (math.nan, WS, ValueError, "eta: wanted a finite number, got nan"),
        (None, WS, TypeError, "eta: wanted a real number, got None"),
        ("01", WS, TypeError, "eta: wanted a real number, got '01'"),
        (torch.ones(2), WS, ValueError, EACH + "(), got tensor([1., 1.])"),
        (torch.ones(3), BOTH, ValueError, EACH + "(2,), got tensor("),
        (torch.ones(2, 1), BOTH, ValueError, EACH + "(2,), got tensor("),
        (torch.tensor([1.0, 0.0]), BOTH, ValueError, EACH + "(2,), got tensor("),
        (torch.tensor([1.0, math.inf]), BOTH, ValueError, "eta: wanted finite entries, got NaN"),
    ],
)
def test_step_sizes_out_of_range_are_named_at_the_call(eta, Ws, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        descent.train(Ws, squared_error(PHI), eta=eta, steps=1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rules.momentum(1), ValueError, "beta: wanted 0 <= beta < 1, got 1"),
        (lambda: rules.momentum(-0.1), ValueError, "beta: wanted 0 <= beta < 1, got -0.1"),
        (lambda: rules.momentum(math.nan), ValueError, "beta: wanted a finite number, got nan"),
        (lambda: rules.from_torch("Adam"), TypeError, "optimiser: wanted a class of torch.optim,"),
        (lambda: rules.from_torch(torch.nn.ReLU), TypeError, "optimiser: wanted a class of torch."),
        (lambda: rules.from_torch(Adam, lr=0.1), TypeError, "lr: wanted eta of the trainer in its"),
        (lambda: rules.nesterov(1), ValueError, "beta: wanted 0 <= beta < 1, got 1"),
        (lambda: rules.muon(beta=-1), ValueError, "beta: wanted 0 <= beta < 1, got -1"),
        (lambda: rules.muon(orthogonalise=5), TypeError, "orthogonalise: wanted a function of a "),
    ],
)
def test_rules_refuse(make, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        make()


def test_torch_has_no_step_size_for_each_run():
    run = descent.train(
        BOTH, squared_error(PHI), rules.from_torch(Adam), eta=torch.ones(2), steps=1
    )
    assert next(run).t == 0
    with pytest.raises(TypeError, match=r"^eta: wanted one step size for all runs with Adam$"):
        next(run)
