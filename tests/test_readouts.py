"""Collapse, probes and planes against explicit matrices, scikit-learn and wrong variants."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from columns import KINDS
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from lop_utils import init, readouts

F64 = {"dtype": torch.float64}


def sample(sizes, generator, d=6, lead=(), apart=2.0):
    """Draw classes of the given sizes in mixed order, off the origin."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    y = y[torch.randperm(len(y), generator=generator)]
    means, noise = (
        torch.randn(*lead, d, n, generator=generator, **F64) for n in (len(sizes), len(y))
    )
    return apart * means[..., y] + noise + 0.5, y


def frame(d, k, generator):
    """Draw k orthonormal columns."""
    return init.orthogonal((k, d), 1.0, generator=generator, **F64)[0]


# Neural collapse


def parts(Z, y):
    """Return the scatter of each class, its means and its centred means, class by class."""
    Z, y = Z.numpy(), y.numpy()
    each = [Z[:, y == k] for k in range(y.max() + 1)]
    means = np.stack([A.mean(1) for A in each], axis=1)
    scatter = [np.cov(A, bias=True).reshape(len(Z), len(Z)) for A in each]
    return scatter, means, means - means.mean(1, keepdims=True)


def from_simplex(G):
    K = len(G)
    return np.linalg.norm(G / np.linalg.norm(G) - (np.eye(K) - 1 / K) / math.sqrt(K - 1))


def by_matrices(Z, y, W):
    """Take the definitions at their word, with d x d matrices and numpy's pseudo-inverse."""
    scatter, _, M = parts(Z, y)
    K = len(scatter)
    within, between = sum(scatter) / K, M @ M.T / K
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K
    return nc1, from_simplex(M.T @ M), from_simplex(W.numpy() @ M)


CASES = {
    "balanced": (6, [5, 5, 5, 5]),
    "unbalanced": (6, [7, 1, 3, 12]),
    "two-classes": (6, [4, 9]),
    "d=K": (4, [5, 5, 5, 5]),
    "d<K-1": (2, [5, 3, 4, 5]),
    "d=1": (1, [5, 3, 4]),
    "d>N": (40, [2, 3, 4]),
}


@pytest.mark.parametrize(("d", "sizes"), CASES.values(), ids=CASES)
def test_collapse_equals_the_slow_way_layer_by_layer(d, sizes, generator):
    lead = (2, 3)
    Z, y = sample(sizes, generator, d=d, lead=lead)
    W = torch.randn(*lead, len(sizes), d, generator=generator, **F64)
    copies = Z.clone(), W.clone()
    found = readouts.neural_collapse(Z, y, W)
    for index in itertools.product(*map(range, lead)):
        for value, truth in zip(found, by_matrices(Z[index], y, W[index]), strict=True):
            assert value.shape == lead
            assert value[index].item() == pytest.approx(truth, rel=1e-9, abs=1e-13)
    assert torch.equal(Z, copies[0]) and torch.equal(W, copies[1])
    assert readouts.neural_collapse(Z, y).nc3 is None


@pytest.mark.parametrize("K", [2, 3, 5])
def test_collapsed_features_have_collapse_zero(K, generator):
    y = torch.arange(4 * K) % K
    Q = frame(9, K, generator)
    simplex = Q - Q.mean(1, keepdim=True)
    shift = torch.randn(9, 1, generator=generator, **F64)
    for means in (2 * Q, 0.3 * simplex, 5 * simplex + shift):
        found = readouts.neural_collapse(means[:, y], y, 3 * simplex.T)
        assert found.nc1.item() < 1e-25 and found.nc2.item() < 1e-13 and found.nc3.item() < 1e-13
    # The dual of other means, or of the same in another order, is not theirs.
    if K > 2:
        found = readouts.neural_collapse(Q[:, y], y, simplex.roll(1, 1).T)
        assert found.nc2.item() < 1e-13 and found.nc3.item() > 0.5


def test_three_means_on_a_line_in_closed_form(generator):
    # Means -1, 0, 1: the Gram matrix has norm and trace 2, so NC_2^2 = 2 - 2 tr/(2 sqrt 2).
    E, y = frame(5, 2, generator), torch.arange(6) % 3
    found = readouts.neural_collapse(E[:, :1] * torch.arange(3) + 1, torch.arange(3))
    assert found.nc2.item() == pytest.approx(math.sqrt(2 - math.sqrt(2)), rel=1e-13)
    # Samples at mean +- 0.1 along the line, +- 9 across: Sigma_W = 0.01 there, Sigma_B = 2/3, and
    # the pseudo-inverse is zero across, though K - 1 = 2.
    signs = torch.tensor([1, 1, 1, -1, -1, -1], **F64)
    noisy = E @ torch.stack([y + 0.1 * signs, 9 * signs])
    found = readouts.neural_collapse(noisy, y)
    assert found.nc1.item() == pytest.approx(0.01 / (2 / 3) / 3, rel=1e-12)


