"""Targets of a known rank, whitening on the data's own span, labels, a photograph."""

import math
import re

import pytest
import torch
from columns import KINDS

from lop_utils import data, images

F64 = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def digits():
    return images.load_images("digits")


# Targets


@pytest.mark.parametrize("s", [[3.0, 1.0, 1e-3], [1.0] * 6])
def test_low_rank_target_has_the_spectrum_asked_for(s, generator):
    Phi = data.low_rank_target(6, 9, s, generator=generator)
    assert Phi.shape == (6, 9) and Phi.dtype == torch.float64
    expected = torch.tensor(s + [0.0] * (6 - len(s)), **F64)
    assert (torch.linalg.svdvals(Phi) - expected).abs().max() < 1e-14
    assert torch.equal(data.low_rank_target(6, 9, s, generator=0), Phi)


def test_low_rank_target_has_haar_singular_vectors(generator):
    # The mean of Phi is 0 and that of its squares 1 / (d_y d_x), entry by entry.
    draws = torch.stack(
        [data.low_rank_target(3, 4, [1.0], generator=generator) for _ in range(2000)]
    )
    assert draws.mean(0).abs().max() < 5 / math.sqrt(12 * 2000)
    assert (draws.square().mean(0) - 1 / 12).abs().max() < 5 * 0.1 / math.sqrt(2000)


# Whitening


def inputs(case, generator):
    X = torch.randn(8, 20, generator=generator, **F64)
    if case == "N<d":
        X = torch.randn(8, 5, generator=generator, **F64)
    elif case == "dark-pixels":
        X[[0, 3]] = 0
    elif case == "repeated-row":
        X[5] = 2 * X[1]
    elif case == "one-sample":
        X = X[:, :1]
    elif case == "badly-scaled":
        X = X * 10.0 ** torch.linspace(0, -9, 8, **F64)[:, None]
    elif case == "tiny":
        X = X * 1e-150
    return X


@pytest.mark.parametrize(
    ("case", "k", "zero_rows"),
    [
        ("random", 8, []),
        ("N<d", 5, []),
        ("dark-pixels", 6, [0, 3]),
        ("repeated-row", 7, []),
        ("one-sample", 1, []),
        ("badly-scaled", 8, []),
        ("tiny", 8, []),
    ],
)
def test_whitened_on_the_span_of_the_inputs(case, k, zero_rows, generator):
    X = inputs(case, generator)
    before, white = X.clone(), data.whiten(X)
    assert white.X.shape == (k, X.shape[1])
    assert (white.X @ white.X.T - torch.eye(k, **F64)).abs().max() < 1e-13
    assert white.dropped == X.shape[0] - k and white.zero_rows == zero_rows
    # The same row space as before, and the transform that leads there.
    assert (X - X @ white.X.T @ white.X).abs().max() < 1e-13 * X.abs().max()
    assert (white.transform @ X - white.X).abs().max() < 1e-15 * white.condition * 100
    s = torch.linalg.svdvals(X)
    assert white.condition == pytest.approx((s[0] / s[k - 1]).item(), rel=1e-6)
    white.X.zero_()
    assert torch.equal(X, before)


def test_fewer_directions_keep_the_strongest(generator):
    X = inputs("random", generator)
    white = data.whiten(X, rank=3)
    assert white.dropped == 5 and torch.equal(white.X, data.whiten(X).X[:3])


def test_digits_whiten_on_their_span(digits):
    white = data.whiten(digits.X)
    assert white.dropped == 3 and white.zero_rows == [0, 32, 39]
    assert (white.X @ white.X.T - torch.eye(61, **F64)).abs().max() < 1e-13
    assert repr(white) == "Whitened(61 x 1797, 3 of 64 dropped, condition 2.55e+03)"


def test_least_squares_on_whitened_data_is_least_squares_on_a_matrix(digits, generator):
    white, Y = data.whiten(digits.X), data.one_hot(digits.y, 10)
    gaps = []
    for _ in range(5):
        W = torch.randn(10, 61, generator=generator, **F64)
        by_data = (W @ white.X - Y).square().sum() / 2
        gaps.append(by_data - (W - Y @ white.X.T).square().sum() / 2)
    assert (torch.stack(gaps) - gaps[0]).abs().max() < 1e-10 * gaps[0]


# Labels


@pytest.mark.parametrize("kind", [*KINDS, "uint8"])
def test_labels_of_any_kind(kind):
    y = torch.tensor([2, 0, 2, 1, 1, 1])
    given = y.byte() if kind == "uint8" else KINDS[kind](y)
    Y = data.one_hot(given, 4, dtype=torch.float32)
    assert Y.dtype == torch.float32 and data.one_hot(y, 4).dtype == torch.float64
    assert Y.T.tolist() == [[float(k == label) for k in range(4)] for label in y.tolist()]
    assert y[data.balanced_subset(given, 1)].tolist() == [0, 1, 2]


def test_a_balanced_subset_has_n_of_each_class_in_their_order(digits, generator):
    found = data.balanced_subset(digits.y, 20, generator=generator)
    assert found.dtype == torch.int64 and len(found.unique()) == 200
    assert digits.y[found].tolist() == [k for k in range(10) for _ in range(20)]
    assert (found.diff() < 0).any()  # in random order within a class
    smallest = data.balanced_subset(digits.y, 174)
    assert set(smallest[digits.y[smallest] == 8].tolist()) == set(
        (digits.y == 8).nonzero().flatten().tolist()
    )
    with pytest.raises(ValueError, match=r"^n: wanted at least 175 of class 8, got 174$"):
        data.balanced_subset(digits.y, 175)


