"""Residuals on observed entries: every form against the obvious one, at every odd shape."""

import re
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lop_utils import compression, datasets, dln, factored, losses, sampling, spectra

F64 = {"dtype": torch.float64}
HAS_MKL = torch.backends.mkl.is_available()
FORMS = {
    "dense": factored.dense_residual,
    "tiled": factored.tiled_residual,
    "sampled": factored.sampled_residual,
    "gathered-csr": lambda obs: factored.gathered_residual(obs, mkl=True),
    "gathered-bag": lambda obs: factored.gathered_residual(obs, mkl=False),
}


@pytest.fixture(params=FORMS)
def form(request):
    if not HAS_MKL and request.param in ("sampled", "gathered-csr"):
        pytest.skip("this torch multiplies no CSR matrices")
    return FORMS[request.param]


def observed(Omega, generator, kind=F64):
    """Draw values at the places of a mask."""
    rows, cols = Omega.nonzero().T
    values = torch.randn(len(rows), generator=generator, **F64)
    kind = {"device": "cpu", **kind}
    rows, cols = rows.to(kind["device"]), cols.to(kind["device"])
    return sampling.observe(rows, cols, values.to(**kind), tuple(Omega.shape))


def random_mask(d_y, d_x, share, generator):
    Omega = torch.rand(d_y, d_x, generator=generator) < share
    Omega[d_y // 2, d_x // 2] = True  # at least one
    return Omega


def layers(dims, generator):
    return [torch.randn(b, a, generator=generator, **F64) for a, b in pairwise(dims)]


def network(d_y, d_x, k, L, generator, kind=F64):
    return [W.to(**kind) for W in layers((d_x, *[k] * (L - 1), d_y), generator)]


def slowly(obs, Ws):
    """Return loss and gradients from the whole matrix, its mask and every product in full."""
    Omega = torch.zeros(obs.shape, dtype=torch.bool, device=obs.values.device)
    Phi = torch.zeros(obs.shape, **F64).to(obs.values.device)
    for i, j, value in zip(*(A.tolist() for A in obs[:3]), strict=True):
        Omega[i, j], Phi[i, j] = True, value
    return dln.gradients([W.double() for W in Ws], losses.masked_residual(Omega, Phi))


def assert_agrees(found, expected, tolerance):
    assert abs(found.loss.item() / expected.loss.item() - 1) < tolerance
    for G, E in zip(found.grads, expected.grads, strict=True):
        assert G.shape == E.shape
        assert (G.double() - E).abs().max() <= tolerance * E.abs().max()


# Every form is the obvious one


SHAPES = [(12, 7), (7, 12), (1, 9), (9, 1), (40, 3), (3, 40)]


@pytest.mark.parametrize("L", [2, 3, 5], ids=lambda L: f"L={L}")
@pytest.mark.parametrize("k", [1, 4], ids=lambda k: f"k={k}")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_gradients_are_those_of_the_whole_matrix(form, shape, k, L, generator):
    for share in (0.05, 0.4, 1.1):
        obs = observed(random_mask(*shape, share, generator), generator)
        Ws = network(*shape, k, L, generator)
        found = factored.contracted_gradients(Ws, form(obs))
        assert_agrees(found, slowly(obs, Ws), 1e-12)


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
    obs = observed(cut(random_mask(9, 6, 0.6, generator)), generator)
    Ws = network(9, 6, 3, 3, generator)
    found = factored.contracted_gradients(Ws, form(obs))
    assert_agrees(found, slowly(obs, Ws), 1e-12)
    unseen = torch.bincount(obs.rows, minlength=9) == 0
    assert not found.grads[-1][unseen].any()  # exactly zero: these rows stay where they start
    P, Q = Ws[-1], Ws[1] @ Ws[0]
    assert not form(obs)(P, Q)[2][:, torch.bincount(obs.cols, minlength=6) == 0].any()


@pytest.mark.parametrize("tile", [1, 11, 12, 30, 59, 60, 61, 10**6])
def test_tiles_of_any_height(tile, generator, monkeypatch):
    monkeypatch.setattr(factored, "_TILE", tile)
    for rows in (slice(None), slice(0, 7), slice(13, 20)):  # tiles without any entry, too
        Omega = random_mask(20, 12, 0.3, generator)
        kept = torch.zeros_like(Omega)
        kept[rows] = Omega[rows]
        obs, Ws = observed(kept, generator), network(20, 12, 3, 2, generator)
        found = factored.contracted_gradients(Ws, factored.tiled_residual(obs))
        assert_agrees(found, slowly(obs, Ws), 1e-12)


def test_factors_that_are_not_contiguous(form, generator):
    obs = observed(random_mask(12, 7, 0.4, generator), generator)
    P = torch.randn(36, 12, generator=generator, **F64)[::3, ::4]
    for Q in (
        torch.randn(7, 3, generator=generator, **F64).T,
        torch.randn(6, 21, generator=generator, **F64)[::2, 2::3],
    ):
        assert not P.is_contiguous() and not Q.is_contiguous()
        assert_agrees(factored.contracted_gradients([Q, P], form(obs)), slowly(obs, [Q, P]), 1e-12)
        Ws = [Q, torch.randn(3, 3, generator=generator, **F64).T, P]
        assert_agrees(factored.contracted_gradients(Ws, form(obs)), slowly(obs, Ws), 1e-12)


def test_what_came_back_stays_and_nothing_given_changes(form, generator):
    obs = observed(random_mask(12, 7, 0.4, generator), generator)
    first, second = network(12, 7, 3, 2, generator), network(12, 7, 3, 2, generator)
    values, kept = obs.values.clone(), [W.clone() for W in first]
    residual = form(obs)
    found = residual(first[1], first[0])
    copies = [A.clone() for A in found]
    residual(second[1], second[0])
    assert all(torch.equal(A, B) for A, B in zip(found, copies, strict=True))
    assert torch.equal(values, obs.values)
    assert all(torch.equal(A, B) for A, B in zip(first, kept, strict=True))


def test_one_residual_serves_every_width(form, generator):
    obs = observed(random_mask(12, 7, 0.4, generator), generator)
    residual = form(obs)
    for k in (3, 5, 3, 1):
        Ws = network(12, 7, k, 2, generator)
        assert_agrees(factored.contracted_gradients(Ws, residual), slowly(obs, Ws), 1e-12)


def test_many_chunks(generator, monkeypatch):
    monkeypatch.setattr(sampling, "_CHUNK", 16)
    obs, Ws = (
        observed(random_mask(30, 20, 0.3, generator), generator),
        network(30, 20, 4, 3, generator),
    )
    for mkl in {False, HAS_MKL}:
        residual = factored.gathered_residual(obs, mkl=mkl)
        assert_agrees(factored.contracted_gradients(Ws, residual), slowly(obs, Ws), 1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_each_device_and_dtype(name, place, generator):
    if place.kind["device"] == "cpu" and not HAS_MKL and name in ("sampled", "gathered-csr"):
        pytest.skip("this torch multiplies no CSR matrices")
    obs = observed(random_mask(60, 45, 0.3, generator), generator, place.kind)
    Ws = network(60, 45, 5, 3, generator, place.kind)
    found = factored.contracted_gradients(Ws, FORMS[name](obs))
    for G in (found.loss, *found.grads):
        assert G.dtype == place.kind["dtype"] and G.device.type == place.kind["device"]
    expected = slowly(obs, Ws)
    assert_agrees(found, dln.LossAndGradients(expected.loss, expected.grads), place.tolerance)


def wrong_sign(obs, residual):
    return lambda P, Q: tuple(s * A for s, A in zip((1, -1, 1), residual(P, Q), strict=True))


def forgets_an_entry(obs, residual):
    return factored.gathered_residual(
        obs._replace(rows=obs.rows[1:], cols=obs.cols[1:], values=obs.values[1:]), mkl=False
    )


def untransposed(obs, residual):
    # the transposed matrix multiplied with its values in the order of the rows
    def wrong(P, Q):
        loss, RQt, _ = residual(P, Q)
        R = sampling.entries(P, Q, obs.rows, obs.cols) - obs.values
        turn = torch.argsort(obs.cols, stable=True)
        whole = torch.zeros(obs.shape, **F64)
        whole[obs.rows[turn], obs.cols[turn]] = R
        return loss, RQt, P.T @ whole

    return wrong


def doubled_loss(obs, residual):
    return lambda P, Q: (2 * (found := residual(P, Q))[0], *found[1:])


@pytest.mark.parametrize("spoil", [wrong_sign, forgets_an_entry, untransposed, doubled_loss])
def test_a_wrong_residual_is_seen(spoil, generator):
    obs = observed(random_mask(12, 7, 0.4, generator), generator)
    Ws, residual = network(12, 7, 3, 3, generator), factored.dense_residual(obs)
    assert_agrees(factored.contracted_gradients(Ws, residual), slowly(obs, Ws), 1e-12)
    with pytest.raises(AssertionError):
        found = factored.contracted_gradients(Ws, spoil(obs, residual))
        assert_agrees(found, slowly(obs, Ws), 1e-6)


# Gradients through the two outermost layers


@pytest.mark.parametrize("L", [2, 3, 5], ids=lambda L: f"L={L}")
def test_contracted_gradients_are_those_of_autograd(form, L, generator):
    obs = observed(random_mask(12, 7, 0.4, generator), generator)
    leaves = [W.requires_grad_() for W in network(12, 7, 4, L, generator)]
    W = leaves[0]
    for layer in leaves[1:]:
        W = layer @ W
    loss = 0.5 * ((W[obs.rows, obs.cols] - obs.values) ** 2).sum()
    loss.backward()
    found = factored.contracted_gradients([W.detach() for W in leaves], form(obs))
    assert_agrees(found, dln.LossAndGradients(loss, [leaf.grad for leaf in leaves]), 1e-12)


def test_inner_layers_need_not_be_square(generator):
    obs = observed(random_mask(12, 7, 0.4, generator), generator)
    Ws = layers((7, 3, 5, 2, 4, 12), generator)
    found = factored.contracted_gradients(Ws, factored.dense_residual(obs))
    assert_agrees(found, slowly(obs, Ws), 1e-12)


@pytest.mark.parametrize(
    ("Ws", "error", "message"),
    [
        ([torch.ones(2, 3)], ValueError, "Ws: wanted L >= 2 layers, got 1"),
        ([], ValueError, "Ws: wanted at least one matrix, got none"),
        (torch.ones(2, 3), TypeError, "Ws: wanted a sequence of matrices, got Tensor"),
        ([torch.ones(2, 3), torch.ones(2, 3)], ValueError, "Ws[1]: wanted 2 columns to follow"),
    ],
)
def test_layers_are_refused(Ws, error, message):
    residual = factored.dense_residual(sampling.observe([0], [2], [3.0], (2, 3)))
    with pytest.raises(error, match="^" + re.escape(message)):
        factored.contracted_gradients(Ws, residual)


@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        (torch.ones(3, 1), torch.ones(1, 3), "P: wanted shape (2, 1), got (3, 1)"),
        (torch.ones(2, 2), torch.ones(1, 3), "Q: wanted shape (2, 3), got (1, 3)"),
        (torch.ones(2, 1), torch.ones(1, 4), "Q: wanted shape (1, 3), got (1, 4)"),
        (torch.ones(2, 1, **F64), torch.ones(1, 3), "P: wanted torch.float32 on cpu as values, "),
        (torch.ones(2, 1), torch.ones(1, 3, **F64), "Q: wanted torch.float32 on cpu as values, "),
    ],
)
def test_factors_that_do_not_fit_are_refused(form, P, Q, message):
    residual = form(sampling.observe([0], [2], torch.tensor([3.0]), (2, 3)))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        residual(P, Q)


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
    d_y, d_x, k, tile = 300, 200, 3, 1000
    monkeypatch.setattr(factored, "_TILE", tile)
    Omega = torch.zeros(d_y * d_x, dtype=torch.bool)
    Omega[torch.randperm(d_y * d_x, generator=generator)[:700]] = True
    obs, Ws = observed(Omega.view(d_y, d_x), generator), network(d_y, d_x, k, 3, generator)
    with Largest() as largest:
        factored.contracted_gradients(Ws, form(obs))
    if form is FORMS["dense"]:
        assert largest.numbers == d_y * d_x  # it would have been seen
    else:
        assert largest.numbers <= max(tile, 700 * k, d_y * k)


