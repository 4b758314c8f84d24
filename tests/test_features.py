"""Scatter and separation of classes against d x d matrices and closed forms."""

import itertools
import math
import re

import numpy as np
import pytest
import scipy.stats
import torch
from columns import KINDS
from scipy.spatial.distance import pdist

from lop_utils import features, init

F64 = {"dtype": torch.float64}
METRICS = {
    "within": lambda Z, y: features.scatter(Z, y).within,
    "between": lambda Z, y: features.scatter(Z, y).between,
    "C": features.compression_metric,
    "D": features.discrimination_metric,
    "S": features.centred_separation,
}
each_metric = pytest.mark.parametrize("name", METRICS)


def sample(sizes, generator, d=6, lead=()):
    """Draw classes of the given sizes in mixed order, off the origin."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    y = y[torch.randperm(len(y), generator=generator)]
    means, noise = (
        torch.randn(*lead, d, n, generator=generator, **F64) for n in (len(sizes), len(y))
    )
    return 2 * means[..., y] + noise + 0.5, y


def turn(d, generator):
    return init.orthogonal((d, d), 1.0, generator=generator, **F64)[0]


# The oracle


def means_of(Z, y):
    return np.stack([Z.numpy()[:, y.numpy() == k].mean(1) for k in range(y.max() + 1)], axis=1)


def by_matrices(Z, y):
    """Return all metrics from d x d matrices and from pairs of means."""
    means = means_of(Z, y)
    within = np.trace(np.cov(Z.numpy() - means[:, y], bias=True))
    between = np.trace(np.cov(means[:, y], bias=True))
    centred = 1 - pdist((means - means.mean(1, keepdims=True)).T, "cosine")
    return {
        "within": within,
        "between": between,
        "C": within / between,
        "D": pdist(means.T, "cosine").min(),
        "S": 1 - abs(centred).max(),
    }


SIZES = {"unbalanced": [7, 1, 3, 12], "balanced": [5, 5, 5, 5], "two": [2, 9], "one-each": [1] * 4}


@each_metric
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_metrics_equal_the_slow_way_layer_by_layer(name, sizes, generator):
    Z, y = sample(sizes, generator, lead=(2, 3))
    copies = Z.clone(), y.clone()
    found = METRICS[name](Z, y)
    assert found.shape == (2, 3) and found.dtype == Z.dtype
    for index in itertools.product(range(2), range(3)):
        # One layer of a stack is what that layer gives alone, and what matrices give.
        for value in (found[index], METRICS[name](Z[index], y)):
            assert value.item() == pytest.approx(
                by_matrices(Z[index], y)[name], rel=1e-12, abs=1e-14
            )
        means = features.class_means(Z, y)[index].numpy()
        assert np.abs(means - means_of(Z[index], y)).max() < 1e-14
    assert torch.equal(Z, copies[0]) and torch.equal(y, copies[1])


def test_layers_of_any_width_share_their_input_over_runs(generator):
    (X, y), C = sample([7, 1, 3, 12], generator), features.compression_metric
    layers = [X, *(torch.randn(2, d, 23, generator=generator, **F64) for d in (5, 9))]
    found = features.layerwise(C, layers, y)
    assert found.shape == (2, 3)
    one = features.layerwise(C, [Z[0] for Z in layers[1:]], y)
    assert one.tolist() == pytest.approx(found[0, 1:].tolist(), rel=1e-12)
    for b in range(2):
        assert found[b].tolist() == pytest.approx(
            [by_matrices(Z, y)["C"] for Z in (X, layers[1][b], layers[2][b])], rel=1e-12
        )
    with pytest.raises(ValueError, match=r"^outputs: wanted at least one layer, got none"):
        features.layerwise(C, [], y)


# What the definitions imply


def test_what_a_metric_is_blind_to(generator):
    Z, y = sample(SIZES["unbalanced"], generator)
    R, shift = turn(6, generator), 3 * torch.randn(6, 1, generator=generator, **F64)
    order, names = (torch.randperm(n, generator=generator) for n in (len(y), 4))
    changed = {
        "rotation": (R @ Z, y, {"within", "between", "C", "D", "S"}),
        "shift": (Z + shift, y, {"within", "between", "C", "S"}),
        "scale": (1e6 * Z, y, {"C", "D", "S"}),
        "reflection": (-Z, y, {"within", "between", "C", "D", "S"}),
        "order": (Z[:, order], y[order], {"within", "between", "C", "D", "S"}),
        "names": (Z, names[y], {"within", "between", "C", "D", "S"}),
        "twice": (torch.cat([Z, Z], 1), torch.cat([y, y]), {"within", "between", "C", "D", "S"}),
    }
    for what, (other, labels, blind) in changed.items():
        for name, metric in METRICS.items():
            ratio = metric(other, labels).item() / metric(Z, y).item()
            assert (abs(ratio - 1) < 1e-11) == (name in blind), (what, name, ratio)
            assert name in blind or abs(ratio - 1) > 1e-2, (what, name, ratio)


@pytest.mark.parametrize("name", ["C", "D", "S"])
@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1e15, 1e19, 1e38])
def test_no_scale_overflows(name, scale, generator):
    y = torch.arange(300) % 3
    Z = torch.rand(512, 300, generator=generator)
    Z[0] += y
    stack = torch.stack([Z, scale * Z / Z.max()])
    rel = 1e-1 if scale < 1e-38 else 1e-4  # subnormal numbers have few digits
    one, other = METRICS[name](stack, y).tolist()
    assert other == pytest.approx(one, rel=rel)
    assert one == pytest.approx(METRICS[name](Z.double(), y).item(), rel=1e-4)
    apart = torch.tensor([[1.0, 1e-25], [0.0, 1e-25]])  # means of very different lengths
    assert features.discrimination_metric(apart, [0, 1]).item() == pytest.approx(0.2929, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_accumulated_in_single(dtype, generator):
    y = torch.arange(300) % 3
    Z = torch.randn(512, 300, generator=generator).to(dtype)
    for name, metric in METRICS.items():
        found = metric(Z, y)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(metric(Z.double(), y).item(), rel=1e-4), name


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("K", [2, 3, 7])
def test_orthonormal_inputs_start_at_a_known_compression(K, n, generator):
    # ||z||^2 = 1 and ||mu_k||^2 = 1/n: within 1 - 1/n, between 1/n - 1/N.
    Z, y = turn(n * K, generator), torch.arange(n * K) % K
    found = features.compression_metric(Z, y).item()
    assert found == pytest.approx((n - 1) * K / (K - 1), rel=1e-12, abs=1e-12)
    assert features.discrimination_metric(Z, y).item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("K", [2, 3, 6])
def test_separations_stay_in_their_range_and_reach_both_ends(K, generator):
    y, rest = torch.arange(K), 1 / (K - 1)
    for d in (1, 2, 8):
        Z = torch.randn(500, d, K, generator=generator, **F64)
        D, S = features.discrimination_metric(Z, y), features.centred_separation(Z, y)
        assert (D > -1e-12).all() and (D < 1 + rest + 1e-12).all()
        assert (S > -1e-12).all() and (S < 1 - rest + 1e-12).all()
    Q = turn(8, generator)[:, :K]
    for Z in (3 * Q, 3 * Q + 1):  # the shift goes
        assert features.centred_separation(Z, y).item() == pytest.approx(1 - rest, abs=1e-12)
    simplex = Q - Q.mean(1, keepdim=True)
    assert features.discrimination_metric(simplex, y).item() == pytest.approx(1 + rest, rel=1e-12)
    aligned = torch.cat([Q, 7 * Q[:, :1]], 1)
    assert abs(features.discrimination_metric(aligned, torch.arange(K + 1)).item()) < 1e-12


def test_compression_at_its_ends():
    def C(*numbers):
        return features.compression_metric([numbers], [0, 0, 1, 1]).item()

    assert C(1.0, 1, 5, 5) == 0  # collapsed
    assert C(0, 2, 2, 0) == math.inf  # all class means coincide
    assert math.isnan(C(3, 3, 3, 3)) and math.isnan(C(0, 0, 0, 0))  # and all samples do


def test_no_matrix_of_d_by_d_is_formed(generator):
    Z = torch.randn(200_000, 4, generator=generator)  # it would take 160 GB
    y = torch.tensor([0, 1, 0, 1])
    assert all(math.isfinite(metric(Z, y).item()) for metric in METRICS.values())


# The decay over layers


def test_a_geometric_fit_is_a_line_through_logarithms(generator):
    exact = features.geometric_fit([[3 * 0.4**l for l in range(6)], [2**l for l in range(6)]])
    assert exact.ratio.tolist() == pytest.approx([0.4, 2.0], rel=1e-13)
    assert exact.r2.tolist() == pytest.approx([1, 1], rel=1e-13)
    values = torch.randn(2, 3, 7, generator=generator, **F64).exp()
    found = features.geometric_fit(values)
    for index in itertools.product(range(2), range(3)):
        line = scipy.stats.linregress(range(7), np.log(values[index].numpy()))
        assert found.ratio[index].item() == pytest.approx(math.exp(line.slope), rel=1e-12)
        assert found.r2[index].item() == pytest.approx(line.rvalue**2, rel=1e-11)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(4, 2), "values: wanted at least three numbers, got shape (4, 2)"),
        (torch.tensor(1.0), "values: wanted shape (..., n) with entries, got ()"),
        (torch.arange(3.0), "values: wanted positive numbers, got 0.0"),
        (torch.ones(3) / 0, "values: wanted finite entries, got NaN or infinity"),
    ],
)
def test_what_has_no_decay_is_refused(values, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        features.geometric_fit(values)


def test_features_that_do_not_vary_are_seen_to_be_so():
    Z, y = torch.full((2, 7), 0.1, **F64), torch.arange(7) % 3  # no mean of 0.1 is 0.1 exactly
    assert features.scatter(Z, y) == (0, 0) and features.compression_metric(Z, y).isnan()
    ratio, r2 = features.geometric_fit([0.1] * 5)
    assert ratio.item() == pytest.approx(1, rel=1e-15) and r2 == 1


def test_a_constant_feature_does_not_hide_small_ones():
    Z, y = torch.tensor([[1.0] * 4, [0.0, 2e-30, 9e-30, 9e-30]]), [0, 0, 1, 1]
    assert features.compression_metric(Z, y).item() == pytest.approx(0.03125, rel=1e-5)


# Kinds, device, dtype and refusals


@pytest.mark.parametrize("kind", KINDS)
@each_metric
def test_what_is_no_tensor_is_made_one(name, kind, generator):
    Z, y = sample(SIZES["unbalanced"], generator)
    expected = METRICS[name](Z, y)
    assert torch.equal(METRICS[name](KINDS[kind](Z), KINDS[kind](y)), expected)
    assert torch.equal(METRICS[name](Z, y.to(torch.uint8)), expected)


@each_metric
def test_device_and_dtype_are_kept(place, name, generator):
    Z, y = sample(SIZES["unbalanced"], generator, lead=(2,))
    found = METRICS[name](Z.to(**place.kind), y.to(place.kind["device"]))
    assert found.dtype == place.kind["dtype"] and found.device.type == place.kind["device"]
    expected = METRICS[name](Z, y)
    assert ((found.cpu().double() - expected) / expected).abs().max() < place.tolerance


Z3, Y3 = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("Z", "y", "error", "message"),
    [
        (Z3[0], Y3, ValueError, "Z: wanted shape (..., d, N) with entries, got (3,)"),
        (Z3 * math.nan, Y3, ValueError, "Z: wanted finite entries, got NaN or infinity"),
        (Z3, Y3[:, None], ValueError, "y: wanted N = 3 labels as Z has columns, got (3, 1)"),
        (Z3, ["cat", "dog", "cat"], TypeError, "y: wanted a tensor of numbers, got list"),
    ],
)
@pytest.mark.parametrize("function", [*METRICS.values(), features.class_means])
def test_what_is_refused_is_named(function, Z, y, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        function(Z, y)


def test_squares_that_the_dtype_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"^Z: wanted features whose squares .* torch.float32"):
        features.scatter(1e30 * Z3, Y3)


def test_what_cannot_be_compared():
    for name in ("C", "D", "S"):
        with pytest.raises(ValueError, match=r"^y: wanted K >= 2 classes, got K = 1"):
            METRICS[name](Z3, 0 * Y3)
    message = "^Z: wanted class means other than zero, got a zero mean"
    with pytest.raises(ValueError, match=message):
        features.discrimination_metric(Z3 * (Y3 > 0), Y3)
    with pytest.raises(ValueError, match=message):  # zero but for rounding
        features.discrimination_metric([[0.1, 0.2, -0.3, 1.0]], [0, 0, 0, 1])
    for Z in (Z3[:1], [[0.1, 0.2, 0.3]]):  # the middle is the centre
        with pytest.raises(ValueError, match=message):
            features.centred_separation(Z, Y3)
