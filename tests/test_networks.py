"""Networks with nonlinear layers against loops, plain training loops and wrong variants."""

import itertools
import math
import re

import pytest
import torch
from torch.optim import SGD

from lop_utils import checkpoints, descent, dln, losses, networks
from lop_utils.networks import batch_norm_relu, linear

F64 = {"dtype": torch.float64}
# No two neighbours agree, so a transposed factor cannot pass.
DIMS, N = (4, 6, 3, 5, 2), 8
SIZES = list(zip(DIMS[1:], DIMS[:-1], strict=True))
LINEAR, RELU = [linear] * 4, [torch.relu] * 3 + [linear]
NORMED = [batch_norm_relu, torch.relu, batch_norm_relu, linear]


@pytest.fixture
def Ws(generator):
    return [0.45 * torch.randn(*size, generator=generator, **F64) for size in SIZES]


@pytest.fixture
def data(generator):
    return tuple(torch.randn(d, N, generator=generator, **F64) for d in (DIMS[0], DIMS[-1]))


@pytest.fixture
def runs(generator):
    """Five networks that differ in seed and in scale."""
    return [
        [scale * torch.randn(*size, generator=generator, **F64) for size in SIZES]
        for scale in (0.2, 0.3, 0.4, 0.5, 0.35)
    ]


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def gap(found, expected):
    """Return the largest distance of tensors, relative to the largest entry of each."""
    pairs = zip(found, expected, strict=True)
    return max(((A - B).abs().max() / B.abs().max().clamp(min=1e-300)).item() for A, B in pairs)


def digits(iterates):
    """Return all numbers of a run, memory included."""
    return [
        (it.t, it.loss.tolist(), [W.tolist() for W in it.Ws])
        + tuple((k, [A.tolist() for A in As]) for k, As in it.memory.items())
        for it in iterates
    ]


# Forward


def test_a_linear_network_has_the_outputs_of_dln(Ws, data):
    found = networks.forward(Ws, data[0], LINEAR)
    assert all(map(torch.equal, found, dln.layer_outputs(Ws, data[0]))) and len(found) == 5


@pytest.mark.parametrize("activations", [RELU, [torch.tanh, torch.relu, linear, torch.sigmoid]])
def test_forward_equals_the_slow_way_run_by_run(runs, data, activations):
    found = networks.forward(networks.stack_runs(runs), data[0], activations)
    assert found[0] is data[0] and [Z.shape[:-1] for Z in found[1:]] == [(5, d) for d in DIMS[1:]]
    for b, i in itertools.product(range(5), range(N)):
        z = data[0][:, i]
        for l, (W, activation) in enumerate(zip(runs[b], activations, strict=True), 1):
            z = activation(torch.stack([sum(row[j] * z[j] for j in range(len(z))) for row in W]))
            assert (found[l][b, :, i] - z).abs().max() < 1e-13


# Training


def by_torch(Ws, X, Y, activations, *, eta, beta=0.0, lam=0.0, alpha=1.0, batch=N, steps, wrong=""):
    """Train as every tutorial does: parameters, autograd, an optimiser. The oracle."""
    params = [W.clone().requires_grad_() for W in Ws]
    optimiser, draw = SGD(params, eta, momentum=beta, weight_decay=lam), seeded()
    for _ in range(steps + 1):
        chosen = torch.randperm(N, generator=draw)[:batch] if batch < N else slice(None)
        Z = X[:, chosen]
        for W, activation in zip(params, activations, strict=True):
            Z = activation(W @ Z)
        target = Y[:, chosen] * (alpha if wrong == "alpha-at-labels" else 1)
        squares = ((1 if wrong == "no-alpha" else alpha) * Z - target).square()
        loss = 0.5 * squares.sum() * (1 if wrong == "not-by-N" else N / batch)
        if wrong == "mean":
            loss = loss / N
        yield [p.detach().clone() for p in params], loss.detach()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def furthest(run, states):
    return max(
        gap([*it.Ws, it.loss], [*Ws, loss]) for it, (Ws, loss) in zip(run, states, strict=True)
    )


