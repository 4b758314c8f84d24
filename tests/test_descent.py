"""Streams of iterates against plain training loops."""

import itertools
import math
import re

import pytest
import torch

from lop_utils import descent, dln, losses

F64 = {"dtype": torch.float64}
DIMS = (4, 5, 3)
METHODS = [descent.gradient_descent, descent.adam]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


@pytest.fixture
def Ws(generator):
    return dln.gaussian_init(DIMS, 0.8, generator=generator)


@pytest.fixture
def Phi(generator):
    return torch.randn(DIMS[-1], DIMS[0], generator=generator, **F64)


def by_torch(optimiser, Ws, Phi, steps):
    """Train as every tutorial does: parameters, autograd, an optimiser. The oracle."""
    params = [W.clone().requires_grad_() for W in Ws]
    optimise = optimiser(params)
    states = []
    for _ in range(steps + 1):
        W = params[0]
        for layer in params[1:]:
            W = layer @ W
        loss = 0.5 * (W - Phi).square().sum()
        states.append(([p.detach().clone() for p in params], loss.item()))
        optimise.zero_grad()
        loss.backward()
        optimise.step()
    return states


def gap(iterates, states):
    return max(
        max((W - other).abs().max().item() for W, other in zip(it.Ws, Ws, strict=True))
        for it, (Ws, _) in zip(iterates, states, strict=True)
    )


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_gradient_descent_is_torch_s_sgd(Ws, Phi, lam):
    run = list(
        descent.gradient_descent(Ws, losses.matrix_residual(Phi), eta=0.05, lam=lam, steps=60)
    )
    states = by_torch(lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=lam), Ws, Phi, 60)
    assert gap(run, states) < 1e-13
    for it, (_, loss) in zip(run, states, strict=True):
        assert it.loss.item() == pytest.approx(loss, rel=1e-12)


def test_adam_is_torch_s_adam(Ws, Phi):
    run = list(descent.adam(Ws, losses.matrix_residual(Phi), eta=0.01, steps=60))
    assert gap(run, by_torch(lambda p: torch.optim.Adam(p, lr=0.01), Ws, Phi, 60)) < 1e-13


