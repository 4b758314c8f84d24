r"""Adapters that gradients shape: their start from the first one, their ranks by all of them.

``linear`` is the layer, ``G`` the gradient of a loss in its weight at the start, ``(d_out, d_in)``,
from `first_gradients`; ``generator`` is a `torch.Generator` or a seed. Of ``adapt`` and what an
adapter is, see `adapters`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lop_utils import _checks, init
from lop_utils.adapters import Adapter, _linear, _matched, _narrow
from lop_utils.compression import compress, low_rank_approximation, with_outer_layers

__all__ = [
    "deep_lora_aligned",
    "deep_lora_compressed",
    "first_gradients",
    "lora_ga",
    "lora_one",
]


def first_gradients(
    model: nn.Module, names: str | Sequence[str], loss: Callable[[nn.Module], Tensor]
) -> dict[str, Tensor]:
    """Return the gradient of a loss in the weight of every Linear layer that a name ends.

    Nothing is left behind: no ``grad``, and what was frozen is frozen again.

    Parameters
    ----------
    model : Module
        Before it is adapted.
    names : str or sequence of str
        As of `adapters.adapt`.
    loss : callable
        Takes the model, returns a number with a graph; the loss of the first batch, say.

    Raises
    ------
    TypeError, ValueError
        If a name is no Linear layer's, or the loss is no finite number that the layers enter.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> first_gradients(model, "0", lambda model: model(torch.tensor([[3.0, 4.0]])).sum())
    {'0': tensor([[3., 4.]])}
    """
    weights = {name: _linear(linear).weight for name, linear in _matched(model, names).items()}
    trained = [(W, W.requires_grad) for W in weights.values()]
    if torch.is_inference_mode_enabled():
        raise RuntimeError("first_gradients: wanted no torch.inference_mode(), it records nothing")
    try:
        for W in weights.values():
            W.requires_grad_(True)
        with torch.enable_grad():
            value = loss(model)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise ValueError("loss: wanted one number with a graph back to the model")
            grads = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    finally:
        for W, flag in trained:
            W.requires_grad_(flag)
    for name, G in zip(weights, grads, strict=True):
        if G is None:
            raise ValueError(f"names: wanted layers that the loss depends on, got {name!r}")
        _checks.matrix(f"gradients[{name!r}]", G)
    return dict(zip(weights, grads, strict=True))


def _descent(linear: nn.Linear, G: Tensor) -> Tensor:
    """Return -G, if it is a gradient in the layer's weight that points anywhere."""
    weight = _linear(linear).weight
    G = _checks.matrix("G", G)
    _checks.fits("G", G, weight.shape, "linear", weight)
    if not G.any():
        raise ValueError("G: wanted a gradient, got zero: it has no directions")
    return -G.detach()


