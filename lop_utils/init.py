r"""How layers start: orthogonal, Gaussian, uniform, aligned with a target, or in its spectrum.

Each function returns new layers ``[W_1, ..., W_L]``, of shapes ``(d_l, d_{l-1})``, at a scale
``eps`` that is passed, never guessed. ``generator`` is a `torch.Generator` or a seed; without one
torch's global generator draws. One seed gives the same numbers on every device.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = [
    "aligned",
    "gaussian",
    "orthogonal",
    "spectral",
    "uniform",
]


def _checked(dims: Sequence[int]) -> list[int]:
    try:
        dims = list(dims)
    except TypeError:
        raise TypeError(f"dims: wanted a sequence of whole numbers, got {dims!r}") from None
    dims = [_checks.count(f"dims[{i}]", d, at_least=1) for i, d in enumerate(dims)]
    if len(dims) < 2:
        raise ValueError(f"dims: wanted (d_0, ..., d_L) with L >= 1, got {tuple(dims)}")
    return dims


def _scaled(eps: float, dtype: torch.dtype) -> float:
    """Return a scale at which entries of a layer are neither lost nor rounded more than others."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype: wanted float32 or float64, got {dtype}")
    info = torch.finfo(dtype)
    if not (least := info.tiny / info.eps) <= (eps := _checks.positive("eps", eps)) <= 1 / least:
        wanted = f"{least:.1e} <= eps <= {1 / least:.1e} in {dtype}"
        raise ValueError(f"eps: wanted {wanted}, got {eps:g}")
    return eps


def _drawn(draw: Callable[..., Tensor], shapes, generator, dtype, device) -> list[Tensor]:
    generator = _checks.seeded(generator)
    # A generator draws on its own device only; drawing there and moving afterwards makes one
    # seed give one matrix on every device.
    source = "cpu" if generator is None else generator.device
    kind = dict(generator=generator, dtype=dtype, device=source)
    return [draw(*shape, **kind).to(device or source) for shape in shapes]