WRONG = {
    "decay-not-times-eta": lambda W, G, eta, lam: (1 - lam) * W - eta * G,
    "no-decay": lambda W, G, eta, lam: W - eta * G,
    "decay-of-the-gradient-too": lambda W, G, eta, lam: (1 - eta * lam) * (W - eta * G),
    "ascent": lambda W, G, eta, lam: (1 - eta * lam) * W + eta * G,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_another_step_would_not_pass(Ws, Phi, wrong):
    eta, lam, steps = 0.05, 0.1, 5
    states = by_torch(lambda p: torch.optim.SGD(p, lr=eta, weight_decay=lam), Ws, Phi, steps)
    for _ in range(steps):
        grads = dln.gradients(Ws, losses.matrix_residual(Phi)).grads
        Ws = [wrong(W, G, eta, lam) for W, G in zip(Ws, grads, strict=True)]
    assert max((W - other).abs().max() for W, other in zip(Ws, states[-1][0], strict=True)) > 1e-4


def test_one_step_in_closed_form():
    # Scalars, L = 1: (1 - 0.1 * 2) * 3 - 0.1 * (3 - 1) = 2.2.
    (_, last) = descent.gradient_descent(
        [torch.tensor([[3.0]], **F64)],
        losses.matrix_residual(torch.tensor([[1.0]], **F64)),
        eta=0.1,
        lam=2.0,
        steps=1,
    )
    assert last.Ws[0].item() == pytest.approx(2.2, rel=1e-15)
    assert last.loss.item() == pytest.approx(0.5 * 1.2**2, rel=1e-15)  # without the decay term


@each_method
def test_the_stream(method, Ws, Phi):
    run = list(method(Ws, losses.matrix_residual(Phi), eta=0.01, steps=3))
    assert [it.t for it in run] == [0, 1, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(run[0].Ws, Ws, strict=True))
    for it in run:  # each loss is that of the weights beside it
        W = dln.end_to_end(it.Ws)
        assert it.loss.shape == () and it.loss == 0.5 * (W - Phi).square().sum()
    assert [it.t for it in method(Ws, losses.matrix_residual(Phi), eta=0.01, steps=0)] == [0]


@each_method
@pytest.mark.parametrize("L", [1, 2], ids=["one-layer", "two-layers"])
def test_every_iterate_owns_its_tensors(method, L, Ws, Phi):
    Ws = Ws if L == 2 else [dln.end_to_end(Ws)]
    before = [W.clone() for W in Ws]
    start = {"residual": losses.matrix_residual(Phi), "eta": 0.01, "steps": 4}
    expected = [[W.clone() for W in it.Ws] for it in method(Ws, **start)]
    kept = []
    for it, weights in zip(method(Ws, **start), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(it.Ws, weights, strict=True))
        kept.append((it, it.loss.item()))
        for W in it.Ws:
            W.fill_(math.nan)  # whatever a caller does to one iterate stays there
    assert all(torch.equal(a, b) for a, b in zip(Ws, before, strict=True))
    assert all(it.loss.item() == loss for it, loss in kept)


@each_method
def test_the_run_starts_from_the_weights_at_the_call(method, Ws, Phi):
    before = [W.clone() for W in Ws]
    run = method(Ws, losses.matrix_residual(Phi), eta=0.01, steps=1)
    for W in Ws:
        W.zero_()
    assert all(torch.equal(a, b) for a, b in zip(next(run).Ws, before, strict=True))


@each_method
def test_parameters_of_a_module_can_be_a_start(method, Ws, Phi):
    start = [torch.nn.Parameter(W) for W in Ws]
    for it in method(start, losses.matrix_residual(Phi), eta=0.01, steps=2):
        assert not any(W.requires_grad for W in it.Ws) and not it.loss.requires_grad


@each_method
def test_a_stream_is_lazy(method, Ws, Phi):
    calls = 0

    def residual(W):
        nonlocal calls
        calls += 1
        return losses.matrix_residual(Phi)(W)

    run = method(Ws, residual, eta=0.01, steps=10**9)
    assert calls == 0
    assert [it.t for it in itertools.islice(run, 3)] == [0, 1, 2] and calls == 3
    run.close()


@each_method
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Ws": torch.eye(2)}, TypeError, "Ws: wanted a sequence of matrices, got Tensor"),
        ({"Ws": []}, ValueError, "Ws: wanted at least one matrix, got none"),
        ({"Ws": [torch.eye(2).int()]}, TypeError, "Ws[0]: wanted a floating-point matrix, got"),
        ({"Ws": [torch.eye(2), torch.eye(3)]}, ValueError, "Ws[1]: wanted 2 columns to follow"),
        ({"Ws": [torch.eye(2) * math.nan]}, ValueError, "Ws[0]: wanted finite entries, got NaN"),
        ({"eta": 0.0}, ValueError, "eta: wanted eta > 0, got 0.0"),
        ({"eta": -1}, ValueError, "eta: wanted eta > 0, got -1"),
        ({"eta": math.nan}, ValueError, "eta: wanted a finite number, got nan"),
        ({"steps": -1}, ValueError, "steps: wanted steps >= 0, got -1"),
        ({"steps": 1.0}, TypeError, "steps: wanted a whole number, got 1.0"),
    ],
    ids=["tensor", "none", "integers", "shapes", "nan", "eta=0", "eta<0", "eta", "steps", "float"],
)
def test_arguments_are_checked_at_the_call(method, change, error, message):
    good = {"Ws": [torch.eye(2)], "residual": None, "eta": 0.1, "steps": 1}
    with pytest.raises(error, match="^" + re.escape(message)):
        method(**(good | change))  # no iterate is asked for


@pytest.mark.parametrize(("lam", "got"), [(-0.1, "wanted lam >= 0, got -0.1"), (math.inf, "inf")])
def test_decay_is_checked_at_the_call(lam, got):
    with pytest.raises(ValueError, match=f"^lam: .*{got}"):
        descent.gradient_descent([torch.eye(2)], None, eta=0.1, lam=lam, steps=1)


