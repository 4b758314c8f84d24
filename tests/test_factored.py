"""Losses on observed entries: every form against the obvious one, at every odd shape."""

import re
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lop_utils import factored, init, losses, observed
from lop_utils.factored import of_factors
from lop_utils.losses import ValueAndGradients
from lop_utils.observed import ObservedEntries

F64 = {"dtype": torch.float64}
HAS_MKL = torch.backends.mkl.is_available()
FORMS = {
    "dense": factored.dense_loss,
    "tiled": factored.tiled_loss,
    "sampled": factored.sampled_loss,
    "gathered-csr": lambda seen: factored.gathered_loss(seen, mkl=True),
    "gathered-bag": lambda seen: factored.gathered_loss(seen, mkl=False),
}
NEEDS_MKL = pytest.mark.skipif(not HAS_MKL, reason="this torch multiplies no CSR matrices")


@pytest.fixture(
    params=[
        pytest.param(name, marks=NEEDS_MKL) if name in ("sampled", "gathered-csr") else name
        for name in FORMS
    ]
)
def form(request):
    return FORMS[request.param]


def sample(Omega, generator, kind=F64):
    """Draw values at the places of a mask."""
    rows, cols = Omega.nonzero().T
    values = torch.randn(len(rows), generator=generator, **F64)
    return ObservedEntries(rows, cols, values.to(**kind), tuple(Omega.shape))


def mask(d_y, d_x, share, generator):
    Omega = torch.rand(d_y, d_x, generator=generator) < share
    Omega[d_y // 2, d_x // 2] = True  # at least one
    return Omega


def layers(dims, generator, kind=F64):
    return [torch.randn(b, a, generator=generator, **F64).to(**kind) for a, b in pairwise(dims)]


def network(d_y, d_x, k, L, generator, kind=F64):
    return layers((d_x, *[k] * (L - 1), d_y), generator, kind)


def slowly(seen, Ws):
    """Return value and gradients by autograd, from the whole product and a loop."""
    leaves = [W.detach().double().clone().requires_grad_() for W in Ws]
    W = leaves[0]
    for layer in leaves[1:]:
        W = layer @ W
    wanted = zip(seen.rows.tolist(), seen.cols.tolist(), seen.values.tolist(), strict=True)
    loss = 0.5 * torch.stack([(W[i, j] - value) ** 2 for i, j, value in wanted]).sum()
    return ValueAndGradients(loss.detach(), list(torch.autograd.grad(loss, leaves)))


def assert_agrees(found, expected, tolerance=1e-12):
    assert abs(found.value.item() / expected.value.item() - 1) < tolerance
    for G, E in zip(found.grads, expected.grads, strict=True):
        assert G.shape == E.shape
        assert (G.double() - E).abs().max() <= tolerance * E.abs().max()


# Every form is the obvious one


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (1, 9), (9, 1), (30, 3)], ids=str)
def test_gradients_are_those_of_the_whole_matrix(form, shape, k, generator):
    for share in (0.05, 0.4, 1.1):
        seen = sample(mask(*shape, share, generator), generator)
        for L in (2, 3, 5):
            Ws = network(*shape, k, L, generator)
            assert_agrees(of_factors(form(seen))(Ws), slowly(seen, Ws))


MASKS = {
    "no-entry-in-some-rows": lambda Omega: Omega.index_fill_(0, torch.tensor([0, 4, 8]), False),
    "no-entry-in-some-columns": lambda Omega: Omega.index_fill_(1, torch.tensor([0, 3, 5]), False),
    "one-row": lambda Omega: torch.zeros_like(Omega).index_fill_(0, torch.tensor([4]), True),
    "one-column": lambda Omega: torch.zeros_like(Omega).index_fill_(1, torch.tensor([5]), True),
    "first-entry-only": lambda Omega: torch.arange(54).view(9, 6) == 0,
    "last-entry-only": lambda Omega: torch.arange(54).view(9, 6) == 53,
}


@pytest.mark.parametrize("cut", MASKS.values(), ids=MASKS)
def test_odd_samples(form, cut, generator):
    seen = sample(cut(mask(9, 6, 0.6, generator)), generator)
    Ws = network(9, 6, 3, 2, generator)
    found = form(seen)(Ws)
    assert_agrees(found, slowly(seen, Ws))
    # Exactly zero: these rows and columns stay where they start.
    assert not found.grads[1][torch.bincount(seen.rows, minlength=9) == 0].any()
    assert not found.grads[0][:, torch.bincount(seen.cols, minlength=6) == 0].any()


def test_tiles_and_chunks_of_any_height(generator, monkeypatch):
    for size in (1, 11, 12, 30, 59, 60, 61):
        monkeypatch.setattr(factored, "_TILE", size)
        monkeypatch.setattr(observed, "_CHUNK", size)
        for rows in (slice(None), slice(0, 7), slice(13, 20)):  # tiles without any entry, too
            Omega = torch.zeros(20, 12, dtype=torch.bool)
            Omega[rows] = mask(20, 12, 0.3, generator)[rows]
            seen, Ws = sample(Omega, generator), network(20, 12, 3, 2, generator)
            for name in ("dense", "tiled", "gathered-bag"):
                assert_agrees(FORMS[name](seen)(Ws), slowly(seen, Ws))