def test_every_member_is_as_likely_as_any_other(generator):
    y = [3, -1, 3, 3, -1, 3]
    draws = torch.stack([data.balanced_subset(y, 2, generator=generator) for _ in range(3000)])
    assert {tuple(pair) for pair in draws[:, :2].tolist()} == {(1, 4), (4, 1)}
    counts = draws[:, 2:].flatten().bincount(minlength=6)[[0, 2, 3, 5]]
    assert (counts / 3000 - 1 / 2).abs().max() < 5 * (1 / 4 / 3000) ** 0.5


def test_a_balanced_subset_follows_its_generator(digits):
    before = torch.get_rng_state()
    a, b = (
        data.balanced_subset(digits.y, 5, generator=1),
        data.balanced_subset(digits.y, 5, generator=torch.Generator().manual_seed(1)),
    )
    c = data.balanced_subset(digits.y, 5, generator=2)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())
    data.balanced_subset(digits.y, 5)
    assert not torch.equal(before, torch.get_rng_state())


# The photograph


def test_photograph():
    image_module = pytest.importorskip("PIL.Image")
    from sklearn.datasets import load_sample_image

    grey = data.load_photograph("china")
    assert grey.shape == (427, 640) and grey.dtype == torch.float64
    assert grey.min() >= 0 and 0.99 < grey.max() <= 1
    # Pillow's own grey values are rounded to 1/255; the mean of the colours is none of them.
    colours = load_sample_image("china.jpg")
    pillow = torch.tensor(list(image_module.fromarray(colours).convert("L").tobytes()), **F64)
    assert (grey.flatten() - pillow / 255).abs().max() <= 0.51 / 255
    assert (grey - torch.tensor(colours, **F64).mean(-1) / 255).abs().max() > 0.05
    # Rows run downwards: the sky is brighter than the ground.
    assert grey[:100].mean() > grey[-100:].mean() + 0.1


# Device, dtype and refusals


def test_device_and_dtype_are_kept(place, generator):
    Phi = data.low_rank_target(4, 5, torch.ones(2, **place.kind), generator=generator)
    white = data.whiten(torch.randn(4, 9, generator=generator, **F64).to(**place.kind))
    y = torch.tensor([0, 1, 1], device=place.kind["device"])
    Y = data.one_hot(y, 2, dtype=place.kind["dtype"])
    assert data.balanced_subset(y, 1).device.type == place.kind["device"]
    for A in (Phi, white.X, white.transform, Y):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    assert (white.X @ white.X.T - torch.eye(4, **place.kind)).abs().max() < place.tolerance


def test_shapes_move_on_the_meta_device():
    Phi = data.low_rank_target(4, 5, torch.ones(2, device="meta"))
    assert Phi.is_meta and Phi.shape == (4, 5) and Phi.dtype == torch.float32


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.low_rank_target(0, 3, [1.0]), ValueError, "d_y: wanted d_y >= 1, got 0"),
        (lambda: data.low_rank_target(3, 2.0, [1.0]), TypeError, "d_x: wanted a whole number, go"),
        (lambda: data.low_rank_target(3, 3, [1.0, 0.0]), ValueError, "singular_values: wanted pos"),
        (lambda: data.low_rank_target(3, 2, [1.0] * 3), ValueError, "singular_values: wanted at m"),
        (lambda: data.whiten(ONES, rank=2), ValueError, "X: wanted inputs of rank at least 2, got"),
        (lambda: data.whiten(1e-42 * ONES), ValueError, "X: wanted a transform that torch.float32"),
        (lambda: data.whiten(0 * ONES), ValueError, "X: wanted inputs of rank at least 1, got ze"),
        (lambda: data.whiten(ONES, rank=0), ValueError, "rank: wanted rank >= 1, got 0"),
        (lambda: data.whiten(ONES.int()), TypeError, "X: wanted float32 or float64, got torch.in"),
        (lambda: data.one_hot(ONES[0], 2), TypeError, "y: wanted whole numbers, got torch.float32"),
        (lambda: data.one_hot(["cat"], 2), TypeError, "y: wanted a tensor of numbers, got list"),
        (lambda: data.one_hot([[1]], 2), ValueError, "y: wanted a vector with entries, got shape"),
        (lambda: data.one_hot([0, 2], 2), ValueError, "y: wanted 0 to 1, got 0 to 2"),
        (lambda: data.one_hot([0], 0), ValueError, "K: wanted K >= 1, got 0"),
        (lambda: data.balanced_subset([0], 0), ValueError, "n: wanted n >= 1, got 0"),
        (lambda: data.balanced_subset(["a"], 1), TypeError, "y: wanted a tensor of numbers, got"),
        (lambda: data.balanced_subset([], 1), ValueError, "y: wanted a vector with entries, got"),
        (lambda: data.load_photograph("flower"), ValueError, "name: wanted one of china, got 'fl"),
    ],
)
def test_what_is_refused_is_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
