r"""Methods that one page judges, as rules, and what tells whether a method sees a basis.

They are short and compute every decomposition anew, which is no way to train a large network.
``damping`` is what keeps a root or a division from zero.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lop_utils import _checks, init
from lop_utils.rules import Rule, _moved

__all__ = ["basis_error", "clip_entries", "clip_norm", "shampoo", "sign_descent", "soap"]


def _along(name: str, directions: Callable[[list[Tensor]], list[Tensor]]) -> Rule:
    """Return descent along what a function makes of the gradients of all layers."""

    def step(Ws, value, grads, rates, lam, memory):
        return _moved(Ws, directions(grads), rates), memory

    return Rule(name, lambda Ws: {}, step)


def sign_descent() -> Rule:
    r"""Return sign descent, :math:`W_l \leftarrow W_l - \eta_l \operatorname{sign}(G_l)`.

    References
    ----------
    Bernstein et al. (2018), arXiv:1802.04434.

    Examples
    --------
    >>> W, G = torch.zeros(1, 2), torch.tensor([[0.3, -7.0]])
    >>> sign_descent().step([W], None, [G], [0.1], 0.0, {})[0]
    [tensor([[-0.1000,  0.1000]])]
    """
    return _along("sign descent", lambda grads: [G.sign() for G in grads])


def clip_entries(most: float) -> Rule:
    """Return descent with every entry of the gradients clipped, as `clip_grad_value_` of torch.

    Parameters
    ----------
    most : float
        The largest size of an entry.

    Raises
    ------
    TypeError, ValueError
        If ``most`` is not positive.

    Examples
    --------
    >>> W, G = torch.zeros(1, 2), torch.tensor([[0.5, -7.0]])
    >>> clip_entries(1.0).step([W], None, [G], [1.0], 0.0, {})[0]
    [tensor([[-0.5000,  1.0000]])]
    """
    most = _checks.positive("most", most)
    return _along("clipped entries", lambda grads: [G.clamp(-most, most) for G in grads])


def clip_norm(most: float) -> Rule:
    """Return descent with the gradients of all layers scaled together, as `clip_grad_norm_`.

    Parameters
    ----------
    most : float
        The largest norm of all entries of all layers.

    Raises
    ------
    TypeError, ValueError
        If ``most`` is not positive.

    References
    ----------
    Pascanu, Mikolov and Bengio (2013), arXiv:1211.5063.

    Examples
    --------
    >>> W, G = torch.zeros(1, 2), torch.tensor([[3.0, -4.0]])
    >>> clip_norm(1.0).step([W], None, [G], [1.0], 0.0, {})[0]
    [tensor([[-0.6000,  0.8000]])]
    """
    most = _checks.positive("most", most)

    def clipped(grads):
        norm = sum(G.square().sum((-2, -1), keepdim=True) for G in grads).sqrt()
        return [(most / norm).clamp(max=1) * G for G in grads]

    return _along("clipped norm", clipped)


def _covariances(Ws: list[Tensor], damping: float) -> dict[str, list[Tensor]]:
    def eyes(axis):
        return [damping * torch.eye(W.shape[axis]).to(W).expand(*W.shape[:-2], -1, -1) for W in Ws]

    return {"left": eyes(-2), "right": eyes(-1)}


def _root(A: Tensor) -> Tensor:
    """Return A to the power -1/4, of a positive definite A."""
    values, vectors = torch.linalg.eigh(A)
    return vectors * values[..., None, :] ** -0.25 @ vectors.mT


def shampoo(damping: float) -> Rule:
    r"""Return Shampoo, which divides by roots of what the gradients have been on either side.

    .. math::

        A_l \leftarrow A_l + G_l G_l^\top, \qquad B_l \leftarrow B_l + G_l^\top G_l, \qquad
        W_l \leftarrow W_l - \eta_l\, A_l^{-1/4}\, G_l\, B_l^{-1/4}

    Parameters
    ----------
    damping : float
        A and B start at so many times the identity.

    Raises
    ------
    TypeError, ValueError
        If ``damping`` is not positive.

    References
    ----------
    Gupta, Koren and Singer (2018), arXiv:1802.09568.

    Examples
    --------
    >>> rule, W, G = shampoo(1e-9), torch.zeros(2, 2), torch.diag(torch.tensor([3.0, -0.1]))
    >>> (W,), _ = rule.step([W], None, [G], [1.0], 0.0, rule.start([W]))
    >>> W.diagonal().round(decimals=3)  # the first step is a polar factor
    tensor([-1.,  1.])
    """
    damping = _checks.positive("damping", damping)

    def step(Ws, value, grads, rates, lam, memory):
        left = [A + G @ G.mT for A, G in zip(memory["left"], grads, strict=True)]
        right = [B + G.mT @ G for B, G in zip(memory["right"], grads, strict=True)]
        directions = [_root(A) @ G @ _root(B) for A, G, B in zip(left, grads, right, strict=True)]
        return _moved(Ws, directions, rates), {"left": left, "right": right}

    return Rule("Shampoo", lambda Ws: _covariances(Ws, damping), step)


def soap(beta: float = 0.95, damping: float = 1e-8) -> Rule:
    r"""Return SOAP: Adam, entry by entry, in the eigenvectors of Shampoo's two matrices.

    With running means :math:`A_l, B_l, M_l` of :math:`G_lG_l^\top, G_l^\top G_l, G_l` and the
    eigenvectors :math:`P, Q` of the first two, the root of a running mean of the squares of
    :math:`P^\top G_l Q` divides :math:`P^\top M_l Q`, which is turned back. The means are corrected
    for their start at zero.

    Parameters
    ----------
    beta : float
        Rate of the running means, from 0 to below 1.
    damping : float
        What is added to the roots of the mean squares.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Vyas et al. (2024), arXiv:2409.11321.

    Examples
    --------
    >>> rule, W, G = soap(), torch.zeros(2, 2), torch.diag(torch.tensor([3.0, -0.1]))
    >>> (W,), _ = rule.step([W], None, [G], [1.0], 0.0, rule.start([W]))
    >>> W.diagonal().round(decimals=3)  # as of Adam, in the bases of the gradient
    tensor([-1.,  1.])
    """
    beta, damping = _checks.fraction("beta", beta), _checks.positive("damping", damping)

    def start(Ws):
        zeros = {name: [torch.zeros_like(W) for W in Ws] for name in ("mean", "squares")}
        return {**_covariances(Ws, 0.0), **zeros, "steps": [torch.zeros(()) for _ in Ws]}

    def step(Ws, value, grads, rates, lam, memory):
        after, directions = {name: [] for name in memory}, []
        for G, A, B, M, S, t in zip(grads, *memory.values(), strict=True):
            A, B = torch.lerp(G @ G.mT, A, beta), torch.lerp(G.mT @ G, B, beta)
            P, Q = (torch.linalg.eigh(C).eigenvectors for C in (A, B))
            M, S = torch.lerp(G, M, beta), torch.lerp((P.mT @ G @ Q) ** 2, S, beta)
            weight = 1 - beta ** (t.item() + 1)  # what the running means add up to
            N = (P.mT @ M @ Q / weight) / ((S / weight).sqrt() + damping)
            directions.append(P @ N @ Q.mT)
            for name, each in zip(after, (A, B, M, S, t + 1), strict=True):
                after[name].append(each)
        return _moved(Ws, directions, rates), after

    return Rule("SOAP", start, step)


def basis_error(
    rule: Rule, Gs: Sequence[Tensor], *, generator: torch.Generator | int | None = None
) -> float:
    r"""Return how much a method's steps depend on the bases in which a layer is written.

    One layer starts at the identity, sees the gradients in turn, and ends at W. In other bases it
    starts at :math:`PQ^\top`, sees :math:`P G Q^\top`, and should end at :math:`P W Q^\top`, for
    random orthogonal P and Q.

    Parameters
    ----------
    rule : Rule
        The method.
    Gs : sequence of Tensor, shape (d, d)
        What the layer sees.
    generator : torch.Generator or int, optional
        Source of P and Q.

    Returns
    -------
    float
        The distance of the two ends over the way from start to end: rounding for a method that
        sees no basis.

    Raises
    ------
    TypeError, ValueError
        If there is no gradient, or they are not square and of one shape.

    Examples
    --------
    >>> from lop_utils.rules import momentum
    >>> Gs = torch.randn(3, 4, 4, dtype=torch.float64)
    >>> basis_error(momentum(0.9), Gs) < 1e-12, basis_error(sign_descent(), Gs) > 0.1
    (True, True)
    """
    Gs = [_checks.matrix(f"Gs[{t}]", G) for t, G in enumerate(Gs)]
    shapes = [tuple(G.shape) for G in Gs]
    if len({size for shape in shapes for size in shape}) != 1:
        raise ValueError(f"Gs: wanted square matrices of one shape, got {shapes}")
    d, kind = len(Gs[0]), dict(dtype=Gs[0].dtype, device=Gs[0].device)
    generator = _checks.seeded(generator)
    P, Q = (init.orthogonal((d, d), 1.0, generator=generator, **kind)[0] for _ in "PQ")

    def end(W, Gs):
        memory = rule.start([W])
        for G in Gs:
            (W,), memory = rule.step([W], G.new_zeros(()), [G], [1e-2], 0.0, memory)
        return W

    eye = torch.eye(d, **kind)
    here, there = end(eye, Gs), end(P @ Q.mT, [P @ G @ Q.mT for G in Gs])
    return ((P @ here @ Q.mT - there).norm() / (here - eye).norm()).item()