def test_any_factors_at_any_time(form, generator):
    """Other widths, other strides, and what came back stays; nothing given changes."""
    seen, results = sample(mask(12, 7, 0.4, generator), generator), []
    loss, values = form(seen), seen.values.clone()
    for k in (3, 5, 3, 1):
        Q, P = network(12, 7, k, 2, generator)
        wide = torch.randn(3 * k, 21, generator=generator, **F64)[::3, 2::3]
        for Ws in ([Q, P], [Q.T.contiguous().T, P.T.contiguous().T], [wide, P]):
            kept = [W.clone() for W in Ws]
            found = loss(Ws)
            assert_agrees(found, slowly(seen, Ws))
            results.append((found.value, found.value.clone()))
            results += [(G, G.clone()) for G in found.grads] + list(zip(Ws, kept, strict=True))
    assert all(torch.equal(A, B) for A, B in [*results, (seen.values, values)])


@pytest.mark.parametrize("name", FORMS)
def test_each_device_and_dtype(name, place, generator):
    if place.kind["device"] == "cpu" and not HAS_MKL and name in ("sampled", "gathered-csr"):
        pytest.skip("this torch multiplies no CSR matrices")
    seen = sample(mask(40, 25, 0.3, generator), generator, place.kind)
    Ws = network(40, 25, 5, 3, generator, place.kind)
    found = of_factors(FORMS[name](seen))(Ws)
    for G in (found.value, *found.grads):
        assert G.dtype == place.kind["dtype"] and G.device.type == place.kind["device"]
    expected = slowly(seen, [W.cpu() for W in Ws])
    on_cpu = ValueAndGradients(found.value.cpu(), [G.cpu() for G in found.grads])
    assert_agrees(on_cpu, expected, place.tolerance)


