"""Many runs at once against each run by itself."""

import math
import re

import pytest
import torch

from lop_utils import batches, descent, losses

F64 = {"dtype": torch.float64}
# L -> widths; no two neighbours agree, so a transposed factor cannot pass.
DIMS = {1: (4, 3), 2: (4, 5, 3), 3: (4, 5, 2, 3), 4: (4, 2, 5, 6, 3), 5: (4, 5, 3, 2, 6, 3)}


def problem(L, B, kind=F64):
    generator = torch.Generator().manual_seed(L)
    dims = DIMS[L]
    sizes = list(zip(dims[1:], dims[:-1], strict=True))
    draw = [torch.randn(B, *size, generator=generator, **F64) for size in [*sizes, (3, 4)]]
    *Ws, Phi = (A.to(**kind) for A in draw)
    return [0.4 * W for W in Ws], 0.3 * Phi


def one_by_one(Ws, Phi, *, eta, **options):
    """Run by run: layers of each run at each step. The oracle."""
    etas = torch.as_tensor(eta, **F64).expand(len(Phi)).tolist()
    return [
        list(
            descent.gradient_descent(
                [W[b] for W in Ws], losses.matrix_residual(Phi[b]), eta=etas[b], **options
            )
        )
        for b in range(len(Phi))
    ]


def gap(iterates, runs):
    """Return the largest distance of a layer or a loss from those of the runs by themselves."""
    worst = 0.0
    for it in iterates:
        for b, run in enumerate(runs):
            for W, other in zip(it.Ws, run[it.t].Ws, strict=True):
                worst = max(worst, (W[b] - other).abs().max().item())
            worst = max(worst, (it.loss[b] - run[it.t].loss).abs().item())
    return worst


ETAS = torch.tensor([0.02, 0.05, 0.1, 0.01, 0.03], **F64)


@pytest.mark.parametrize("lam", [0.0, 0.3], ids=["no-decay", "decay"])
@pytest.mark.parametrize("each", [False, True], ids=["one-eta", "eta-of-each"])
@pytest.mark.parametrize("B", [1, 5])
@pytest.mark.parametrize("L", DIMS)
def test_every_run_is_gradient_descent(L, B, each, lam):
    Ws, Phi = problem(L, B)
    options = dict(eta=ETAS[:B] if each else 0.05, lam=lam, steps=40)
    iterates = list(batches.batch_descent(Ws, Phi, **options))
    runs = one_by_one(Ws, Phi, **options)
    assert [it.t for it in iterates] == list(range(41))
    assert gap(iterates, runs) < 1e-13
    assert all(it.loss.shape == (B,) for it in iterates)
    if not lam:
        assert (iterates[-1].loss < iterates[0].loss).all()


def wrongly(Ws, Phi, *, eta, lam, steps, wrong):
    """Batched descent with one mistake in it."""
    Ws, eta = [W.clone() for W in Ws], torch.as_tensor(eta, **F64).expand(len(Phi))
    eta = (eta.mean() if wrong == "one-eta-for-all" else eta[:, None, None]) * torch.ones(1, **F64)
    for t in range(steps + 1):
        prefixes = [Ws[0]]
        for W in Ws[1:]:
            prefixes.append(W @ prefixes[-1])
        S = prefixes[-1] - Phi
        yield batches.BatchIterate(t, [W.clone() for W in Ws], 0.5 * S.square().sum((1, 2)))
        for l in reversed(range(len(Ws))):
            G = S @ prefixes[l - 1].mT if l else S
            before = Ws[l]
            if wrong == "decay-after":
                Ws[l] = (Ws[l] - eta * G) * (1 - eta * lam)
            elif wrong == "no-decay":
                Ws[l] = Ws[l] - eta * G
            elif wrong == "decay-without-eta":
                Ws[l] = Ws[l] * (1 - lam) - eta * G
            else:
                Ws[l] = Ws[l] * (1 - eta * lam) - eta * G
            # In place and in a row: the sweep goes on with the layer that has just moved.
            S = (Ws[l] if wrong == "in-a-row" else before).mT @ S


@pytest.mark.parametrize(
    "wrong",
    ["none", "in-a-row", "one-eta-for-all", "decay-after", "no-decay", "decay-without-eta"],
)
def test_a_mistake_would_be_seen(wrong):
    Ws, Phi = problem(3, 5)
    options = dict(eta=ETAS, lam=0.3, steps=40)
    found = gap(wrongly(Ws, Phi, **options, wrong=wrong), one_by_one(Ws, Phi, **options))
    assert found < 1e-13 if wrong == "none" else found > 1e-4


