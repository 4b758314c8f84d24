"""Targets of a known rank, whitening on the data's own span, labels, images, a photograph."""

import math
import re

import pytest
import torch

from lop_utils import datasets, descent, dln, losses

F64 = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def digits():
    return datasets.load_images("digits")


# Targets


def test_low_rank_target_has_the_spectrum_asked_for(generator):
    s = torch.tensor([3.0, 1.0, 1e-3], **F64)
    Phi = datasets.low_rank_target(6, 9, s, generator=generator)
    assert Phi.shape == (6, 9)
    expected = torch.cat([s, torch.zeros(3, **F64)])
    assert (torch.linalg.svdvals(Phi) - expected).abs().max() < 1e-14
    assert torch.linalg.matrix_rank(Phi) == 3


def test_low_rank_target_may_have_full_rank(generator):
    Phi = datasets.low_rank_target(3, 5, torch.ones(3, **F64), generator=generator)
    assert (Phi @ Phi.T - torch.eye(3, **F64)).abs().max() < 1e-14


def test_low_rank_target_has_haar_singular_vectors(generator):
    # The mean of Phi is 0 and that of its squares 1 / (d_y d_x), entry by entry.
    draws = torch.stack(
        [
            datasets.low_rank_target(3, 4, torch.ones(1, **F64), generator=generator)
            for _ in range(2000)
        ]
    )
    assert draws.mean(0).abs().max() < 5 / math.sqrt(12 * 2000)
    assert (draws.square().mean(0) - 1 / 12).abs().max() < 5 * 0.1 / math.sqrt(2000)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 3, torch.ones(1)), ValueError, "d_y: wanted d_y >= 1, got 0"),
        ((3, 2.0, torch.ones(1)), TypeError, "d_x: wanted a whole number, got 2.0"),
        ((3, 3, [1.0]), TypeError, "singular_values: wanted a torch.Tensor, got list"),
        ((3, 3, torch.ones(1).int()), TypeError, "singular_values: wanted a floating-point"),
        ((3, 3, torch.ones(0)), ValueError, "singular_values: wanted a matrix with entries"),
        (
            (3, 3, torch.ones(1, 1)),
            ValueError,
            "singular_values: wanted a vector of positive numbers, got tensor([[1.]])",
        ),
        (
            (3, 3, torch.tensor([1.0, 0.0])),
            ValueError,
            "singular_values: wanted a vector of positive numbers, got tensor([1., 0.])",
        ),
        ((3, 3, torch.tensor([math.nan])), ValueError, "singular_values: wanted finite entries"),
        (
            (3, 2, torch.ones(3)),
            ValueError,
            "singular_values: wanted at most min(d_y, d_x) = 2, got 3",
        ),
    ],
    ids=["d_y", "d_x", "list", "integers", "none", "matrix", "zero", "nan", "too-many"],
)
def test_low_rank_target_refuses(arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        datasets.low_rank_target(*arguments)


# Whitening


def inputs(case, generator):
    X = torch.randn(8, 20, generator=generator, **F64)
    if case == "N<d":
        X = torch.randn(8, 5, generator=generator, **F64)
    elif case == "dark-pixels":
        X[[0, 3]] = 0
    elif case == "repeated-row":
        X[5] = 2 * X[1]
    elif case == "constant-row":
        X[2] = 4.0
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
        ("constant-row", 8, []),
        ("one-sample", 1, []),
        ("badly-scaled", 8, []),
        ("tiny", 8, []),
    ],
)
def test_whitened_on_the_span_of_the_inputs(case, k, zero_rows, generator):
    X = inputs(case, generator)
    white = datasets.whiten(X)
    assert white.X.shape == (k, X.shape[1])
    assert (white.X @ white.X.T - torch.eye(k, **F64)).abs().max() < 1e-13
    assert white.dropped == X.shape[0] - k and white.zero_rows == zero_rows
    # The same row space as before, and the transform that leads there.
    assert (X - X @ white.X.T @ white.X).abs().max() < 1e-13 * X.abs().max()
    assert (white.transform @ X - white.X).abs().max() < 1e-15 * white.condition * 100
    s = torch.linalg.svdvals(X)
    assert white.condition == pytest.approx((s[0] / s[k - 1]).item(), rel=1e-6)


def test_fewer_directions_keep_the_strongest(generator):
    X = inputs("random", generator)
    white, all_of_it = datasets.whiten(X, rank=3), datasets.whiten(X)
    assert white.dropped == 5
    assert torch.equal(white.X, all_of_it.X[:3])
    assert (white.X @ white.X.T - torch.eye(3, **F64)).abs().max() < 1e-14


def test_white_inputs_stay_white(generator):
    X = dln.orthogonal_init((9, 4), 1.0, generator=generator)[0]
    white = datasets.whiten(X)
    assert white.condition == pytest.approx(1, abs=1e-14)
    assert (white.transform @ white.transform.T - torch.eye(4, **F64)).abs().max() < 1e-14