WRONG = {
    "sign": lambda seen, found: (found.value, [-found.grads[0], found.grads[1]]),
    "doubled": lambda seen, found: (2 * found.value, found.grads),
    "exchanged": lambda seen, found: (found.value, [found.grads[1].T, found.grads[0].T]),
    "an-entry-less": lambda seen, found: factored.gathered_loss(
        seen.select(torch.arange(1, len(seen))), mkl=False
    ),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_a_wrong_loss_is_seen(spoil, generator):
    seen, Ws = sample(mask(9, 9, 0.4, generator), generator), network(9, 9, 3, 2, generator)
    found = factored.dense_loss(seen)(Ws)
    wrong = spoil(seen, found)
    wrong = wrong(Ws) if callable(wrong) else ValueAndGradients(*wrong)
    with pytest.raises(AssertionError):
        assert_agrees(wrong, slowly(seen, Ws), 1e-6)


def test_inner_layers_need_not_be_square(generator):
    seen = sample(mask(12, 7, 0.4, generator), generator)
    Ws = layers((7, 3, 5, 2, 4, 12), generator)
    assert_agrees(of_factors(factored.dense_loss(seen))(Ws), slowly(seen, Ws))


ONE = ObservedEntries([0], [2], torch.tensor([3.0]), (2, 3))
BAD_FACTORS = [
    ([(1, 3)], "Ws: wanted two factors [Q, P], got 1; see of_factors"),
    ([(1, 3), (3, 1)], "P: wanted shape (2, 1), got (3, 1)"),
    ([(1, 3), (2, 2)], "Q: wanted shape (2, 3), got (1, 3)"),
    ([(1, 4), (2, 1)], "Q: wanted shape (1, 3), got (1, 4)"),
]


def test_layers_are_refused():
    with pytest.raises(ValueError, match=r"^Ws\[1\]: wanted 1 columns to follow Ws\[0\]"):
        of_factors(factored.dense_loss(ONE))([torch.ones(1, 3), torch.ones(2, 2), torch.ones(2, 2)])
    for Ws, message in (([torch.ones(2, 3)], "L >= 2 layers, got 1"), ([], "at least one matrix")):
        with pytest.raises(ValueError, match=f"^Ws: wanted {message}"):
            of_factors(factored.dense_loss(ONE))(Ws)


def test_factors_that_do_not_fit_are_refused(form):
    for shapes, message in BAD_FACTORS:
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            form(ONE)([torch.ones(shape) for shape in shapes])
    for Q, P, name in ((F64, {}, "Q"), ({}, F64, "P")):
        with pytest.raises(ValueError, match=f"^{name}: wanted torch.float32 on cpu as values, "):
            form(ONE)([torch.ones(1, 3, **Q), torch.ones(2, 1, **P)])


# What is never formed


class Largest(TorchDispatchMode):
    """Watch the results of all operations, and remember the most numbers that any had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for A in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(A, torch.Tensor) and A.layout == torch.strided:
                self.numbers = max(self.numbers, A.numel())
        return result


def test_nothing_of_the_size_of_the_matrix_exists(form, generator, monkeypatch):
    monkeypatch.setattr(factored, "_TILE", 1000)
    Omega = torch.zeros(300 * 200, dtype=torch.bool)
    Omega[torch.randperm(300 * 200, generator=generator)[:700]] = True
    seen, Ws = sample(Omega.view(300, 200), generator), network(300, 200, 3, 3, generator)
    loss = of_factors(form(seen))
    with Largest() as largest:
        loss(Ws)
    assert largest.numbers <= max(1000, 700 * 3)
    with Largest() as largest:
        losses.masked(Omega.view(300, 200), torch.zeros(300, 200, **F64))(Ws)
    assert largest.numbers == 300 * 200  # it would have been seen


# One dense matrix of this shape would take 8000 GB.
@pytest.mark.parametrize("make", [*list(FORMS)[2:], "fastest"])
def test_a_matrix_that_no_machine_could_hold(make, generator):
    if not HAS_MKL and make in ("gathered-csr", "sampled"):
        pytest.skip("this torch multiplies no CSR matrices")
    d, k = 10**6, 2
    rows, cols = torch.randint(d, (2, 300), generator=generator)
    seen = ObservedEntries(rows, cols, torch.randn(300, generator=generator, **F64), (d, d))
    Q, P = network(d, d, k, 2, generator)
    loss = factored.fastest_loss(seen, k) if make == "fastest" else FORMS[make](seen)
    value, (PtR, RQt) = loss([Q, P])
    # The same sample with the rows and columns left out in which nothing was observed.
    (rows, i), (cols, j) = (torch.unique(A, return_inverse=True) for A in (seen.rows, seen.cols))
    small = ObservedEntries(i, j, seen.values, (len(rows), len(cols)))
    expected = slowly(small, [Q[:, cols], P[rows]])
    assert_agrees(ValueAndGradients(value, [PtR[:, cols], RQt[rows]]), expected)
    assert (RQt != 0).any(1).sum() == len(rows) and (PtR != 0).any(0).sum() == len(cols)


# Which form is taken


@pytest.mark.parametrize(
    ("n", "k", "dtype", "expected"),
    [
        (121, 100, torch.float64, "dense"),
        (120, 2, torch.float64, "tiled"),  # three tenths are not above three tenths
        (41, 100, torch.float64, "tiled"),
        (40, 8, torch.float64, "sampled"),
        (40, 7, torch.float64, "gathered"),
        (121, 100, torch.float32, "dense"),
        (25, 100, torch.float32, "tiled"),
        (24, 14, torch.float32, "sampled"),
        (24, 13, torch.float32, "gathered"),
    ],
)
def test_the_form_goes_by_share_width_and_precision(n, k, dtype, expected, monkeypatch):
    for name in ("dense", "tiled", "sampled", "gathered"):
        monkeypatch.setattr(factored, f"{name}_loss", lambda seen, name=name: name)
    places = torch.arange(n)
    seen = ObservedEntries(places // 20, places % 20, torch.ones(n, dtype=dtype), (20, 20))
    assert factored.fastest_loss(seen, k) == expected
    with pytest.raises(ValueError, match=r"^k: wanted k >= 1, got 0"):
        factored.fastest_loss(seen, 0)


def test_without_csr_rows_are_summed(generator, monkeypatch):
    monkeypatch.setattr(factored, "_has_csr", lambda values: False)
    monkeypatch.setattr(factored, "_csr", None)  # not to be called
    seen, Ws = sample(mask(30, 20, 0.1, generator), generator), network(30, 20, 18, 2, generator)
    for make in (factored.tiled_loss, factored.gathered_loss, factored.sampled_loss):
        assert_agrees(make(seen)(Ws), slowly(seen, Ws))


# A spectral start from the sample alone


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_directions_that_a_sample_does_not_see_start_at_zero_on_one_side(rank, dtype, generator):
    rows, cols = torch.ones(60, 57).nonzero().T
    low = [torch.randn(d, rank, generator=generator, dtype=dtype) for d in (60, 57)]
    seen = ObservedEntries(rows, cols, (low[0] @ low[1].T).flatten(), (60, 57))
    Q = torch.randn(6, 57, generator=generator, dtype=dtype)
    loss, P = factored.fastest_loss(seen, 6), torch.zeros(60, 6, dtype=dtype)
    Ws, s = init._sampled_spectral(loss, P, Q, 3, 1.0)
    size = torch.linalg.norm(Ws[-1], dim=0)
    near = 1e-12 if dtype == torch.float64 else 1e-4
    assert s.isfinite().all() and (size[:rank] - 1).abs().sum() < near and not size[rank:].any()
    assert (Ws[0] @ Ws[0].T - torch.eye(6, dtype=dtype)).abs().max() < near