# One dense matrix of these shapes would take 8000 and 320 GB.
@pytest.mark.parametrize(("d", "k"), [(10**6, 2), (2 * 10**5, 20)], ids=["k=2", "k=20"])
@pytest.mark.parametrize("name", ["gathered-bag", "gathered-csr", "sampled", "fastest"])
def test_a_matrix_that_no_machine_could_hold(name, d, k, generator):
    if not HAS_MKL and name in ("gathered-csr", "sampled"):
        pytest.skip("this torch multiplies no CSR matrices")
    rows, cols = torch.randint(d, (2, 1000), generator=generator)
    values = torch.randn(1000, generator=generator, **F64)
    obs = sampling.observe(rows, cols, values, (d, d))
    make = {**FORMS, "fastest": lambda obs: factored.fastest_residual(obs, k)}[name]
    P = torch.randn(d, k, generator=generator, **F64)
    Q = torch.randn(k, d, generator=generator, **F64)
    loss, RQt, PtR = make(obs)(P, Q)
    # The same sample with the rows and columns left out in which nothing was observed.
    (rows, i), (cols, j) = (torch.unique(A, return_inverse=True) for A in (obs.rows, obs.cols))
    small = sampling.observe(i, j, obs.values, (len(rows), len(cols)))
    P, Q = P[rows], Q[:, cols]
    expected = slowly(small, [Q, P])
    got = dln.LossAndGradients(loss, [PtR[:, cols], RQt[rows]])
    assert_agrees(got, expected, 1e-12)
    assert (RQt != 0).any(1).sum() == len(rows) and (PtR != 0).any(0).sum() == len(cols)