OPTIONS = {
    "plain": {},
    "decay": {"lam": 0.3},
    "momentum": {"beta": 0.8, "lam": 0.1},
    "alpha": {"alpha": 0.4},
    "batch": {"batch": 3},
    "everything": {"beta": 0.5, "lam": 0.2, "alpha": 0.4, "batch": 3},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
each_network = pytest.mark.parametrize(
    "activations", [LINEAR, RELU, NORMED], ids=["linear", "relu", "normed"]
)


@each_option
@each_network
def test_training_is_torch_s_sgd(Ws, data, activations, options):
    options = {"eta": 0.01, "steps": 30} | options
    run = list(networks.train(Ws, *data, activations, generator=seeded(), **options))
    assert [it.t for it in run] == list(range(31)) and run[0].loss.shape == ()
    assert furthest(run, by_torch(Ws, *data, activations, **options)) < 1e-11


@pytest.mark.parametrize(
    "change",
    [
        *({"wrong": name} for name in ("alpha-at-labels", "no-alpha", "not-by-N", "mean")),
        *({"beta": 0.4}, {"lam": 0.0}, {"alpha": 0.16}, {"batch": 4}, {"eta": 0.011}),
    ],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_a_wrong_run_would_be_seen(Ws, data, change):
    options = {"eta": 0.01, "steps": 30} | OPTIONS["everything"]
    run = networks.train(Ws, *data, RELU, generator=seeded(), **options)
    assert furthest(run, by_torch(Ws, *data, RELU, **options | change)) > 1e-3


def scaled_residual(X, Y, alpha):
    def residual(W):
        S = alpha * W @ X - Y
        return 0.5 * S.square().sum(), alpha * S @ X.T

    return residual


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("lam", [0.0, 0.2])
def test_a_linear_network_is_trained_as_in_descent(Ws, data, alpha, lam):
    options = {"eta": 0.01, "lam": lam, "steps": 40}
    residual = scaled_residual(*data, alpha) if alpha < 1 else losses.data_residual(*data)
    descents = {
        0.0: descent.gradient_descent(Ws, residual, **options),
        0.8: descent.heavy_ball(Ws, residual, beta=0.8, **options),
    }
    for beta, expected in descents.items():
        run = networks.train(Ws, *data, LINEAR, beta=beta, alpha=alpha, **options)
        assert furthest(run, [(it.Ws, it.loss) for it in expected]) < 1e-12


def test_linear_batches_are_those_of_descent(Ws, data):
    options = {"eta": 0.005, "batch": 3, "steps": 40}
    run = networks.train(Ws, *data, LINEAR, generator=seeded(), **options)
    expected = descent.minibatch_sgd(Ws, *data, generator=seeded(), **options)
    for it, other in zip(run, expected, strict=True):
        assert gap(it.Ws, other.Ws) < 1e-12


def backpropagated(Ws, X, Y, alpha):
    """Return the gradients of a ReLU network sample by sample, by the chain rule."""
    grads = [torch.zeros_like(W) for W in Ws]
    for x, target in zip(X.T, Y.T, strict=True):
        zs = [x]
        for l, W in enumerate(Ws):
            a = W @ zs[-1]
            zs.append(a * (a > 0) if l + 1 < len(Ws) else a)
        delta = alpha * (alpha * zs[-1] - target)
        for l in reversed(range(len(Ws))):
            grads[l] += torch.outer(delta, zs[l])
            delta = (Ws[l].T @ delta) * (zs[l] > 0)
    return grads


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_a_step_follows_the_gradient_of_the_chain_rule(Ws, data, alpha):
    _, after = networks.train(Ws, *data, RELU, eta=1.0, alpha=alpha, steps=1)
    grads = backpropagated(Ws, *data, alpha)
    assert gap([W - V for W, V in zip(Ws, after.Ws, strict=True)], grads) < 1e-12
    assert gap(after.memory["velocity"], grads) < 1e-12


@each_option
@each_network
def test_runs_side_by_side_are_those_of_each_alone(runs, data, activations, options):
    options = {"eta": 0.005, "steps": 20} | options
    together = networks.stack_runs(runs)
    *_, last = networks.train(together, *data, activations, generator=seeded(), **options)
    assert last.loss.shape == (5,)
    for b, Ws in enumerate(runs):
        *_, alone = networks.train(Ws, *data, activations, generator=seeded(), **options)
        assert gap([W[b] for W in last.Ws], alone.Ws) < 1e-11
        assert last.loss[b].item() == pytest.approx(alone.loss.item(), rel=1e-11)


def test_a_batch_of_all_samples_is_all_samples(Ws, data):
    full = list(networks.train(Ws, *data, RELU, eta=0.01, steps=30))
    drawn = networks.train(Ws, *data, RELU, eta=0.01, batch=N, steps=30)
    assert furthest(drawn, [(it.Ws, it.loss) for it in full]) < 1e-12


def test_batches_are_unbiased_and_follow_their_generator(Ws, data):
    def after(seed):
        draw = {"batch": 1, "generator": seeded(seed)}
        return list(networks.train(Ws, *data, RELU, eta=1.0, steps=1, **draw))

    assert digits(after(3)) == digits(after(3))
    first = {before.loss.item(): it for before, it in map(after, range(60))}
    assert len(first) == N  # as many first steps as samples
    for l, G in enumerate(backpropagated(Ws, *data, 1.0)):
        mean = torch.stack([it.memory["velocity"][l] for it in first.values()]).mean(0)
        assert gap([mean], [G]) < 1e-12


def test_a_step_size_of_each_step(Ws, data):
    seen = []

    def eta(t):
        seen.append(t)
        return 0.01 / (1 + t)

    run = list(networks.train(Ws, *data, RELU, eta=eta, steps=5))
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]
    for t in range(5):
        (_, after) = networks.train(run[t].Ws, *data, RELU, eta=0.01 / (1 + t), steps=1)
        assert gap(run[t + 1].Ws, after.Ws) < 1e-15
    constant = networks.train(Ws, *data, RELU, eta=lambda t: 0.01, steps=5)
    assert digits(constant) == digits(networks.train(Ws, *data, RELU, eta=0.01, steps=5))


@pytest.mark.parametrize(
    ("every", "steps", "times"),
    [(1, 3, [0, 1, 2, 3]), (4, 9, [0, 4, 8, 9]), (5, 10, [0, 5, 10]), (7, 3, [0, 3]), (1, 0, [0])],
)
def test_every_leaves_out_iterates_but_changes_none(Ws, data, every, steps, times):
    options = {"eta": 0.01, "beta": 0.5, "batch": 3, "steps": steps}
    whole = digits(networks.train(Ws, *data, RELU, generator=seeded(), **options))
    some = networks.train(Ws, *data, RELU, generator=seeded(), every=every, **options)
    assert digits(some) == [whole[t] for t in times]


# Going on


KINDS = {
    "plain": {"eta": 0.01},
    "momentum": {"eta": lambda t: 0.01 / (1 + t), "beta": 0.8, "lam": 0.1},
    "batch": {"eta": 0.01, "beta": 0.5, "batch": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [True, False], ids=["generator", "global"])
def test_a_run_goes_on_digit_for_digit(Ws, runs, data, tmp_path, kind, own):
    def run(start, steps=12, seed=3):
        draw = {"generator": seeded(seed)} if own else {}
        return networks.train(start, *data, NORMED, steps=steps, **draw, **KINDS[kind])

    for start in (Ws, networks.stack_runs(runs)):
        torch.manual_seed(5)
        whole = list(run(start))
        torch.manual_seed(6)  # what has been drawn in between does not count
        for t in (0, 1, 7, 12):
            assert digits(run(whole[t], seed=4)) == digits(whole[t:])
            checkpoints.save(tmp_path / "run.pt", whole[t])
            loaded = checkpoints.load(tmp_path / "run.pt")
            assert digits([loaded]) == digits([whole[t]])
            assert digits(run(loaded, seed=4)) == digits(whole[t:])
    before = digits([whole[7]])
    for it in run(whole[7]):  # neither the start nor the run hear of what a caller does
        assert digits([it]) == digits([whole[it.t]])
        for A in itertools.chain(it.Ws, [it.loss], *it.memory.values()):
            A.zero_()
    assert digits([whole[7]]) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 5])
