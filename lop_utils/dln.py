r"""Deep linear networks: initialisations, products, layer outputs and closed-form gradients.

A network is a plain list of matrices ``Ws = [W_1, ..., W_L]`` that act from the left on samples
in columns. A loss enters as a *residual*: a function that takes the end-to-end matrix
:math:`W = W_L \cdots W_1` and returns the loss and its gradient with respect to ``W``.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = [
    "LossAndGradients",
    "Residual",
    "aligned_init",
    "end_to_end",
    "gaussian_init",
    "gradients",
    "layer_outputs",
    "orthogonal_init",
    "uniform_init",
]

Residual = Callable[[Tensor], tuple[Tensor, Tensor]]
"""What a loss is to a deep linear network: end-to-end matrix in, (loss, gradient in it) out."""


def _dims(dims: Sequence[int]) -> list[int]:
    dims = [_checks.count(f"dims[{i}]", d, at_least=1) for i, d in enumerate(dims)]
    if len(dims) < 2:
        raise ValueError(f"dims: wanted (d_0, ..., d_L) with L >= 1, got {tuple(dims)}")
    return dims


def _sample(draw, shape, *, generator, dtype, device) -> Tensor:
    # A generator draws on its own device only; drawing there and moving afterwards makes one
    # seed give one matrix on every device.
    source = "cpu" if generator is None else generator.device
    return draw(*shape, generator=generator, dtype=dtype, device=source).to(device or source)


def orthogonal_init(
    dims: Sequence[int],
    eps: float,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    r"""Draw ``eps``-orthogonal layers from the Haar measure.

    Each layer satisfies :math:`W_l^\top W_l = \varepsilon^2 I` or
    :math:`W_l W_l^\top = \varepsilon^2 I`, whichever its shape allows. The QR factor of a
    Gaussian matrix is Haar distributed once the signs of R's diagonal are moved into Q.

    Parameters
    ----------
    dims : sequence of int
        Widths ``(d_0, ..., d_L)``; layer l has shape ``(d_l, d_{l-1})``.
    eps : float
        Initialisation scale: every singular value of every layer.
    generator : torch.Generator, optional
        Source of randomness; torch's global one if absent.
    dtype, device
        Of the result. The numbers are drawn on the generator's device and then moved.

    Returns
    -------
    list of Tensor
        ``[W_1, ..., W_L]``.

    Raises
    ------
    TypeError
        If a width is no whole number.
    ValueError
        If a width is below 1, fewer than two widths are given, or ``eps <= 0``.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154; Mezzadri (2007), arXiv:math-ph/0609050, for the signs.

    Examples
    --------
    >>> W_1, W_2 = orthogonal_init((3, 3, 2), 0.1, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(W_2 @ W_2.T, 0.01 * torch.eye(2, dtype=torch.float64))
    True
    """
    dims, eps = _dims(dims), _checks.positive("eps", eps)
    Ws = []
    for cols, rows in pairwise(dims):
        tall = (max(rows, cols), min(rows, cols))
        G = _sample(torch.randn, tall, generator=generator, dtype=dtype, device=device)
        Q, R = torch.linalg.qr(G)
        Q = Q * torch.sign(R.diagonal())
        Ws.append(eps * (Q if rows >= cols else Q.T).contiguous())
    return Ws


def _rescaled(draw, dims, eps, *, generator, dtype, device) -> list[Tensor]:
    dims, eps = _dims(dims), _checks.positive("eps", eps)
    Ws = []
    for cols, rows in pairwise(dims):
        W = _sample(draw, (rows, cols), generator=generator, dtype=dtype, device=device)
        Ws.append(W * (eps * min(rows, cols) ** 0.5 / torch.linalg.norm(W)))
    return Ws


def gaussian_init(
    dims: Sequence[int],
    eps: float,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    r"""Draw Gaussian layers with the Frobenius norm of ``eps``-orthogonal ones.

    Each layer is rescaled so that :math:`\|W_l\|_F = \varepsilon\sqrt{\min(d_l, d_{l-1})}`
    holds exactly, not only on average: what differs from `orthogonal_init` is the shape of the
    spectrum alone.

    Parameters
    ----------
    dims : sequence of int
        Widths ``(d_0, ..., d_L)``; layer l has shape ``(d_l, d_{l-1})``.
    eps : float
        Root mean square of each layer's singular values.
    generator : torch.Generator, optional
        Source of randomness; torch's global one if absent.
    dtype, device
        Of the result. The numbers are drawn on the generator's device and then moved.

    Returns
    -------
    list of Tensor
        ``[W_1, ..., W_L]``.

    Raises
    ------
    TypeError, ValueError
        As in `orthogonal_init`.

    Examples
    --------
    >>> (W,) = gaussian_init((4, 9), 0.5, generator=torch.Generator().manual_seed(0))
    >>> round(torch.linalg.norm(W).item(), 12)  # 0.5 * sqrt(4)
    1.0
    """
    return _rescaled(torch.randn, dims, eps, generator=generator, dtype=dtype, device=device)


def uniform_init(
    dims: Sequence[int],
    eps: float,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    r"""Draw layers uniform on a centred interval, with the norm of ``eps``-orthogonal ones.

    Parameters
    ----------
    dims : sequence of int
        Widths ``(d_0, ..., d_L)``; layer l has shape ``(d_l, d_{l-1})``.
    eps : float
        Root mean square of each layer's singular values.
    generator : torch.Generator, optional
        Source of randomness; torch's global one if absent.
    dtype, device
        Of the result. The numbers are drawn on the generator's device and then moved.

    Returns
    -------
    list of Tensor
        ``[W_1, ..., W_L]``, each with :math:`\|W_l\|_F = \varepsilon\sqrt{\min(d_l, d_{l-1})}`.

    Raises
    ------
    TypeError, ValueError
        As in `orthogonal_init`.

    Examples
    --------
    >>> (W,) = uniform_init((4, 9), 0.5, generator=torch.Generator().manual_seed(0))
    >>> round(torch.linalg.norm(W).item(), 12)
    1.0
    """

    def draw(*shape, **kwargs):
        return 2 * torch.rand(*shape, **kwargs) - 1

    return _rescaled(draw, dims, eps, generator=generator, dtype=dtype, device=device)


def aligned_init(
    Phi: Tensor, L: int, eps: float, *, generator: torch.Generator | None = None
) -> list[Tensor]:
    r"""Draw an ``eps``-orthogonal start whose product is aligned with the target.

    With :math:`\Phi = U S V^\top` in full, layer l is :math:`\varepsilon R_{l+1} R_l^\top` with
    :math:`R_1 = V`, :math:`R_{L+1} = U` and Haar matrices between. The product is then diagonal
    in the target's singular vectors, and training never couples them.

    Parameters
    ----------
    Phi : Tensor, shape (d_y, d)
        Target, ``d_y <= d``; it gives dtype and device.
    L : int
        Depth, the number of layers.
    eps : float
        Initialisation scale.
    generator : torch.Generator, optional
        Source of randomness; torch's global one if absent.

    Returns
    -------
    list of Tensor
        ``[W_1, ..., W_L]``, ``(d, d)`` each but the last, ``(d_y, d)``.

    Raises
    ------
    TypeError, ValueError
        If ``Phi`` is no finite floating-point matrix or has more rows than columns, ``L < 1``,
        or ``eps <= 0``.

    References
    ----------
    Saxe, McClelland and Ganguli (2013), arXiv:1312.6120.

    Examples
    --------
    >>> Phi = torch.diag(torch.tensor([-2.0, 1.0]))
    >>> Ws = aligned_init(Phi, 3, 0.1)
    >>> [round(w, 6) for w in end_to_end(Ws).diagonal().tolist()]  # 0.1^3, with Phi's signs
    [-0.001, 0.001]
    """
    L, eps = _checks.count("L", L, at_least=1), _checks.positive("eps", eps)
    d_y, d = _checks.matrix("Phi", Phi).shape
    if d_y > d:
        raise ValueError(f"Phi: wanted d_y <= d, got shape {tuple(Phi.shape)}")
    U, _, Vh = torch.linalg.svd(Phi)
    kind = dict(generator=generator, dtype=Phi.dtype, device=Phi.device)
    turns = [Vh.T, *(orthogonal_init((d, d), 1.0, **kind)[0] for _ in range(L - 1))]
    Ws = [eps * after @ before.T for before, after in pairwise(turns)]
    return [*Ws, eps * U @ turns[-1][:, :d_y].T]


def layer_outputs(Ws: Sequence[Tensor], X: Tensor) -> list[Tensor]:
    r"""Return the input and what every layer makes of it.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers; ``W_l`` has shape ``(d_l, d_{l-1})``.
    X : Tensor, shape (d_0, N)
        Samples in columns.

    Returns
    -------
    list of Tensor
        ``[X, W_1 X, W_2 W_1 X, ..., W_L ... W_1 X]``: L + 1 matrices, the l-th ``(d_l, N)``.

    Raises
    ------
    TypeError, ValueError
        If a layer or ``X`` is no finite floating-point matrix, or shapes do not follow.

    Examples
    --------
    >>> twice = 2 * torch.eye(1)
    >>> [Z.item() for Z in layer_outputs([twice, twice], torch.ones(1, 1))]
    [1.0, 2.0, 4.0]
    """
    Ws = _checks.layers("Ws", Ws)
    _checks.same_kind("X", _checks.matrix("X", X), "Ws[0]", Ws[0])
    if X.shape[0] != Ws[0].shape[1]:
        raise ValueError(f"X: wanted {Ws[0].shape[1]} rows, got shape {tuple(X.shape)}")
    outputs = [X]
    for W in Ws:
        outputs.append(W @ outputs[-1])
    return outputs


def end_to_end(Ws: Sequence[Tensor]) -> Tensor:
    r"""Multiply the layers: :math:`W_{L:1} = W_L \cdots W_1`.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers; ``W_l`` has shape ``(d_l, d_{l-1})``.

    Returns
    -------
    Tensor, shape (d_L, d_0)
        The one matrix that the network computes.

    Raises
    ------
    TypeError, ValueError
        If a layer is no finite floating-point matrix, or shapes do not follow.

    Examples
    --------
    >>> W_1, W_2 = torch.eye(3)[:2], torch.tensor([[2.0, 5.0]])
    >>> end_to_end([W_1, W_2])
    tensor([[2., 5., 0.]])
    """
    Ws = _checks.layers("Ws", Ws)
    return layer_outputs(Ws[1:], Ws[0])[-1] if len(Ws) > 1 else Ws[0]


class LossAndGradients(NamedTuple):
    """The loss, and its gradient in every layer in the order of the layers."""

    loss: Tensor
    grads: list[Tensor]


def gradients(Ws: Sequence[Tensor], residual: Residual) -> LossAndGradients:
    r"""Differentiate a loss of the end-to-end matrix with respect to every layer.

    With :math:`R = \nabla\ell(W_{L:1})` the chain rule gives
    :math:`\nabla_l = (W_L \cdots W_{l+1})^\top R\,(W_{l-1} \cdots W_1)^\top`. One pass forms the
    prefixes :math:`W_{l:1}`, one reverse sweep :math:`S \leftarrow W_l^\top S` starts from
    ``S = R`` and leaves :math:`\nabla_l = S\,W_{l-1:1}^\top` on its way: 3(L - 1) products of
    matrices in all, as many as automatic differentiation makes, with nothing recorded.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers; ``W_l`` has shape ``(d_l, d_{l-1})``.
    residual : callable
        Takes ``W`` of shape ``(d_L, d_0)``; returns the loss (a scalar tensor) and its gradient
        in ``W``. `losses` makes some.

    Returns
    -------
    LossAndGradients
        ``loss`` and ``grads``, the latter with the shapes of ``Ws``.

    Raises
    ------
    TypeError, ValueError
        If the shapes of the layers do not follow, or the residual's gradient has another.

    References
    ----------
    Saxe, McClelland and Ganguli (2013), arXiv:1312.6120, the equation of motion.

    Examples
    --------
    >>> Ws = [torch.tensor([[3.0]]), torch.tensor([[2.0]])]
    >>> loss, grads = gradients(Ws, lambda W: (0.5 * (W - 7) ** 2, W - 7))
    >>> loss.item(), [g.item() for g in grads]  # W = 6, residual -1
    (0.5, [-2.0, -3.0])
    """
    Ws = _checks.chain("Ws", Ws)  # not their values: a run that diverges ends by its loss
    prefixes = Ws[:1]
    for W in Ws[1:]:
        prefixes.append(W @ prefixes[-1])
    loss, S = residual(prefixes[-1])
    if S.shape != prefixes[-1].shape:
        raise ValueError(
            f"residual: wanted a gradient of shape {tuple(prefixes[-1].shape)}, "
            f"got {tuple(S.shape)}"
        )
    grads = []
    for W, prefix in zip(reversed(Ws), reversed(prefixes[:-1]), strict=False):
        grads.append(S @ prefix.T)
        S = W.T @ S
    grads.append(S)
    return LossAndGradients(loss, grads[::-1])