def test_whitening_leaves_its_inputs_alone(generator):
    X = inputs("random", generator)
    before = X.clone()
    datasets.whiten(X).X.zero_()
    assert torch.equal(X, before)


def test_digits_whiten_on_their_span(digits):
    white = datasets.whiten(digits.X)
    assert white.X.shape == (61, 1797)
    assert white.dropped == 3 and white.zero_rows == [0, 32, 39]
    assert (white.X @ white.X.T - torch.eye(61, **F64)).abs().max() < 1e-13
    with pytest.raises(ValueError, match=r"X: wanted inputs of rank at least 62, got .* rank 61; "):
        datasets.whiten(digits.X, rank=62)


@pytest.mark.parametrize(
    ("X", "rank", "error", "message"),
    [
        (
            torch.ones(4, 6),
            2,
            ValueError,
            "X: wanted inputs of rank at least 2, got shape (4, 6) of rank 1; leave rank out",
        ),
        (torch.zeros(2, 3), None, ValueError, "X: wanted inputs of rank at least 1, got zeros on"),
        (torch.ones(2, 3), 0, ValueError, "rank: wanted rank >= 1, got 0"),
        (torch.ones(2, 3), 1.0, TypeError, "rank: wanted a whole number, got 1.0"),
        (torch.ones(2, 3).int(), None, TypeError, "X: wanted a floating-point matrix, got torch."),
        (torch.full((2, 3), math.nan), None, ValueError, "X: wanted finite entries, got NaN or"),
        (torch.ones(3), None, ValueError, "X: wanted a matrix, got shape (3,)"),
    ],
    ids=["rank-deficient", "zeros", "rank-0", "fraction", "integers", "nan", "vector"],
)
def test_whiten_refuses(X, rank, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        datasets.whiten(X, rank=rank)


def test_descent_on_whitened_data_is_descent_on_a_matrix(digits):
    white, Y = datasets.whiten(digits.X), datasets.one_hot(digits.y, 10)
    Ws = dln.orthogonal_init((61, 61, 10), 0.3, generator=torch.Generator().manual_seed(0))

    def run(residual):
        return list(descent.gradient_descent(Ws, residual, eta=1e-3, lam=1e-3, steps=50))

    by_data, by_matrix = (
        run(losses.data_residual(white.X, Y)),
        run(losses.matrix_residual(Y @ white.X.T)),
    )
    gaps = [(a.loss - b.loss).item() for a, b in zip(by_data, by_matrix, strict=True)]
    for a, b in zip(by_data, by_matrix, strict=True):
        for W, other in zip(a.Ws, b.Ws, strict=True):
            assert (W - other).abs().max() < 1e-13
    assert max(gaps) - min(gaps) < 1e-10  # the losses, near 1e3, differ by one constant
    # Inputs whitened to X X^T = N I, as other texts do, would not do.
    wrong = run(losses.data_residual(white.X * 1797**0.5 / 30, Y))
    assert (wrong[-1].Ws[0] - by_matrix[-1].Ws[0]).abs().max() > 1e-3


# Labels and images


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int16], ids=str)
def test_one_hot_column_by_column(dtype):
    y = torch.tensor([2, 0, 2, 1], dtype=dtype)
    Y = datasets.one_hot(y, 4)
    assert Y.shape == (4, 4) and Y.dtype == torch.float64
    for n, label in enumerate(y.tolist()):
        assert Y[:, n].tolist() == [float(k == label) for k in range(4)]
    assert datasets.one_hot(y, 4, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("y", "K", "error", "message"),
    [
        ([0, 1], 2, TypeError, "y: wanted a tensor of integers, got <class 'list'>"),
        (torch.ones(2), 2, TypeError, "y: wanted a tensor of integers, got torch.float32"),
        (torch.ones(2).bool(), 2, TypeError, "y: wanted a tensor of integers, got torch.bool"),
        (torch.ones(2).cfloat(), 2, TypeError, "y: wanted a tensor of integers, got torch.complex"),
        (torch.ones(2, 1).int(), 2, ValueError, "y: wanted a vector of labels, got shape (2, 1)"),
        (torch.ones(0).int(), 2, ValueError, "y: wanted a vector of labels, got shape (0,)"),
        (torch.tensor([0, 2]), 2, ValueError, "y: wanted classes 0 to 1, got 0 to 2"),
        (torch.tensor([-1, 1]), 2, ValueError, "y: wanted classes 0 to 1, got -1 to 1"),
        (torch.tensor([0]), 0, ValueError, "K: wanted K >= 1, got 0"),
    ],
    ids=["list", "float", "bool", "complex", "matrix", "none", "high", "negative", "K"],
)
def test_one_hot_refuses(y, K, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        datasets.one_hot(y, K)


def test_digits(digits):
    assert digits.X.shape == (64, 1797) and digits.X.dtype == torch.float64
    assert digits.y.shape == (1797,) and digits.y.dtype == torch.int64
    assert digits.shape == (8, 8) and digits.train == 1797 and digits.name == "digits"
    assert (digits.X.min(), digits.X.max()) == (0, 1)
    assert digits.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # One column is one image, row by row: a zero has a dark centre.
    mean_of_zeros = digits.X[:, digits.y == 0].mean(1).reshape(digits.shape)
    assert mean_of_zeros[3:5, 3:5].max() < 0.2 < mean_of_zeros[3:5, 2].min()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8], ids=str)