# Which form is taken


@pytest.mark.parametrize(
    ("seen", "k", "mkl", "expected"),
    [
        (300, 2, True, "dense"),
        (101, 100, True, "dense"),
        (100, 2, True, "tiled"),  # a quarter is not above a quarter
        (41, 100, False, "tiled"),
        (40, 8, True, "sampled"),
        (40, 7, True, "gathered"),
        (3, 8, False, "sampled"),
    ],
)
def test_the_form_goes_by_share_and_width(seen, k, mkl, expected, monkeypatch):
    for name in ("dense", "tiled", "sampled", "gathered"):
        monkeypatch.setattr(factored, f"{name}_residual", lambda obs, name=name: name)
    monkeypatch.setattr(factored, "_has_csr", lambda values: mkl)
    rows, cols = torch.arange(seen) // 20, torch.arange(seen) % 20
    obs = sampling.observe(rows, cols, torch.ones(seen), (20, 20))
    assert factored.fastest_residual(obs, k) == expected


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [(0, ValueError, "k: wanted k >= 1, got 0"), (2.0, TypeError, "k: wanted a whole number, got")],
)
def test_a_width_is_refused(k, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        factored.fastest_residual(sampling.observe([0], [0], [1.0], (1, 1)), k)


def test_without_csr_rows_are_summed(generator, monkeypatch):
    monkeypatch.setattr(factored, "_has_csr", lambda values: False)

    def forbidden(*args, **kwargs):
        raise AssertionError("a CSR matrix was made")

    monkeypatch.setattr(factored, "_csr", forbidden)
    obs, Ws = (
        observed(random_mask(30, 20, 0.1, generator), generator),
        network(30, 20, 18, 3, generator),
    )
    for residual in (
        factored.tiled_residual(obs),
        factored.gathered_residual(obs),
        factored.fastest_residual(obs, 18),
    ):
        assert_agrees(factored.contracted_gradients(Ws, residual), slowly(obs, Ws), 1e-12)


# A spectral start from the sample alone


def gapped(d_y, d_x, sigma, share, generator):
    """Return a matrix of zeros but on a sample, whose leading values stand out, and the sample."""
    Phi = datasets.low_rank_target(d_y, d_x, torch.tensor(sigma, **F64), generator=generator)
    Omega = torch.rand(d_y, d_x, generator=generator) < share
    rows, cols = Omega.nonzero().T
    return Phi * Omega, sampling.observe(rows, cols, Phi[rows, cols], (d_y, d_x))


def start_from(obs, k, L, eps, residual=None, **kwargs):
    generator = torch.Generator().manual_seed(1)
    Q = torch.randn(k, obs.shape[1], generator=generator, **F64).to(obs.values)
    P = obs.values.new_full((obs.shape[0], k), float("nan"))  # its values are not used
    residual = residual or factored.fastest_residual(obs, k)
    return compression.sampled_spectral_init(residual, P, Q, L, eps, **kwargs)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)], ids=str)