def test_collapse_does_not_depend_on_where_the_features_are(generator):
    Z, y = sample([7, 1, 3, 12], generator)
    R, shift = frame(6, 6, generator), torch.randn(6, 1, generator=generator, **F64)
    W = torch.randn(4, 6, generator=generator, **F64)
    expected = torch.stack(readouts.neural_collapse(Z, y, W))
    found = torch.stack(readouts.neural_collapse(1e5 * (R @ Z + shift), y, 7 * W @ R.T))
    assert (found / expected - 1).abs().max() < 1e-9


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e15, 1e30])
def test_no_scale_overflows(scale, generator):
    y = torch.arange(300) % 3
    Z = torch.randn(512, 300, generator=generator)
    W = torch.randn(3, 512, generator=generator)
    expected = readouts.neural_collapse(Z.double(), y, W.double())
    probe = readouts.linear_probe(Z.double(), y, ridge=1.0)
    assert readouts.linear_probe(scale * Z, y, ridge=1.0).accuracy(scale * Z, y) == 1
    assert (readouts.linear_probe(scale * Z, y, ridge=1.0).W * scale - probe.W).abs().max() < 1e-6
    for found in (
        readouts.neural_collapse(scale * Z, y, W),
        readouts.neural_collapse(Z, y, scale * W),
        readouts.neural_collapse((Z / 4).half(), y, (W / 4).half()),
    ):
        for value, truth in zip(found, expected, strict=True):
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(truth.item(), rel=1e-2)
    assert readouts.linear_probe(Z.half(), y, ridge=1.0).accuracy(Z.half(), y) == 1


def test_collapse_of_digits_is_seen_through_small_orthogonal_layers():
    digits = load_digits()
    X, y = torch.tensor(digits.data.T / 16).float(), digits.target
    expected = readouts.neural_collapse(X, y).nc2.item()
    assert expected == pytest.approx(0.6696, abs=1e-4)
    for W in init.orthogonal((64,) * 9, 0.01, generator=0, dtype=torch.float32):
        X = W @ X
        assert readouts.neural_collapse(X, y).nc2.item() == pytest.approx(expected, rel=1e-4)


def test_features_without_classes_have_not_collapsed(generator):
    # The pseudo-inverse of zero is zero; NC_1 = 0 would read as a perfect collapse.
    Z, y = sample([2, 2], generator, lead=(2,))
    Z[1] = torch.full((6, 4), 0.1)
    for value in readouts.neural_collapse(Z, y, torch.ones(2, 6, **F64)):
        assert value[0].isfinite() and value[1].isnan()


# Linear probes


SHAPES = {"d<N": 6, "d=N": 23, "d>N": 60, "d=1": 1}
each_shape = pytest.mark.parametrize("d", SHAPES.values(), ids=SHAPES)


@each_shape
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_a_probe_is_scikit_learn_s_ridge_layer_by_layer(d, ridge, generator):
    Z, y = sample([7, 1, 3, 12], generator, d=d, lead=(2, 3))
    copy, probe = Z.clone(), readouts.linear_probe(Z, y, ridge=ridge)
    assert probe.W.shape == (2, 3, 4, d) and probe.b.shape == (2, 3, 4, 1)
    predicted, accuracy = probe.predict(Z), probe.accuracy(Z, y)
    assert predicted.shape == (2, 3, 23) and predicted.dtype == torch.int64
    for index in itertools.product(range(2), range(3)):
        A = Z[index].T.numpy()
        # Ours has 1/N before the squares and s before the penalty; theirs has neither.
        other = Ridge(alpha=ridge * A.var(0).mean() * 23).fit(A, np.eye(4)[y])
        for ours, theirs in ((probe.W, other.coef_), (probe.b, other.intercept_[:, None])):
            assert np.abs(ours[index].numpy() - theirs).max() < 1e-9 * np.abs(theirs).max()
        assert np.array_equal(predicted[index], other.predict(A).argmax(1))
        assert accuracy[index] == (predicted[index] == y).double().mean()
    assert torch.equal(Z, copy)


def test_a_probe_predicts_the_largest_output_and_counts_what_is_right(generator):
    probe = readouts.Probe(torch.eye(3), torch.tensor([[0.0], [0.0], [0.5]]))
    Z = torch.tensor([[1.0, 0.0, 0.2], [-3.0, 1.0, 0.0], [0.0, 0.6, 0.1]])
    assert probe.predict(Z).tolist() == [0, 2, 2] and repr(probe) == "Probe(W 3 x 3)"
    assert probe.accuracy(Z, torch.tensor([0, 1, 2])).item() == 2 / 3
    Z, y = sample([30] * 4, generator, apart=20)
    assert readouts.linear_probe(Z, y, ridge=1e-3).accuracy(Z, y).item() == 1


