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
        assert it.loss.shape == ()
        assert it.loss.item() == pytest.approx(0.5 * (W - Phi).square().sum().item(), rel=1e-14)
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


# A step size for each layer


def by_hand(Ws, Phi, rates, lam, steps, beta=0.0):
    """Momentum as torch writes it, with parameter groups for the step sizes. The oracle."""

    def optimiser(params):
        groups = [{"params": [p], "lr": rate} for p, rate in zip(params, rates, strict=True)]
        return torch.optim.SGD(groups, lr=1.0, momentum=beta, weight_decay=lam)

    return by_torch(optimiser, Ws, Phi, steps)


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("rates", [(0.05, 0.01), [0.05, 0.0], (0.0, 0.05), (0.05, 0.05)])
def test_each_layer_has_its_step_size(Ws, Phi, rates, lam):
    residual = losses.matrix_residual(Phi)
    run = list(descent.gradient_descent(Ws, residual, eta=rates, lam=lam, steps=60))
    assert gap(run, by_hand(Ws, Phi, rates, lam, 60)) < 1e-13
    # Neither the step sizes in another order nor their mean would pass.
    for wrong in (rates[::-1], [sum(rates) / 2] * 2):
        if tuple(wrong) != tuple(rates):
            assert gap(run, by_hand(Ws, Phi, wrong, lam, 60)) > 1e-3
    ball = descent.heavy_ball(Ws, residual, eta=rates, beta=0.9, lam=lam, steps=60)
    assert gap(ball, by_hand(Ws, Phi, rates, lam, 60, beta=0.9)) < 1e-13
    for l, rate in enumerate(rates):
        assert torch.equal(run[-1].Ws[l], Ws[l]) == (rate == 0)  # frozen, decay and all


def test_one_step_size_is_that_of_each(Ws, Phi):
    residual = losses.matrix_residual(Phi)
    for lam in (0.0, 0.1):
        one, each = (
            descent.gradient_descent(Ws, residual, eta=eta, lam=lam, steps=20)
            for eta in (0.05, [0.05, 0.05])
        )
        for a, b in zip(one, each, strict=True):
            assert all(map(torch.equal, a.Ws, b.Ws))


@pytest.mark.parametrize("method", [descent.gradient_descent, descent.heavy_ball])
@pytest.mark.parametrize(
    ("eta", "error", "message"),
    [
        ([0.1], ValueError, "eta: wanted one or L = 2 step sizes, got 1"),
        ([], ValueError, "eta: wanted one or L = 2 step sizes, got 0"),
        ([0.1, -1], ValueError, "eta[1]: wanted eta[1] >= 0, got -1"),
        ([math.inf, 0.1], ValueError, "eta[0]: wanted a finite number, got inf"),
        ([0.1, None], TypeError, "eta[1]: wanted a real number, got None"),
        ([0, 0.0], ValueError, "eta: wanted at least one layer with eta[l] > 0, got (0, 0.0)"),
        (0.0, ValueError, "eta: wanted eta > 0, got 0.0"),
        (None, TypeError, "eta: wanted a real number, got None"),
    ],
    ids=["one", "none", "negative", "infinite", "no-number", "zeros", "zero", "None"],
)
def test_step_sizes_are_checked_at_the_call(Ws, method, eta, error, message):
    more = {"beta": 0.9} if method is descent.heavy_ball else {}
    with pytest.raises(error, match="^" + re.escape(message)):
        method(Ws, None, eta=eta, steps=1, **more)


def test_divergence_names_all_step_sizes(Ws, Phi):
    with pytest.raises(FloatingPointError, match=r" t = \d+ with eta = \(50, 0\.5\); a smaller"):
        list(descent.gradient_descent(Ws, losses.matrix_residual(Phi), eta=(50, 0.5), steps=1000))


# Going on from an iterate


def runs_of(Phi):
    """Return every method as a function of where it starts and of how many steps it takes."""
    residual = losses.matrix_residual(Phi)
    X = torch.randn(Phi.shape[1], 8, generator=torch.Generator().manual_seed(1), **F64).to(Phi)

    def sgd(start, steps, seed=3):
        draw = torch.Generator().manual_seed(seed)
        return descent.minibatch_sgd(
            start, X, Phi @ X, eta=1e-3, batch=2, steps=steps, generator=draw
        )

    def global_sgd(start, steps):
        return descent.minibatch_sgd(start, X, Phi @ X, eta=1e-3, batch=2, steps=steps)

    def with_decay(method, lam, **more):
        return lambda start, steps: method(start, residual, lam=lam, steps=steps, **more)

    return {
        "gradient_descent": with_decay(descent.gradient_descent, 0.0, eta=0.05),
        "gradient_descent-lam": with_decay(descent.gradient_descent, 0.1, eta=(0.05, 0.01)),
        "heavy_ball": with_decay(descent.heavy_ball, 0.0, eta=0.01, beta=0.9),
        "heavy_ball-lam": with_decay(descent.heavy_ball, 0.1, eta=0.01, beta=0.9),
        "minibatch_sgd": sgd,
        "minibatch_sgd-global": global_sgd,
        "adam": lambda start, steps: descent.adam(start, residual, eta=0.01, steps=steps),
    }


