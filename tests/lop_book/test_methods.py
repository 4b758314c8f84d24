"""Methods of one page: against numpy, slowly; and which of them see the basis."""

import re

import numpy as np
import pytest
import torch

from lop_utils import descent, init, rules
from lop_utils.book import methods
from lop_utils.losses import squared_error

F64 = {"dtype": torch.float64}
GENERATOR = torch.Generator().manual_seed(3)
GS = torch.randn(4, 3, 5, generator=GENERATOR, **F64)
SQUARE = torch.randn(4, 6, 6, generator=GENERATOR, **F64)


def steps(rule, Gs, eta=0.1):
    """Return where a layer goes from zero."""
    W, found = torch.zeros_like(Gs[0]), []
    memory = rule.start([W])
    for G in Gs:
        (W,), memory = rule.step([W], None, [G], [eta], 0.0, memory)
        found.append(W.numpy())
    return found


def fourth_root(A):
    values, vectors = np.linalg.eigh(A)
    return vectors @ np.diag(values**-0.25) @ vectors.T


def shampoo(Gs, damping, eta=0.1):
    """Shampoo on the entries in one long vector. The oracle."""
    m, n = Gs[0].shape
    A, B, W = damping * np.eye(m), damping * np.eye(n), np.zeros((m, n))
    for G in Gs:
        A, B = A + G @ G.T, B + G.T @ G
        W = W - eta * (fourth_root(np.kron(A, B)) @ G.reshape(-1)).reshape(m, n)
        yield W


def soap(Gs, beta, damping, eta=0.1):
    """SOAP, entry by entry, all means written as sums. The oracle."""
    W, turned = np.zeros(Gs[0].shape), []
    for t, G in enumerate(Gs):
        weights = np.array([beta ** (t - s) for s in range(t + 1)])
        weights /= weights.sum()
        mean = sum(w * G for w, G in zip(weights, Gs, strict=False))
        P = np.linalg.eigh(sum(w * G @ G.T for w, G in zip(weights, Gs, strict=False)))[1]
        Q = np.linalg.eigh(sum(w * G.T @ G for w, G in zip(weights, Gs, strict=False)))[1]
        turned.append((P.T @ G @ Q) ** 2)
        squares = sum(w * S for w, S in zip(weights, turned, strict=False))
        for i in range(P.shape[0]):
            for j in range(Q.shape[0]):
                step = P[:, i] @ mean @ Q[:, j] / (squares[i, j] ** 0.5 + damping)
                W = W - eta * step * np.outer(P[:, i], Q[:, j])
        yield W


@pytest.mark.parametrize(
    ("rule", "oracle", "options"),
    [(methods.shampoo, shampoo, {"damping": 0.3})]
    + [(methods.soap, soap, {"beta": beta, "damping": 0.1}) for beta in (0.0, 0.7)],
)
def test_shampoo_and_soap_are_what_is_published(rule, oracle, options):
    wanted = list(oracle(GS.numpy(), **options))
    assert np.abs(np.array(steps(rule(**options), GS)) - wanted).max() < 1e-12
    both = steps(rule(**options), torch.stack([2 * GS, GS], 1))  # runs side by side
    assert np.abs(np.array(both)[:, 1] - wanted).max() < 1e-12
    options["damping"] *= 1.1  # it would be seen
    assert np.abs(np.array(steps(rule(**options), GS)) - wanted).max() > 1e-4


@pytest.mark.parametrize("most", [0.5, 100.0])
@pytest.mark.parametrize(
    ("rule", "clip"),
    [
        (methods.clip_norm, torch.nn.utils.clip_grad_norm_),
        (methods.clip_entries, torch.nn.utils.clip_grad_value_),
    ],
)
def test_gradients_are_clipped_as_by_torch(rule, clip, most):
    Ws = init.gaussian((5, 4, 3), 1.0, generator=GENERATOR)
    params = [W.clone().requires_grad_() for W in Ws]
    Phi = torch.ones(3, 5, **F64)
    method = torch.optim.SGD(params, lr=0.1)
    for _ in range(5):
        method.zero_grad()
        (0.5 * (params[1] @ params[0] - Phi).square().sum()).backward()
        clip(params, most)
        method.step()
    *_, last = descent.train(Ws, squared_error(Phi), rule(most), eta=0.1, steps=5)
    for W, param in zip(last.Ws, params, strict=True):
        assert (W - param).abs().max() < 1e-6  # torch adds 1e-6 to the norm


def test_clipping_the_norm_looks_at_all_layers_and_at_each_run_alone():
    Gs = [torch.tensor([[[3.0]], [[0.3]]]), torch.tensor([[[4.0]], [[0.4]]])]
    after, _ = methods.clip_norm(1.0).step([torch.zeros(2, 1, 1)] * 2, None, Gs, [1, 1], 0.0, {})
    assert torch.cat(after, 2).squeeze().tolist() == [
        pytest.approx([-0.6, -0.8]),
        pytest.approx([-0.3, -0.4]),
    ]


ADAM = rules.from_torch(torch.optim.Adam)
BLIND = {  # to the basis
    "momentum": rules.momentum(0.9),
    "Nesterov": rules.nesterov(0.9),
    "clipped norm": methods.clip_norm(0.1),
    "Muon": rules.muon(),
    "Shampoo": methods.shampoo(1e-3),
    "SOAP": methods.soap(damping=1e-3),
}
SEES = {"Adam": ADAM, "sign": methods.sign_descent(), "entries": methods.clip_entries(0.1)}


@pytest.mark.parametrize("rule", BLIND.values(), ids=BLIND)
def test_what_sees_no_basis(rule):
    assert methods.basis_error(rule, SQUARE, generator=0) < 1e-10


@pytest.mark.parametrize("rule", SEES.values(), ids=SEES)
def test_what_does(rule):
    assert 0.1 < methods.basis_error(rule, SQUARE, generator=0) < 3


def test_soap_sees_the_basis_where_singular_values_are_equal():
    tied = torch.block_diag(SQUARE[0][:3, :3], torch.eye(3, **F64))
    assert methods.basis_error(methods.soap(damping=1e-3), [tied, tied], generator=0) > 0.01
    assert methods.basis_error(BLIND["Shampoo"], [tied, tied], generator=0) < 1e-10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods.clip_norm(0), "most: wanted most > 0, got 0"),
        (lambda: methods.clip_entries(-1), "most: wanted most > 0, got -1"),
        (lambda: methods.shampoo(0.0), "damping: wanted damping > 0, got 0.0"),
        (lambda: methods.soap(damping=0), "damping: wanted damping > 0, got 0"),
        (lambda: methods.soap(1.0), "beta: wanted 0 <= beta < 1, got 1.0"),
        (lambda: methods.basis_error(ADAM, []), "Gs: wanted square matrices of one"),
        (
            lambda: methods.basis_error(ADAM, GS),
            "Gs: wanted square matrices of one shape, got [(3, 5",
        ),
        (
            lambda: methods.basis_error(ADAM, [torch.eye(2), torch.eye(3)]),
            "Gs: wanted square matrices of one shape, got [(2, 2), (3, 3)]",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