@pytest.mark.parametrize(
    ("every", "steps", "times"),
    [(1, 3, [0, 1, 2, 3]), (4, 9, [0, 4, 8]), (5, 10, [0, 5, 10]), (7, 3, [0]), (1, 0, [0])],
)
def test_every_leaves_out_iterates_but_changes_none(every, steps, times):
    Ws, Phi = problem(3, 5)
    some = list(batches.batch_descent(Ws, Phi, eta=0.05, lam=0.1, steps=steps, every=every))
    everything = list(batches.batch_descent(Ws, Phi, eta=0.05, lam=0.1, steps=steps))
    assert [it.t for it in some] == times
    for it in some:
        for W, other in zip(it.Ws, everything[it.t].Ws, strict=True):
            assert torch.equal(W, other)
        assert torch.equal(it.loss, everything[it.t].loss)


@pytest.mark.parametrize("L", [1, 3])
def test_a_run_that_diverges_leaves_the_others_alone(L):
    Ws, Phi = problem(L, 5)
    eta = torch.full((5,), 0.05, **F64)
    eta[2] = 1e6
    *_, together = batches.batch_descent(Ws, Phi, eta=eta, steps=100, every=10)
    well = [0, 1, 3, 4]
    assert not together.loss[2].isfinite() and together.loss[well].isfinite().all()
    *_, without = batches.batch_descent(
        [W[well] for W in Ws], Phi[well], eta=0.05, steps=100, every=10
    )
    for W, other in zip(together.Ws, without.Ws, strict=True):
        assert W[well].isfinite().all() and (W[well] - other).abs().max() < 1e-13
    assert (together.loss[well] - without.loss).abs().max() < 1e-13


@pytest.mark.parametrize("L", [1, 2, 3])
def test_the_input_is_not_changed(L):
    Ws, Phi = problem(L, 3)
    copies = [A.clone() for A in (*Ws, Phi)]
    list(batches.batch_descent(Ws, Phi, eta=0.1, lam=0.1, steps=5))
    assert all(torch.equal(A, copy) for A, copy in zip((*Ws, Phi), copies, strict=True))


@pytest.mark.parametrize("L", [1, 2, 3])
def test_an_iterate_owns_its_tensors(L):
    Ws, Phi = problem(L, 3)
    kept = list(batches.batch_descent(Ws, Phi, eta=0.1, steps=5))
    spoiled = []
    for it in batches.batch_descent(Ws, Phi, eta=0.1, steps=5):
        spoiled.append([A.clone() for A in (*it.Ws, it.loss)])
        for A in (*it.Ws, it.loss):
            A.fill_(math.nan)
    for it, copies in zip(kept, spoiled, strict=True):
        assert all(torch.equal(A, copy) for A, copy in zip((*it.Ws, it.loss), copies, strict=True))
    places = [A.data_ptr() for it in kept for A in (*it.Ws, it.loss)]
    assert len(set(places)) == len(places)


def test_eta_may_be_a_whole_number_or_a_tensor_of_no_dimension():
    Ws, Phi = problem(2, 3)
    runs = [
        list(batches.batch_descent([0.1 * W for W in Ws], 0.1 * Phi, eta=eta, steps=5))[-1]
        for eta in (1, 1.0, torch.tensor(1.0), torch.ones(3))
    ]
    for run in runs[1:]:
        assert (run.loss - runs[0].loss).abs().max() < 1e-14


def test_device_and_dtype_are_kept(place):
    Ws, Phi = problem(3, 5)
    exact = list(batches.batch_descent(Ws, Phi, eta=ETAS, lam=0.1, steps=50))[-1]
    Ws, Phi = problem(3, 5, place.kind)
    *_, it = batches.batch_descent(Ws, Phi, eta=ETAS, lam=0.1, steps=50)
    for A, other in zip((*it.Ws, it.loss), (*exact.Ws, exact.loss), strict=True):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
        assert (A.cpu().double() - other).abs().max() < place.tolerance


def refused(change=lambda Ws, Phi: (Ws, Phi), **options):
    def call():
        Ws, Phi = change(*problem(3, 5))
        # At the call: no iterate is asked for.
        batches.batch_descent(Ws, Phi, **{"eta": 0.1, "steps": 1} | options)

    return call