def orthogonal(
    dims: Sequence[int],
    eps: float,
    *,
    generator: torch.Generator | int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    r"""Return ``eps``-orthogonal layers, drawn from the Haar measure.

    Each satisfies :math:`W_l^\top W_l = \varepsilon^2 I` or :math:`W_l W_l^\top = \varepsilon^2 I`,
    as its shape allows. The QR factor of a Gaussian matrix is Haar once R's signs are in Q.

    Parameters
    ----------
    dims : sequence of int
        Widths ``(d_0, ..., d_L)``.
    eps : float
        Every singular value of every layer.
    generator, dtype, device
        Where the numbers come from, and what they are to be.

    Returns
    -------
    list of Tensor

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154; Mezzadri (2007), arXiv:math-ph/0609050, for the signs.

    Examples
    --------
    >>> W_1, W_2 = orthogonal((3, 3, 2), 0.1, generator=0)
    >>> torch.allclose(W_2 @ W_2.T, 0.01 * torch.eye(2, dtype=torch.float64))
    True
    """
    dims, eps = _checked(dims), _scaled(eps, dtype)
    tall = [(max(shape), min(shape)) for shape in pairwise(dims)]
    Ws = []
    for G, (cols, rows) in zip(
        _drawn(torch.randn, tall, generator, dtype, device), pairwise(dims), strict=True
    ):
        Q, R = torch.linalg.qr(G)
        Q = Q * torch.sign(R.diagonal())
        Ws.append(eps * (Q if rows >= cols else Q.T).contiguous())
    return Ws


def _rescaled(draw, dims, eps, generator, dtype, device) -> list[Tensor]:
    dims, eps = _checked(dims), _scaled(eps, dtype)
    shapes = [(rows, cols) for cols, rows in pairwise(dims)]
    Ws = _drawn(draw, shapes, generator, dtype, device)
    return [W * (eps * min(W.shape) ** 0.5 / torch.linalg.norm(W)) for W in Ws]


def gaussian(
    dims: Sequence[int],
    eps: float,
    *,
    generator: torch.Generator | int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    r"""Return Gaussian layers with the Frobenius norm of ``eps``-orthogonal ones.

    Each is rescaled so that :math:`\|W_l\|_F = \varepsilon\sqrt{\min(d_l, d_{l-1})}` holds
    exactly, not only on average: what differs from `orthogonal` is the shape of the spectrum.

    Parameters
    ----------
    dims, eps, generator, dtype, device
        As of `orthogonal`; ``eps`` is the root mean square of each layer's singular values.

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> (W,) = gaussian((4, 9), 0.5, generator=0)
    >>> round(torch.linalg.norm(W).item(), 12)  # 0.5 * sqrt(4)
    1.0
    """
    return _rescaled(torch.randn, dims, eps, generator, dtype, device)


def uniform(
    dims: Sequence[int],
    eps: float,
    *,
    generator: torch.Generator | int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    r"""Return layers uniform on a centred interval, with the norm of `gaussian` ones.

    Parameters
    ----------
    dims, eps, generator, dtype, device
        As of `gaussian`.

    Returns
    -------
    list of Tensor

    Examples
    --------
    >>> (W,) = uniform((4, 9), 0.5, generator=0)
    >>> round(torch.linalg.norm(W).item(), 12)
    1.0
    """
    centred = lambda *shape, **kind: 2 * torch.rand(*shape, **kind) - 1  # noqa: E731
    return _rescaled(centred, dims, eps, generator, dtype, device)


def aligned(
    Phi: Tensor, L: int, eps: float, *, generator: torch.Generator | int | None = None
) -> list[Tensor]:
    r"""Return ``eps``-orthogonal layers whose product is aligned with the target.

    With :math:`\Phi = U S V^\top` in full, layer l is :math:`\varepsilon R_{l+1} R_l^\top` with
    :math:`R_1 = V`, :math:`R_{L+1} = U` and Haar matrices between. The product is then diagonal
    in the target's singular vectors, and training never couples them.

    Parameters
    ----------
    Phi : Tensor, shape (d_y, d)
        Target, ``d_y <= d``; it gives dtype and device.
    L, eps, generator
        Depth; the others as of `orthogonal`.

    Returns
    -------
    list of Tensor
        ``(d, d)`` each but the last, ``(d_y, d)``.

    References
    ----------
    Saxe, McClelland and Ganguli (2013), arXiv:1312.6120.

    Examples
    --------
    >>> W_1, W_2, W_3 = aligned([[-2.0, 0.0], [0.0, 1.0]], 3, 0.1)
    >>> [round(w, 6) for w in (W_3 @ W_2 @ W_1).diagonal().tolist()]  # 0.1^3, with Phi's signs
    [-0.001, 0.001]
    """
    L, Phi = _checks.count("L", L, at_least=1), _checks.matrix("Phi", Phi)
    eps = _scaled(eps, Phi.dtype)
    d_y, d = Phi.shape
    if d_y > d:
        raise ValueError(f"Phi: wanted d_y <= d, got shape {tuple(Phi.shape)}")
    U, _, Vh = torch.linalg.svd(Phi)
    kind = dict(generator=_checks.seeded(generator), dtype=Phi.dtype, device=Phi.device)
    turns = [Vh.T, *(orthogonal((d, d), 1.0, **kind)[0] for _ in range(L - 1))]
    Ws = [eps * after @ before.T for before, after in pairwise(turns)]
    return [*Ws, eps * U @ turns[-1][:, :d_y].T]


def spectral(M: Tensor, k: int, L: int, eps: float) -> list[Tensor]:
    r"""Return a narrow network in the leading singular vectors of a surrogate: scheme (B).

    The layers are :math:`\varepsilon V_k^\top, \varepsilon I, \dots, \varepsilon I,
    \varepsilon U_k`. The surrogate M is the target itself in factorisation,
    :math:`\frac1p\,\Omega\odot\Phi` in completion, :math:`\frac1m\sum_i y_i A_i` in sensing with
    m Gaussian matrices of unit entries.

    Parameters
    ----------
    M : Tensor, shape (d_y, d_x)
        Surrogate of the target.
    k, L, eps : int, int, float
        Width, in the papers twice the rank; depth, at least 2; scale of every layer.

    Returns
    -------
    list of Tensor

    References
    ----------
    Kwon et al. (2024), arXiv:2311.05061.

    Examples
    --------
    >>> W_1, W_2 = spectral([[1.0, 0.0], [0.0, 3.0]], k=1, L=2, eps=0.1)
    >>> (W_2 @ W_1).abs()  # eps^2 u v^T
    tensor([[0.0000, 0.0000],
            [0.0000, 0.0100]], dtype=torch.float64)
    """
    L, M = _checks.count("L", L, at_least=2), _checks.matrix("M", M)
    eps = _scaled(eps, M.dtype)
    if (k := _checks.count("k", k, at_least=1)) > min(M.shape):
        raise ValueError(f"k: wanted at most {min(M.shape)}, got {k}")
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    inner = [eps * torch.eye(k, dtype=M.dtype, device=M.device) for _ in range(L - 2)]
    return [eps * Vh[:k].contiguous(), *inner, eps * U[:, :k]]


def _sampled_spectral(
    two_layers: Callable, P: Tensor, Q: Tensor, L: int, eps: float, *, iterations: int = 20
) -> tuple[list[Tensor], Tensor]:
    r"""Return the start of `spectral` from a sample, and k singular values, through its loss alone.

    With one factor zero a loss of ``[Q, P]`` from `factored` has as its gradient the observed
    matrix itself, :math:`R = -\Omega\odot\Phi`, times a tall or a wide matrix, of which subspace
    iteration consists (Halko, Martinsson and Tropp, 2011, arXiv:0909.4061). Nothing is held that
    the steps of training do not hold too. P, (d_y, k), gives a shape, Q, (k, d_x), is random;
    vectors are found to the power 2 iterations of the ratio of neighbouring singular values.
    """
    L, P, Q = _checks.count("L", L, at_least=2), _checks.matrix("P", P), _checks.matrix("Q", Q)
    eps = _scaled(eps, P.dtype)
    nothing, none = torch.zeros_like(P), torch.zeros_like(Q)
    for _ in range(_checks.count("iterations", iterations, at_least=1)):
        V = torch.linalg.qr(Q.T).Q
        MV = -two_layers([V.T.contiguous(), nothing])[1][1]
        Q = -two_layers([none, MV])[1][0]
    # M V = U s T^T has the Gram matrix V^T M^T M V, of which each machine holds all.
    squares, T = torch.linalg.eigh(Q @ V)
    s, T = squares.clamp(min=0).sqrt().flip(0), T.flip(1)
    # A direction that the sample does not see at all starts at zero on one side.
    unseen = s <= 10 * torch.finfo(s.dtype).eps ** 0.5 * s[0]  # eigh saw the squares
    inverse = torch.where(unseen, 0.0, 1 / s)
    eye = torch.eye(len(s), dtype=s.dtype, device=s.device)
    first, last = eps * (V @ T).T.contiguous(), eps * (MV @ T * inverse)
    return [first, *(eps * eye for _ in range(L - 2)), last], s