def test_a_balanced_subset_has_n_of_each_class_in_their_order(dtype, digits, generator):
    found = datasets.balanced_subset(digits.y.to(dtype), 20, generator=generator)
    assert found.dtype == torch.int64 and found.shape == (200,)
    assert digits.y[found].tolist() == [k for k in range(10) for _ in range(20)]
    assert len(found.unique()) == 200
    assert (found.diff() < 0).any()  # in random order within a class


def test_every_member_is_as_likely_as_any_other(generator):
    y = torch.tensor([3, 0, 3, 3, 0, 3])
    draws = torch.stack([datasets.balanced_subset(y, 2, generator=generator) for _ in range(3000)])
    assert {tuple(pair) for pair in draws[:, :2].tolist()} == {(1, 4), (4, 1)}
    counts = draws[:, 2:].flatten().bincount(minlength=6)[[0, 2, 3, 5]]
    assert (counts / 3000 - 1 / 2).abs().max() < 5 * (1 / 4 / 3000) ** 0.5


def test_a_balanced_subset_follows_its_generator(digits):
    a, b, c = (
        datasets.balanced_subset(digits.y, 5, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    before = torch.get_rng_state()
    datasets.balanced_subset(digits.y, 5, generator=torch.Generator())
    assert torch.equal(before, torch.get_rng_state())
    datasets.balanced_subset(digits.y, 5)
    assert not torch.equal(before, torch.get_rng_state())


def test_all_of_the_smallest_class(digits):
    found = datasets.balanced_subset(digits.y, 174)
    assert sorted(found[digits.y[found] == 8].tolist()) == (digits.y == 8).nonzero()[:, 0].tolist()
    with pytest.raises(ValueError, match=r"^n: wanted at least 175 of class 8, got 174$"):
        datasets.balanced_subset(digits.y, 175)


@pytest.mark.parametrize(
    ("y", "n", "error", "message"),
    [
        (torch.tensor([0, 1]), 0, ValueError, "n: wanted n >= 1, got 0"),
        (torch.tensor([0, 1]), 1.0, TypeError, "n: wanted a whole number, got 1.0"),
        (torch.ones(2), 1, TypeError, "y: wanted a tensor of integers, got torch.float32"),
        ([0, 1], 1, TypeError, "y: wanted a tensor of integers, got <class 'list'>"),
        (torch.ones(0).int(), 1, ValueError, "y: wanted a vector of labels, got shape (0,)"),
    ],
    ids=["n", "fraction", "float", "list", "none"],
)
def test_balanced_subset_refuses(y, n, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        datasets.balanced_subset(y, n)


def test_photograph():
    image_module = pytest.importorskip("PIL.Image")
    from sklearn.datasets import load_sample_image

    grey = datasets.load_photograph("china")
    assert grey.shape == (427, 640) and grey.dtype == torch.float64
    assert grey.min() >= 0 and 0.99 < grey.max() <= 1
    # Pillow's own grey values are rounded to 1/255; the mean of the colours is none of them.
    colours = load_sample_image("china.jpg")
    pillow = torch.tensor(list(image_module.fromarray(colours).convert("L").tobytes()), **F64)
    assert (grey.flatten() - pillow / 255).abs().max() <= 0.51 / 255
    plain_mean = torch.tensor(colours, **F64).mean(-1) / 255
    assert (grey - plain_mean).abs().max() > 0.05
    # Rows run downwards: the sky is brighter than the ground.
    assert grey[:100].mean() > grey[-100:].mean() + 0.1


def test_an_unknown_photograph():
    with pytest.raises(ValueError, match=r"^name: wanted 'china', got 'flower'$"):
        datasets.load_photograph("flower")


# Device and dtype


def test_device_and_dtype_are_kept(place, generator):
    Phi = datasets.low_rank_target(4, 5, torch.ones(2, **place.kind), generator=generator)
    white = datasets.whiten(torch.randn(4, 9, generator=generator, **F64).to(**place.kind))
    Y = datasets.one_hot(
        torch.tensor([0, 1], device=place.kind["device"]), 2, dtype=place.kind["dtype"]
    )
    y = torch.tensor([0, 1, 1], device=place.kind["device"])
    assert datasets.balanced_subset(y, 1).device.type == place.kind["device"]
    for A in (Phi, white.X, white.transform, Y):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    eye = torch.eye(4, **place.kind)
    assert (white.X @ white.X.T - eye).abs().max() < place.tolerance


def test_shapes_move_on_the_meta_device():
    Phi = datasets.low_rank_target(4, 5, torch.ones(2, device="meta"))
    assert Phi.is_meta and Phi.shape == (4, 5) and Phi.dtype == torch.float32