@pytest.mark.parametrize("L", [2, 4], ids=lambda L: f"L={L}")
def test_a_sampled_start_is_the_spectral_one(form, shape, L, generator):
    k, eps = 3, 0.1
    M, obs = gapped(*shape, (10.0, 8.0, 6.0), 0.8, generator)
    found = start_from(obs, k, L, eps, form(obs), iterations=60)
    expected = compression.spectral_init(M, k, L, eps)
    assert [W.shape for W in found.Ws] == [W.shape for W in expected]
    s = torch.linalg.svdvals(M)
    assert s[3] < 0.6 * s[2]  # there is a gap
    assert (found.s / s[:k] - 1).abs().max() < 1e-10
    for W, E in ((found.Ws[0].T, expected[0].T), (found.Ws[-1], expected[-1])):
        assert spectra.principal_angles(W / eps, E / eps).max() < 1e-8
        assert spectra.vector_angles(W, E).max() < 1e-7  # one by one, in order
    for W, E in zip(found.Ws[1:-1], expected[1:-1], strict=True):
        assert torch.equal(W, E)
    # The signs of both sides go together: U s V^T is the best approximation.
    nearest = found.Ws[-1] / eps * found.s @ found.Ws[0] / eps
    assert (nearest - compression.truncate(M, k)).abs().max() < 1e-7