@each_shape
def test_features_that_do_not_vary_give_the_shares_of_the_classes(d):
    y = torch.tensor([0] * 6 + [1] * 17)
    probe = readouts.linear_probe(torch.full((d, 23), 0.1, **F64), y, ridge=1e-3)
    assert not probe.W.any() and probe.b[:, 0].tolist() == pytest.approx(
        [6 / 23, 17 / 23], rel=1e-15
    )


# Principal components


@pytest.mark.parametrize(("d", "N", "k"), [(6, 20, 2), (20, 6, 3), (5, 5, 4), (3, 9, 3), (1, 4, 1)])
def test_principal_components_are_scikit_learn_s(d, N, k, generator):
    Z = torch.randn(2, 3, d, N, generator=generator, **F64) + 1
    copy = Z.clone()
    found = readouts.principal_components(Z, k)
    assert found.shape == (2, 3, k, N) and torch.equal(Z, copy)
    for index in itertools.product(range(2), range(3)):
        rows = PCA(k, svd_solver="full").fit_transform(Z[index].T.numpy()).T
        # Each axis so that its largest coordinate is positive.
        rows = np.stack([row if max(row) == max(abs(row)) else -row for row in rows])
        assert np.abs(found[index].numpy() - rows).max() < 1e-12


# Device, dtype and refusals


def test_device_and_dtype_are_kept(place, generator):
    Z, y = sample([7, 1, 3, 12], generator, lead=(2,))
    W = torch.randn(2, 4, 6, generator=generator, **F64)

    def everything(Z, y, W):
        probe = readouts.linear_probe(Z, y, ridge=0.1)
        collapse = readouts.neural_collapse(Z, y, W)
        return [*collapse, probe.W, probe.b, readouts.principal_components(Z)]

    given = everything(Z.to(**place.kind), y.to(place.kind["device"]), W.to(**place.kind))
    for A, B in zip(given, everything(Z, y, W), strict=True):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
        assert (A.cpu().double() - B).abs().max() < place.tolerance * B.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_tensor_is_made_one(kind, generator):
    (Z, y), of = sample([7, 1, 3, 12], generator), KINDS[kind]
    W = torch.randn(4, 6, generator=generator, **F64)
    expected, probe = readouts.neural_collapse(Z, y, W), readouts.linear_probe(Z, y, ridge=0.1)
    assert readouts.neural_collapse(of(Z), of(y), of(W)) == expected
    other = readouts.linear_probe(of(Z), of(y), ridge=0.1)
    assert torch.equal(other.W, probe.W)
    assert probe.accuracy(of(Z), of(y)) == probe.accuracy(Z, y)
    components = readouts.principal_components(of(Z))
    assert torch.equal(components, readouts.principal_components(Z))


Z3, Y3 = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1, 2])
PROBE = readouts.Probe(torch.ones(3, 2), torch.zeros(3, 1))
collapse, components = readouts.neural_collapse, readouts.principal_components


def fit(Z, y, ridge=1e-3):
    return readouts.linear_probe(Z, y, ridge=ridge)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (collapse, (Z3, 0 * Y3), ValueError, "y: wanted K >= 2 classes, got K = 1"),
        (collapse, (Z3, Y3, Z3), ValueError, "W: wanted shape (..., 3, 2), got (2, 3)"),
        (collapse, (Z3, Y3, Z3.T * math.nan), ValueError, "W: wanted finite entries, got NaN"),
        (collapse, (Z3, Y3, Z3.T.double()), ValueError, "W: wanted torch.float32 on cpu as Z, got"),
        (fit, (Z3, 0 * Y3), ValueError, "y: wanted K >= 2 classes, got K = 1"),
        (fit, (Z3, Y3, 1e-7), ValueError, "ridge: wanted ridge > 2.4e-07, d roundings of torch.f"),
        (fit, (Z3, Y3, 0.0), ValueError, "ridge: wanted ridge > 0, got 0.0"),
        (
            collapse,
            (Z3.expand(2, 2, 3), Y3, Z3.mT.expand(5, 3, 2)),
            ValueError,
            "W: wanted the lea",
        ),
        (PROBE.predict, (Z3.T,), ValueError, "Z: wanted d = 2 rows, got shape (3, 2)"),
        (PROBE.predict, (Z3.double(),), ValueError, "Z: wanted torch.float32 on cpu as W, got"),
        (PROBE.accuracy, (Z3, Y3[:, None]), ValueError, "y: wanted a vector with entries, got"),
        (PROBE.accuracy, (Z3, Y3[:1]), ValueError, "y: wanted N = 3 labels as Z has columns, go"),
        (PROBE.accuracy, (Z3, Y3 + 1), ValueError, "y: wanted 0 to 2, got 1 to 3"),
        (components, (Z3, 3), ValueError, "k: wanted at most min(d, N) = 2, got 3"),
    ],
)
def test_what_is_refused_is_named(function, arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        function(*arguments)