every_run = pytest.mark.parametrize("name", runs_of(torch.eye(3, 4, **F64)))


def digits(iterates):
    """Return all numbers of a run, memory included."""
    return [
        (it.t, it.loss.item(), [W.tolist() for W in it.Ws])
        + tuple((k, [A.tolist() for A in As]) for k, As in (it.memory or {}).items())
        for it in iterates
    ]


@every_run
@pytest.mark.parametrize("t", [0, 1, 7, 12])
def test_a_run_goes_on_digit_for_digit(Ws, Phi, name, t):
    run = runs_of(Phi)[name]
    torch.manual_seed(5)
    whole = list(run(Ws, 12))
    torch.manual_seed(6)  # what has been drawn in between does not count
    assert digits(run(whole[t], 12)) == digits(whole[t:])


@every_run
def test_a_run_that_goes_on_leaves_the_iterate_as_it_was(Ws, Phi, name):
    run = runs_of(Phi)[name]
    *_, middle = run(Ws, 5)
    before = digits([middle])
    stream = run(middle, 9)
    next(stream)
    for it in stream:
        for As in [it.Ws, *(it.memory or {}).values()]:
            for A in As:
                A.zero_()
    assert digits([middle]) == before


@every_run
def test_a_run_does_not_hear_of_what_a_caller_does_to_an_iterate(Ws, Phi, name):
    run = runs_of(Phi)[name]
    torch.manual_seed(5)
    expected = list(run(Ws, 5))
    torch.manual_seed(5)
    for it, other in zip(run(Ws, 5), expected, strict=True):
        assert digits([it]) == digits([other])
        for As in [it.Ws, *(it.memory or {}).values()]:
            for A in As:
                A.zero_()


FORGETFUL = {
    "heavy_ball": ["velocity"],
    "adam": ["step", "exp_avg", "exp_avg_sq"],
    "minibatch_sgd": ["generator"],
}


@pytest.mark.parametrize(
    ("name", "forgotten"), [(name, part) for name, parts in FORGETFUL.items() for part in parts]
)
def test_a_method_that_forgets_would_not_pass(Ws, Phi, name, forgotten):
    run = runs_of(Phi)[name]
    whole = list(run(Ws, 12))
    assert set(whole[5].memory) == set(FORGETFUL[name])
    blank = next(run(Ws, 0)).memory[forgotten]
    without = whole[5]._replace(memory=whole[5].memory | {forgotten: blank})
    *_, last = run(without, 12)
    assert max((A - B).abs().max() for A, B in zip(last.Ws, whole[12].Ws, strict=True)) > 1e-6


def test_memory_is_none_where_there_is_none(Ws, Phi):
    assert next(runs_of(Phi)["gradient_descent"](Ws, 0)).memory is None
    assert descent.Iterate(0, Ws, torch.tensor(0.0)).memory is None


def test_an_iterate_of_another_method_is_refused(Ws, Phi):
    runs = runs_of(Phi)
    names = ["gradient_descent", "heavy_ball", "minibatch_sgd", "adam"]
    for name, other in itertools.permutations(names, 2):
        with pytest.raises(ValueError, match=r"^Ws: wanted an iterate of the same method, which"):
            runs[name](next(runs[other](Ws, 0)), 3)
    with pytest.raises(
        ValueError, match=r"remembers velocity, got one that remembers nothing; its"
    ):
        runs["heavy_ball"](next(runs["gradient_descent"](Ws, 0)), 3)


@every_run
def test_a_run_cannot_end_before_it_goes_on(Ws, Phi, name):
    run = runs_of(Phi)[name]
    *_, last = run(Ws, 4)
    assert [it.t for it in run(last, 4)] == [4]
    with pytest.raises(ValueError, match=r"^steps: wanted steps >= t = 4 of the iterate to go on"):
        run(last, 3)
    with pytest.raises(TypeError, match=r"^steps: wanted a whole number, got 5.0"):
        run(last, 5.0)
    with pytest.raises(ValueError, match=r"^Ws\[0\]: wanted finite entries, got NaN"):
        run(last._replace(Ws=[W * math.nan for W in last.Ws]), 5)


def test_a_generator_is_left_alone_until_the_first_iterate(Ws, Phi):
    torch.manual_seed(1)
    *_, last = runs_of(Phi)["minibatch_sgd-global"](Ws, 3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    run = runs_of(Phi)["minibatch_sgd-global"](last, 5)
    assert torch.equal(torch.get_rng_state(), before)
    next(run)
    assert torch.equal(torch.get_rng_state(), last.memory["generator"][0])
    *_, last = run  # and no sample is drawn after the last one
    assert torch.equal(torch.get_rng_state(), last.memory["generator"][0])