def test_a_few_rounds_are_enough_for_a_start(generator):
    M, obs = gapped(60, 40, (10.0, 8.0, 6.0), 0.3, generator)
    found, expected = start_from(obs, 3, 3, 1.0), compression.spectral_init(M, 3, 3, 1.0)
    s = torch.linalg.svdvals(M)
    assert (found.s / s[:3] - 1).abs().max() < 1e-2
    assert found.s[0] / s[0] == pytest.approx(1, abs=1e-4)  # the unit of `complete`
    assert spectra.principal_angles(found.Ws[-1], expected[-1])[:2].max() < 0.1


def test_unobserved_rows_start_at_exactly_zero(form, generator):
    Omega = random_mask(30, 20, 0.5, generator)
    Omega[[0, 7, 29]] = False
    obs = observed(Omega, generator)
    last = start_from(obs, 4, 3, 0.1, form(obs)).Ws[-1]
    assert (last == 0).all(1).nonzero().flatten().tolist() == [0, 7, 29]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("values", ["one-entry", "rank-1", "zeros"])
def test_a_sample_of_a_smaller_rank(values, dtype, generator):
    rows, cols = torch.ones(12, 9).nonzero().T
    u, v = (torch.rand(d, generator=generator, **F64) for d in (12, 9))
    entries = torch.outer(u, v).flatten() * (values != "zeros")
    if values == "one-entry":
        rows, cols, entries = rows[50:51], cols[50:51], entries[50:51]
    obs = sampling.observe(rows, cols, entries.to(dtype), (12, 9))
    start = start_from(obs, 4, 3, 1.0)
    assert all(torch.isfinite(W).all() for W in (*start.Ws, start.s))
    rank = 0 if values == "zeros" else 1
    size = torch.linalg.norm(start.Ws[-1], dim=0)
    near = 1e-12 if dtype == torch.float64 else 1e-5
    assert (size[:rank] - 1).abs().sum() < near and not size[rank:].any()
    eye = torch.eye(4, dtype=dtype)
    assert (start.Ws[0] @ start.Ws[0].T - eye).abs().max() < near


def test_directions_that_are_rounding_alone_start_at_zero(generator):
    # Their singular values come out of eigh as roots of rounding errors, in float32 not so small.
    rows, cols = torch.ones(60, 57).nonzero().T
    for _ in range(6):
        low = torch.randn(60, 2, generator=generator) @ torch.randn(2, 57, generator=generator)
        start = start_from(sampling.observe(rows, cols, low.flatten(), (60, 57)), 6, 3, 1.0)
        size = torch.linalg.norm(start.Ws[-1], dim=0)
        assert (size[:2] - 1).abs().max() < 1e-4 and not size[2:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"L": 1}, "L: wanted L >= 2, got 1"),
        ({"eps": 0.0}, "eps: wanted eps > 0, got 0.0"),
        ({"iterations": 0}, "iterations: wanted iterations >= 1, got 0"),
    ],
)
def test_a_sampled_start_is_refused(change, message):
    obs = sampling.observe([0], [0], [1.0], (2, 2))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        start_from(obs, **{"k": 1, "L": 2, "eps": 0.1, **change})