def with_nan(A):
    A = A.clone()
    A[3, 0, 0] = math.nan
    return A


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            refused(lambda Ws, Phi: (Ws[0], Phi)),
            TypeError,
            "Ws: wanted a sequence of tensors, got Tensor",
        ),
        (refused(lambda Ws, Phi: ([], Phi)), ValueError, "Ws: wanted at least one layer, got none"),
        (
            refused(lambda Ws, Phi: ([Ws[0].tolist(), *Ws[1:]], Phi)),
            TypeError,
            "Ws[0]: wanted a torch.Tensor, got list",
        ),
        (
            refused(lambda Ws, Phi: (Ws, Phi.numpy())),
            TypeError,
            "Phi: wanted a torch.Tensor, got ndarray",
        ),
        (
            refused(lambda Ws, Phi: ([W[0] for W in Ws], Phi[0])),
            ValueError,
            "Ws[0]: wanted shape (B, rows, columns), got (5, 4)",
        ),
        (
            refused(lambda Ws, Phi: (Ws, Phi[0])),
            ValueError,
            "Phi: wanted shape (B, rows, columns), got (3, 4)",
        ),
        (
            refused(lambda Ws, Phi: ([Ws[0], Ws[1][:4], Ws[2]], Phi)),
            ValueError,
            "Ws[1]: wanted B = 5 runs as Ws[0], got 4",
        ),
        (
            refused(lambda Ws, Phi: (Ws, Phi[:1])),
            ValueError,
            "Phi: wanted B = 5 runs as Ws[0], got 1",
        ),
        (
            refused(lambda Ws, Phi: ([W[:0] for W in Ws], Phi[:0])),
            ValueError,
            "Ws[0]: wanted a matrix with entries, got shape (0, 20)",
        ),
        (
            refused(lambda Ws, Phi: ([Ws[0], Ws[1].float(), Ws[2]], Phi)),
            ValueError,
            "Ws[1]: wanted torch.float64 on cpu as Ws[0], got torch.float32 on cpu",
        ),
        (
            refused(lambda Ws, Phi: ([W.long() for W in Ws], Phi.long())),
            TypeError,
            "Ws[0]: wanted a floating-point matrix, got torch.int64",
        ),
        (
            refused(lambda Ws, Phi: ([Ws[0], with_nan(Ws[1]), Ws[2]], Phi)),
            ValueError,
            "Ws[1]: wanted finite entries, got NaN or infinity",
        ),
        (
            refused(lambda Ws, Phi: (Ws, with_nan(Phi))),
            ValueError,
            "Phi: wanted finite entries, got NaN or infinity",
        ),
        (
            refused(lambda Ws, Phi: ([Ws[0], Ws[2], Ws[1]], Phi)),
            ValueError,
            "Ws[1]: wanted 5 columns to follow Ws[0] of shape (5, 4), got shape (3, 2)",
        ),
        (
            refused(lambda Ws, Phi: (Ws, Phi.mT)),
            ValueError,
            "Phi: wanted shape (3, 4), got (4, 3)",
        ),
        (refused(eta=0.0), ValueError, "eta: wanted eta > 0, got 0.0"),
        (refused(eta=torch.tensor(-1.0)), ValueError, "eta: wanted eta > 0, got -1.0"),
        (refused(eta="0.1"), TypeError, "eta: wanted a real number, got '0.1'"),
        (refused(eta=torch.ones(4)), ValueError, "eta: wanted B = 5 positive step sizes, got "),
        (refused(eta=torch.arange(5.0)), ValueError, "eta: wanted B = 5 positive step sizes, got "),
        (
            refused(eta=torch.tensor([1, 1, 1, 1, math.inf])),
            ValueError,
            "eta: wanted B = 5 positive step sizes, got ",
        ),
        (
            refused(eta=torch.ones(5, 1, 1)),
            ValueError,
            "eta: wanted B = 5 positive step sizes, got ",
        ),
        (refused(lam=-1), ValueError, "lam: wanted lam >= 0, got -1"),
        (refused(steps=-1), ValueError, "steps: wanted steps >= 0, got -1"),
        (refused(steps=1.0), TypeError, "steps: wanted a whole number, got 1.0"),
        (refused(every=0), ValueError, "every: wanted every >= 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