def test_a_recorded_run_goes_on_after_an_interruption(Ws, data, tmp_path, kind, every):
    file, measures = tmp_path / "run.pt", {"loss": lambda it: it.loss, "W": lambda it: it.Ws[1]}

    def run(start, steps, stop=99):
        options = KINDS[kind] | {"steps": steps, "every": every, "generator": seeded()}
        for it in networks.train(start, *data, RELU, **options):
            if it.t >= stop:
                raise KeyboardInterrupt
            yield it

    def recorded(*steps):
        start = checkpoints.resume(file, Ws)
        return descent.record(run(start, *steps), every=every, file=file, **measures)

    with pytest.raises(KeyboardInterrupt):
        recorded(12, 6)
    for steps in (7, 7, 12):  # 7 is no multiple of 5: the file ends between two measures
        found = recorded(steps)
    expected = descent.record(run(Ws, 12), **measures)
    kept = expected["t"] % every == 0
    assert found["t"].tolist() == expected["t"][kept].tolist()
    for name in measures:
        assert torch.equal(found[name], expected[name][kept])


def test_memory_that_does_not_fit_is_refused(Ws, data):
    def run(start, steps=3, **more):
        return networks.train(start, *data, RELU, eta=0.01, steps=steps, **more)

    *_, full = run(Ws)
    *_, drawn = run(Ws, batch=2)
    for start, more in ((full, {"batch": 2}), (drawn, {}), (full._replace(memory=None), {})):
        with pytest.raises(ValueError, match=r"^Ws: wanted an iterate of the same method, which"):
            run(start, 5, **more)
    with pytest.raises(ValueError, match=r"remembers \['velocity'\], got one that remembers \[\]"):
        run(full._replace(memory=None))
    with pytest.raises(ValueError, match=r"^steps: wanted steps >= t = 3 of the iterate, got 2"):
        run(full, 2)
    assert [it.t for it in run(full, 3)] == [3]