def _directions(linear: nn.Linear, G: Tensor, r: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first k singular triplets of -G, of which r must be there."""
    U, s, Vh = torch.linalg.svd(_descent(linear, G), full_matrices=False)
    rank = int((s > max(G.shape) * torch.finfo(s.dtype).eps * s[0]).sum())
    if rank < r:
        raise ValueError(f"G: wanted a rank of at least r = {r}, got {rank}")
    return U[:, :k], s[:k], Vh[:k]


def lora_one(linear: nn.Linear, G: Tensor, r: int, scale: float, eta: float) -> Adapter:
    r"""Return LoRA-One: a start at one step of descent, :math:`s\,BA = -\eta\,G`, cut to rank r.

    Parameters
    ----------
    linear, G, r, scale
        Layer; first gradient; rank; as of `adapters.lora`.
    eta : float
        Size of the step; both factors get the roots of its singular values.

    References
    ----------
    Zhang, Liu and Chen (2025), arXiv:2502.01235.

    Examples
    --------
    >>> start = lora_one(nn.Linear(2, 2), torch.diag(torch.tensor([3.0, 1.0])), 1, 2.0, eta=0.1)
    >>> torch.allclose(start.delta(), torch.tensor([[-0.3, 0.0], [0.0, 0.0]]))
    True
    """
    r = _narrow("r", r, _linear(linear).weight)
    U, s, Vh = _directions(linear, G, r, r)
    root = (_checks.positive("eta", eta) * s / _checks.positive("scale", scale)).sqrt()
    return Adapter(linear, [root[:, None] * Vh, U * root], scale)


def lora_ga(linear: nn.Linear, G: Tensor, r: int, scale: float, size: float) -> Adapter:
    r"""Return LoRA-GA: A on the first r right singular vectors of G, B on the next r left ones.

    The start is taken from the frozen weight, so that the model computes what it did. The first
    step of descent then changes the weight almost as a step on the full weight would.

    Parameters
    ----------
    linear, G, r, scale
        Layer, of which a copy is changed; first gradient; rank; as of `adapters.lora`.
    size : float
        Singular values of both factors; :math:`(d_{out}/\gamma^2)^{1/4}` in the paper.

    References
    ----------
    Wang, Yu and Li (2024), arXiv:2407.05000.

    Examples
    --------
    >>> layer = nn.Linear(4, 4)
    >>> start = lora_ga(layer, torch.eye(4), 2, 1.0, size=0.5)
    >>> torch.allclose(start.weight, layer.weight, atol=1e-6), start.delta().norm().item() > 0.3
    (True, True)
    """
    weight = _linear(linear).weight
    _narrow("2 r", 2 * _checks.count("r", r, at_least=1), weight)
    U, _, Vh = _directions(linear, G, 2 * r, 2 * r)
    size = _checks.positive("size", size)
    adapter = Adapter(linear, [size * Vh[:r], size * U[:, r:]], scale)
    base = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    base.weight, base.bias = nn.Parameter(weight - adapter.delta()), linear.bias
    return Adapter(base, list(adapter.factors), scale)


def deep_lora_compressed(
    linear: nn.Linear,
    G: Tensor,
    k: int,
    eps: float,
    *,
    L: int = 3,
    generator: torch.Generator | int | None = None,
) -> Adapter:
    r"""Return the compressed Deep LoRA, :math:`W_0 + U\,\tilde W_L \cdots \tilde W_1 V^\top`.

    `compression.compress` reads it off a wide deep update that starts orthogonal, with -G as its
    target: k/2 columns of V are right singular vectors of G, the others images of its left ones
    under the wide start, which is random. The L inner factors start at eps I; the outer two learn
    at a rate of their own, ``ratios=[gamma, 1, ..., 1, gamma]`` of `adapters.parameter_groups`.

    Where a layer is not square, the wide start is an isometry from its smaller side onto a random
    subspace of the larger one that holds the gradient's vectors.

    Parameters
    ----------
    linear, G : Linear and Tensor
        Layer; first gradient.
    k : int
        Width, even, below both sides of the layer.
    eps, L, generator
        Start and number of the inner factors; draws the wide start.

    Raises
    ------
    TypeError, ValueError
        If ``k`` is odd or too large, or ``G`` is zero or does not fit.

    References
    ----------
    Yaras et al. (2024), arXiv:2406.04112.

    Examples
    --------
    >>> start = deep_lora_compressed(nn.Linear(5, 4), torch.eye(4, 5), k=2, eps=1e-3, generator=0)
    >>> [tuple(W.shape) for W in start.factors]
    [(2, 5), (2, 2), (2, 2), (2, 2), (4, 2)]
    """
    Phi, k = _descent(linear, G), _checks.count("k", k, at_least=2)
    d_out, d_in = Phi.shape
    side = min(d_out, d_in)
    if k % 2 or k >= side:
        raise ValueError(f"k: wanted an even number below {side}, got {k}")
    L, kind = _checks.count("L", L, at_least=1), dict(dtype=Phi.dtype, device=Phi.device)
    generator, one = _checks.seeded(generator), torch.eye(side, **kind)
    Phi = low_rank_approximation(Phi, k // 2)
    (A,) = init.orthogonal((side, side), eps, generator=generator, **kind)
    # Directions of the larger side that the wide start knows: the gradient's, and random ones.
    turn = one
    if d_out != d_in:
        U, _, Vh = torch.linalg.svd(Phi, full_matrices=False)
        own = (Vh.T if d_in > d_out else U)[:, : k // 2]
        (more,) = init.orthogonal((side, max(d_out, d_in)), 1.0, generator=generator, **kind)
        turn = torch.linalg.qr(torch.cat([own, more[:, k // 2 :]], 1)).Q
    square = Phi @ turn if d_in > d_out else turn.T @ Phi if d_out > d_in else Phi
    # Layers eps I behind one that is Haar: V and U depend on their product alone.
    small = compress([A, *[eps * one] * (L - 1)], square, k // 2, eps)
    first, *inner, last = with_outer_layers(small)
    if d_in > d_out:
        first = first @ turn.T
    elif d_out > d_in:
        last = turn @ last
    return Adapter(linear, [first, *inner, last])


def deep_lora_aligned(linear: nn.Linear, G: Tensor, k: int, eps: float, *, L: int = 3) -> Adapter:
    r"""Return a compressed Deep LoRA all of whose k directions are the gradient's.

    It is read off a wide start that sends the right singular vectors of -G to its left ones
    (`init.aligned`), where `deep_lora_compressed` has a random one; nothing is drawn.

    Parameters
    ----------
    linear, G, k, eps, L
        As of `deep_lora_compressed`; k may be odd.

    Examples
    --------
    >>> start = deep_lora_aligned(nn.Linear(2, 2), torch.diag(torch.tensor([3.0, 1.0])), 1, 0.1)
    >>> torch.allclose(start.delta(), torch.tensor([[-0.001, 0.0], [0.0, 0.0]]))
    True
    """
    k, L = _narrow("k", k, _linear(linear).weight), _checks.count("L", L, at_least=1)
    U, _, Vh = _directions(linear, G, 1, k)
    inner = init.spectral(torch.eye(k, dtype=U.dtype, device=U.device), k, L + 2, eps)[1:-1]
    return Adapter(linear, [Vh, *inner, U])