def test_a_residual_that_does_not_fit_is_named(Ws):
    run = descent.gradient_descent(Ws, losses.matrix_residual(torch.eye(4, **F64)), eta=1, steps=1)
    with pytest.raises(ValueError, match=r"W: wanted shape \(4, 4\), got \(3, 4\)"):
        next(run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_divergence_names_the_step_and_eta(Ws, Phi, dtype):
    Ws, Phi = [W.to(dtype) for W in Ws], Phi.to(dtype)
    seen = -1
    with pytest.raises(FloatingPointError) as caught:
        for it in descent.gradient_descent(Ws, losses.matrix_residual(Phi), eta=50, steps=1000):
            seen = it.t
            assert it.loss.isfinite()
    assert re.fullmatch(
        rf"loss: wanted a finite number, got (inf|nan) at step t = {seen + 1} with eta = 50; "
        "a smaller eta keeps the run from diverging",
        str(caught.value),
    )
    assert 1 <= seen < 20


def test_a_start_that_is_too_large_is_a_divergence_at_step_0():
    run = descent.gradient_descent(
        [torch.full((1, 1), 1e200, **F64)],
        losses.matrix_residual(torch.ones(1, 1, **F64)),
        eta=1,
        steps=1,
    )
    with pytest.raises(FloatingPointError, match="got inf at step t = 0 with eta = 1;"):
        next(run)


def test_adam_diverges_with_the_same_words(Ws):
    def residual(W):
        return W.sum() * math.inf, W

    with pytest.raises(FloatingPointError, match=r"at step t = 0 with eta = 0\.1;"):
        next(descent.adam(Ws, residual, eta=0.1, steps=1))


# record


def iterates(ts):
    for t in ts:
        yield descent.Iterate(t, [torch.full((2, 2), t, **F64)], torch.tensor(t / 3, **F64))


def test_record_stacks_what_a_loop_would_collect():
    found = descent.record(
        iterates(range(5)),
        loss=lambda it: it.loss,
        W=lambda it: it.Ws[0],
        number=lambda it: it.t / 3,
        count=lambda it: 2 * it.t,
    )
    assert list(found) == ["t", "loss", "W", "number", "count"]
    assert found["t"].tolist() == [0, 1, 2, 3, 4]
    assert found["W"].shape == (5, 2, 2) and found["W"].dtype == torch.float64
    assert found["loss"].tolist() == [t / 3 for t in range(5)]
    assert found["number"].tolist() == [t / 3 for t in range(5)]  # in float64: not a digit lost
    assert found["count"].dtype == torch.int64


def test_record_thins_by_t():
    found = descent.record(iterates(range(3, 12)), every=4, t2=lambda it: it.t**2)
    assert found["t"].tolist() == [4, 8] and found["t2"].tolist() == [16, 64]


def test_record_measures_only_what_it_keeps():
    measured = []
    descent.record(iterates(range(7)), every=3, x=lambda it: measured.append(it.t) or it.loss)
    assert measured == [0, 3, 6]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every: wanted every >= 1, got 0"),
        ({"every": 1.5}, TypeError, "every: wanted a whole number, got 1.5"),
        ({"t": float}, ValueError, "measures: wanted any name but t, which holds the step, got t"),
        ({"every": 9}, ValueError, "iterates: wanted at least one, got none"),
    ],
    ids=["0", "fraction", "t", "nothing"],
)
def test_record_refuses(arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        descent.record(iterates([1, 2]), **arguments)


# Device and dtype


@each_method
def test_device_and_dtype_are_kept(method, place, Ws, Phi):
    start = [W.to(**place.kind) for W in Ws]
    run = method(start, losses.matrix_residual(Phi.to(**place.kind)), eta=0.01, steps=20)
    found = descent.record(run, W=lambda it: it.Ws[0], loss=lambda it: it.loss)
    for A in (found["W"], found["loss"]):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    expected = list(method(Ws, losses.matrix_residual(Phi), eta=0.01, steps=20))[-1].Ws[0]
    assert (found["W"][-1].cpu().double() - expected).abs().max() < place.tolerance


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_heavy_ball_is_torch_s_sgd_with_momentum(Ws, Phi, lam, beta):
    residual = losses.matrix_residual(Phi)
    run = descent.heavy_ball(Ws, residual, eta=0.01, beta=beta, lam=lam, steps=60)
    states = by_torch(
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=beta, weight_decay=lam), Ws, Phi, 60
    )
    assert gap(run, states) < 1e-13


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_heavy_ball_refuses_a_momentum_out_of_range(Ws, Phi, beta):
    with pytest.raises(ValueError, match="beta: wanted"):
        descent.heavy_ball(Ws, losses.matrix_residual(Phi), eta=0.1, beta=beta, steps=1)


def test_minibatch_sgd_with_all_samples_is_gradient_descent(Ws, Phi, generator):
    X = torch.randn(Phi.shape[1], 8, generator=generator, dtype=Phi.dtype)
    residual = losses.data_residual(X, Phi @ X)
    full = descent.gradient_descent(Ws, residual, eta=0.01, steps=20)
    drawn = descent.minibatch_sgd(Ws, X, Phi @ X, eta=0.01, batch=8, steps=20)
    states = [(it.Ws, it.loss.item()) for it in full]
    assert gap(drawn, states) < 1e-13


def test_minibatch_sgd_is_unbiased_and_follows_its_generator(Ws, Phi):
    X = torch.randn(Phi.shape[1], 4, generator=torch.Generator().manual_seed(1), dtype=Phi.dtype)
    Y = Phi @ X
    grads = dln.gradients(Ws, losses.data_residual(X, Y)).grads

    def after(seed):
        draw = torch.Generator().manual_seed(seed)
        *_, last = descent.minibatch_sgd(Ws, X, Y, eta=1e-3, batch=1, steps=1, generator=draw)
        return last.Ws

    assert all(map(torch.equal, after(3), after(3)))
    seeds = {tuple(after(seed)[0].flatten().tolist()): seed for seed in range(40)}
    assert len(seeds) == 4  # as many first steps as samples
    for l, G in enumerate(grads):
        mean = torch.stack([(Ws[l] - after(seed)[l]) / 1e-3 for seed in seeds.values()]).mean(0)
        assert (mean - G).abs().max() < 1e-10


def test_minibatch_sgd_refuses_more_samples_than_there_are(Ws, Phi):
    X = torch.eye(Phi.shape[1], dtype=Phi.dtype)
    with pytest.raises(ValueError, match="batch: wanted at most N = "):
        descent.minibatch_sgd(Ws, X, Phi @ X, eta=0.1, batch=X.shape[1] + 1, steps=1)