# What a caller owns


@each_network
def test_the_input_is_not_changed_and_no_gradient_leaks(Ws, data, activations):
    given = [torch.nn.Parameter(W.clone()) for W in Ws]
    options = {"eta": 0.01, "beta": 0.5, "steps": 4}
    expected = digits(networks.train(Ws, *data, activations, **options))
    kept = list(networks.train(given, *data, activations, **options))
    assert digits(kept) == expected
    assert all(torch.equal(A, B) and A.grad is None for A, B in zip(given, Ws, strict=True))
    tensors = [A for it in kept for A in (*it.Ws, it.loss, *it.memory["velocity"])]
    assert not any(A.requires_grad or type(A) is not torch.Tensor for A in tensors)
    places = {A.data_ptr() for A in tensors}
    assert len(places) == len(tensors)
    with torch.no_grad():
        assert digits(networks.train(Ws, *data, activations, **options)) == expected
    run = networks.train(Ws, *data, activations, **options)
    next(run)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("eta", [50, lambda t: 50.0], ids=["number", "callable"])
def test_divergence_names_the_step_and_eta(Ws, runs, data, eta):
    message = r"^loss: wanted a finite number, got (inf|nan) at step t = \d+ with eta = 50; a small"
    # All runs diverge, or the last one alone: the first are so small that they stay at zero.
    tiny = networks.stack_runs([[1e-30 * W for W in Ws]] * 3 + [Ws])
    for start in (Ws, networks.stack_runs(runs), tiny):
        with pytest.raises(FloatingPointError, match=message):
            list(networks.train(start, *data, LINEAR, eta=eta, steps=1000))


def test_divergence_between_two_iterates_is_seen_at_the_next(Ws, data):
    run = networks.train(Ws, *data, LINEAR, eta=50, steps=1000, every=400)
    assert next(run).t == 0
    with pytest.raises(FloatingPointError, match="at step t = 400 with"):
        next(run)


# Activations


def normed_by_loops(Z, correction=0, factor=2):
    rows = []
    for row in Z.tolist():
        mean = sum(row) / len(row)
        spread = math.sqrt(sum((x - mean) ** 2 for x in row) / (len(row) - correction))
        rows.append([math.sqrt(factor / len(Z)) * max(0, (x - mean) / spread) for x in row])
    return torch.tensor(rows, **F64)


def test_batch_norm_relu_equals_the_slow_way(generator):
    Z = 3 * torch.randn(2, 5, 9, generator=generator, **F64) + 1
    for A, found in zip(Z, batch_norm_relu(Z), strict=True):
        assert (found - normed_by_loops(A)).abs().max() < 1e-9
        by_torch = torch.nn.functional.batch_norm(A.T, None, None, training=True, eps=1e-10).T
        assert (found - (2 / 5) ** 0.5 * torch.relu(by_torch)).abs().max() < 1e-13
        for wrong in (normed_by_loops(A, correction=1), normed_by_loops(A, factor=1)):
            assert (found - wrong).abs().max() > 1e-2
    assert torch.autograd.gradcheck(batch_norm_relu, Z.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1000.1, 1e8 / 3])
def test_a_feature_that_never_varies_stays_zero(generator, dtype, value):
    Z = torch.randn(2, 1000, generator=generator, dtype=dtype)
    Z[0] = value
    Z.requires_grad_()
    found = batch_norm_relu(Z)
    found.square().sum().backward()
    assert not found[0].any() and found[1].any()
    assert found.isfinite().all() and Z.grad.isfinite().all()


@pytest.mark.parametrize("d", [1, 30, 300])
def test_a_sample_has_length_one_on_average(generator, d):
    Z = 7 * torch.randn(d, 60_000 // d, generator=generator, **F64) - 2
    lengths = batch_norm_relu(Z).square().sum(0)
    assert lengths.mean().item() == pytest.approx(1, abs=0.03)


def test_fixed_statistics_are_those_of_the_samples_given(Ws, runs, data, generator):
    more = 5 * torch.randn(DIMS[0], 6, generator=generator, **F64) + 1
    for start in (Ws, networks.stack_runs(runs)):
        fixed = networks.fix_statistics(start, data[0], NORMED)
        assert [a is b for a, b in zip(fixed, NORMED, strict=True)] == [False, True, False, True]
        same = networks.forward(start, data[0], fixed), networks.forward(start, data[0], NORMED)
        assert all(map(torch.equal, *same))
        together, free = (networks.forward(start, more, given)[-1] for given in (fixed, NORMED))
        assert gap([together], [free]) > 1e-2  # other samples have other statistics
        for i in range(6):  # one sample alone, of which free statistics leave nothing
            alone = networks.forward(start, more[:, i : i + 1], fixed)[-1]
            assert gap([alone[..., 0]], [together[..., i]]) < 1e-12
            assert not networks.forward(start, more[:, i : i + 1], NORMED)[-1].any()
        again = networks.fix_statistics(start, more, fixed)
        assert all(a is b for a, b in zip(again, fixed, strict=True))


def test_stacked_runs_come_back_apart(runs):
    for l, W in enumerate(networks.stack_runs(runs)):
        assert W.shape == (5, DIMS[l + 1], DIMS[l])
        assert all(torch.equal(W[b], Ws[l]) for b, Ws in enumerate(runs))


# Device, dtype and refusals


def test_device_and_dtype_are_kept(place, runs, data):
    options = {"eta": 0.005, "beta": 0.5, "lam": 0.1, "batch": 5, "steps": 10}
    start = networks.stack_runs(runs)
    *_, exact = networks.train(start, *data, NORMED, generator=seeded(), **options)
    start, (X, Y) = [W.to(**place.kind) for W in start], (A.to(**place.kind) for A in data)
    *_, it = networks.train(start, X, Y, NORMED, generator=seeded(), **options)
    fixed = networks.fix_statistics(start, X, NORMED)
    for A in (*it.Ws, it.loss, *networks.forward(start, X, fixed)):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    found = [A.cpu().double() for A in (*it.Ws, it.loss)]
    assert gap(found, [*exact.Ws, exact.loss]) < 10 * place.tolerance


ONE, X2 = [torch.ones(3, 2), torch.ones(1, 3)], torch.ones(2, 4)
RUNS = [torch.ones(5, 3, 2), torch.ones(5, 1, 3)]
NAN3 = torch.full((3, 2), math.nan)


@pytest.mark.parametrize("function", ["forward", "fix_statistics", "train"])
@pytest.mark.parametrize(
    ("Ws", "X", "L", "error", "message"),
    [
        (ONE[0], X2, 2, TypeError, "Ws: wanted a sequence of tensors, got Tensor"),
        ([], X2, 0, ValueError, "Ws: wanted at least one matrix, got none"),
        ([ONE[0], [[1.0]]], X2, 2, TypeError, "Ws[1]: wanted a torch.Tensor, got list"),
        ([W.int() for W in ONE], X2, 2, TypeError, "Ws[0]: wanted a floating-point matrix, got"),
        ([NAN3, ONE[1]], X2, 2, ValueError, "Ws[0]: wanted finite entries, got NaN or infinity"),
        ([ONE[0][0]], X2, 1, ValueError, "Ws[0]: wanted a matrix, or one for each run as in Ws[0]"),
        ([RUNS[0], ONE[1]], X2, 2, ValueError, "Ws[1]: wanted a matrix, or one for each run as in"),
        ([RUNS[0], RUNS[1][:4]], X2, 2, ValueError, "Ws[1]: wanted a matrix, or one for each run"),
        (RUNS[::-1], X2, 2, ValueError, "Ws[1]: wanted 1 columns to follow Ws[0] of shape (1, 3)"),
        ([RUNS[0][:, :, :0]], X2, 1, ValueError, "Ws[0]: wanted a matrix with entries, got shape"),
        ([ONE[0].double(), ONE[1]], X2, 2, ValueError, "Ws[1]: wanted torch.float64 on cpu as Ws["),
        (ONE, X2, 1, ValueError, "activations: wanted one behind each of L = 2 layers, got 1"),
        (ONE, X2[0], 2, ValueError, "X: wanted a matrix, got shape (4,)"),
        (ONE, X2.double(), 2, ValueError, "X: wanted torch.float32 on cpu as Ws[0], got"),
        (ONE, X2 * math.nan, 2, ValueError, "X: wanted finite entries, got NaN or infinity"),
        (RUNS, X2.T, 2, ValueError, "X: wanted 2 rows, got shape (4, 2)"),
    ],
)
def test_a_network_that_does_not_fit_is_named(function, Ws, X, L, error, message):
    more = {"Y": torch.ones(1, 4), "eta": 0.1, "steps": 1} if function == "train" else {}
    with pytest.raises(error, match="^" + re.escape(message)):
        getattr(networks, function)(Ws, X, activations=[linear] * L, **more)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"Y": [[1.0]]}, TypeError, "Y: wanted a torch.Tensor, got list"),
        ({"Y": torch.ones(2, 4)}, ValueError, "Y: wanted shape (1, 4), got (2, 4)"),
        ({"Y": torch.ones(1, 4).double()}, ValueError, "Y: wanted torch.float32 on cpu as X, got"),
        ({"Y": torch.ones(1, 4) / 0}, ValueError, "Y: wanted finite entries, got NaN or infinity"),
        ({"eta": 0.0}, ValueError, "eta: wanted eta > 0, got 0.0"),
        ({"eta": "0.1"}, TypeError, "eta: wanted a real number, got '0.1'"),
        ({"alpha": 0}, ValueError, "alpha: wanted alpha > 0, got 0"),
        ({"lam": -1}, ValueError, "lam: wanted lam >= 0, got -1"),
        ({"beta": 1.0}, ValueError, "beta: wanted 0 <= beta < 1, got 1.0"),
        ({"beta": -0.1}, ValueError, "beta: wanted beta >= 0, got -0.1"),
        ({"steps": -1}, ValueError, "steps: wanted steps >= 0, got -1"),
        ({"steps": 1.0}, TypeError, "steps: wanted a whole number, got 1.0"),
        ({"every": 0}, ValueError, "every: wanted every >= 1, got 0"),
        ({"batch": 0}, ValueError, "batch: wanted batch >= 1, got 0"),
        ({"batch": 5}, ValueError, "batch: wanted at most N = 4 samples, got 5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_named_at_the_call(options, error, message):
    options = {"Y": torch.ones(1, 4), "eta": 0.1, "steps": 1} | options
    with pytest.raises(error, match="^" + re.escape(message)):
        networks.train(ONE, X2, activations=[linear] * 2, **options)  # no iterate is asked for


@pytest.mark.parametrize(
    ("runs", "error", "message"),
    [
        ([], ValueError, "runs: wanted at least one network, got none"),
        ([ONE[0]], TypeError, "runs[0]: wanted a sequence of matrices, got Tensor"),
        ([ONE, [NAN3, ONE[1]]], ValueError, "runs[1][0]: wanted finite entries, got NaN"),
        ([ONE, ONE[:1]], ValueError, "runs[1]: wanted L = 2 layers as runs[0], got 1"),
        ([ONE[:1], [X2]], ValueError, "runs[1][0]: wanted shape (3, 2), got (2, 4)"),
        (
            [ONE, [W.double() for W in ONE]],
            ValueError,
            "runs[1][0]: wanted torch.float32 on cpu as runs[0][0], got torch.float64 on cpu",
        ),
    ],
)
def test_runs_that_differ_are_named(runs, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        networks.stack_runs(runs)
