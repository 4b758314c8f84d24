r"""Networks as lists of matrices: what they compute, and the way to torch's modules and back.

``Ws = [W_1, ..., W_L]`` act from the left on samples in columns; ``W_l`` has shape
``(d_l, d_{l-1})``, or ``(..., d_l, d_{l-1})`` for several runs side by side that share every call.
``activations`` names what stands behind each layer: a function of features, or None behind a
linear one; without it all layers are linear.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lop_utils import _checks

__all__ = [
    "Activation",
    "batch_norm_relu",
    "end_to_end",
    "fix_statistics",
    "forward",
    "from_torch",
    "stack",
    "to_torch",
]

Activation = Callable[[Tensor], Tensor] | None
"""What stands behind a layer: features in, features of the same shape out; or nothing."""


def end_to_end(Ws: Sequence[Tensor]) -> Tensor:
    r"""Return the product of the layers, :math:`W_{L:1} = W_L \cdots W_1`.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers.

    Returns
    -------
    Tensor, shape (..., d_L, d_0)
        The one matrix that a linear network computes; a new tensor also where L = 1.

    Examples
    --------
    >>> W_1, W_2 = torch.eye(3)[:2], torch.tensor([[2.0, 5.0]])
    >>> end_to_end([W_1, W_2])
    tensor([[2., 5., 0.]])
    """
    first, *others = _checks.layers("Ws", Ws, runs=True)
    product = first.clone()
    for W in others:
        product = W @ product
    return _checks.held("Ws", product, "layers with a product")


def _one_each(activations: Sequence[Activation] | None, L: int) -> Sequence[Activation]:
    activations = [None] * L if activations is None else activations
    if len(activations) != L:
        raise ValueError(
            f"activations: wanted one behind each of L = {L} layers, got {len(activations)}"
        )
    return activations


def _inputs(Ws: Sequence[Tensor], X: Tensor) -> tuple[list[Tensor], Tensor]:
    Ws, X = _checks.layers("Ws", Ws, runs=True), _checks.matrix("X", X)
    _checks.same_kind("X", X, "Ws[0]", Ws[0])
    if X.shape[0] != Ws[0].shape[-1]:
        raise ValueError(f"X: wanted {Ws[0].shape[-1]} rows, got shape {tuple(X.shape)}")
    return Ws, X


def _features(Ws: Sequence[Tensor], X: Tensor, activations: Sequence[Activation]) -> list[Tensor]:
    outputs = [X]
    for W, activation in zip(Ws, activations, strict=True):
        Z = W @ outputs[-1]
        outputs.append(Z if activation is None else activation(Z))
    return outputs


def forward(
    Ws: Sequence[Tensor], X: Tensor, activations: Sequence[Activation] | None = None
) -> list[Tensor]:
    r"""Return the input and the features of every layer, :math:`Z_l = \sigma_l(W_l Z_{l-1})`.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers.
    X : Tensor, shape (d_0, N)
        Samples in columns.
    activations : sequence of callable or None, optional
        One behind each layer.

    Returns
    -------
    list of Tensor
        L + 1 of them: ``X``, then ``(..., d_l, N)`` each.

    Raises
    ------
    TypeError, ValueError
        If shapes, dtypes or devices do not fit, or an entry is not finite.

    Examples
    --------
    >>> Ws, X = [-torch.eye(1), 3 * torch.eye(1)], torch.tensor([[-2.0, 1.0]])
    >>> [Z.tolist() for Z in forward(Ws, X, [torch.relu, None])[1:]]
    [[[2.0, 0.0]], [[6.0, 0.0]]]
    """
    Ws, X = _inputs(Ws, X)
    outputs = _features(Ws, X, _one_each(activations, len(Ws)))
    return [_checks.held("Ws", Z, "layers with features") for Z in outputs]


def _standardised_relu(Z: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    return torch.relu((Z - mean) / spread) * (2 / Z.shape[-2]) ** 0.5


def _statistics(Z: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(Z, dim=-1, keepdim=True, correction=0)
    return mean, (variance + 1e-10).sqrt()  # a feature that never varies stays zero


def batch_norm_relu(Z: Tensor) -> Tensor:
    r"""Return features standardised over the samples at hand, then rectified.

    .. math:: \sigma(Z)_{ji} = \sqrt{2/d}\;\max\Bigl(0, \frac{Z_{ji} - m_j}{s_j}\Bigr)

    with the mean :math:`m_j` of row j and :math:`s_j^2` its variance plus :math:`10^{-10}`. The
    factor gives a sample the length 1 on average, so that the step size need not know the width d.

    Parameters
    ----------
    Z : Tensor, shape (..., d, N)
        Features before the activation.

    Returns
    -------
    Tensor, shape (..., d, N)

    References
    ----------
    Ioffe and Szegedy (2015), arXiv:1502.03167, without trained shift and scale.

    Examples
    --------
    >>> batch_norm_relu(torch.tensor([[1.0, 3.0], [0.0, 4.0]]))
    tensor([[0., 1.],
            [0., 1.]])
    """
    # In training, where features have a graph, nothing is checked on the way.
    if not (isinstance(Z, Tensor) and Z.requires_grad):
        Z = _checks.features("Z", Z)
    mean, spread = _statistics(Z)
    if not Z.requires_grad:
        _checks.held("Z", spread, "features with a variance")
    return _standardised_relu(Z, mean, spread)


def fix_statistics(
    Ws: Sequence[Tensor], X: Tensor, activations: Sequence[Activation]
) -> list[Activation]:
    """Return the activations with the means and deviations of given samples put in.

    What a trained network makes of one sample should not depend on which others are looked at
    with it: fix the statistics of each `batch_norm_relu` on the training set, then measure.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers.
    X : Tensor, shape (d_0, N)
        Samples whose statistics are taken, layer by layer.
    activations : sequence of callable or None
        One behind each layer.

    Returns
    -------
    list of callable or None
        With other activations left as they are.

    Raises
    ------
    TypeError, ValueError
        As `forward`.

    Examples
    --------
    >>> Ws, X = [torch.eye(1)], torch.tensor([[1.0, 3.0]])
    >>> fixed = fix_statistics(Ws, X, [batch_norm_relu])
    >>> round(forward(Ws, torch.tensor([[4.0]]), fixed)[-1].item() ** 2, 4)  # ((4 - 2) / 1)^2 * 2
    8.0
    """
    Ws, Z = _inputs(Ws, X)
    fixed: list[Activation] = []
    for W, activation in zip(Ws, _one_each(activations, len(Ws)), strict=True):
        before = W @ Z
        if activation is batch_norm_relu:
            mean, spread = _statistics(before)
            _checks.held("Ws", spread, "layers with a variance of features")
            activation = partial(_standardised_relu, mean=mean, spread=spread)
        fixed.append(activation)
        Z = before if activation is None else activation(before)
    return fixed


def stack(runs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return networks of the same shape as one, with a leading axis of runs.

    Parameters
    ----------
    runs : sequence of sequence of Tensor
        B networks, each ``[W_1, ..., W_L]``.

    Returns
    -------
    list of Tensor
        L of them, the l-th of shape ``(B, d_l, d_{l-1})``.

    Examples
    --------
    >>> [W.shape for W in stack([[torch.ones(2, 3)], [torch.zeros(2, 3)]])]
    [torch.Size([2, 2, 3])]
    """
    runs = [_checks.layers(f"runs[{b}]", Ws) for b, Ws in enumerate(runs)]
    if not runs:
        raise ValueError("runs: wanted at least one network, got none")
    for b, Ws in enumerate(runs):
        if len(Ws) != len(runs[0]):
            raise ValueError(
                f"runs[{b}]: wanted L = {len(runs[0])} layers as runs[0], got {len(Ws)}"
            )
        for l, (W, first) in enumerate(zip(Ws, runs[0], strict=True)):
            _checks.fits(f"runs[{b}][{l}]", W, first.shape, f"runs[0][{l}]", first)
    return [torch.stack(Ws) for Ws in zip(*runs, strict=True)]


class _OnColumns(nn.Module):
    """A function of features in columns, as a module between torch's rows."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: Tensor) -> Tensor:
        return self.function(rows.mT).mT


def to_torch(
    Ws: Sequence[Tensor], activations: Sequence[Activation] | None = None
) -> nn.Sequential:
    """Return the network as torch's modules, which take samples as rows.

    Its ``state_dict()`` loads into a Sequential of the same Linear layers and activations.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers of one run; copied.
    activations : sequence of callable or None, optional
        One behind each layer; a module is used as it is.

    Returns
    -------
    Sequential
        Linear layers without bias, and what stands behind them.

    Examples
    --------
    >>> model = to_torch([torch.eye(2), torch.ones(1, 2)], [torch.relu, None])
    >>> model(torch.tensor([[3.0, -1.0]]))
    tensor([[3.]], grad_fn=<MmBackward0>)
    """
    Ws, modules = _checks.layers("Ws", Ws), []
    for W, activation in zip(Ws, _one_each(activations, len(Ws)), strict=True):
        linear = nn.Linear(W.shape[1], W.shape[0], bias=False, device="meta")  # draws nothing
        linear.weight = nn.Parameter(W.detach().clone())
        modules.append(linear)
        if activation is not None:
            known = isinstance(activation, nn.Module)
            modules.append(activation if known else _OnColumns(activation))
    return nn.Sequential(*modules)


def from_torch(model: nn.Module | Mapping[str, Tensor]) -> list[Tensor]:
    """Return the layers of a model without biases, or of its ``state_dict()``, in their order.

    Parameters
    ----------
    model : Module or mapping of str to Tensor
        A Sequential of Linear layers, say.

    Returns
    -------
    list of Tensor
        ``[W_1, ..., W_L]``, copied.

    Raises
    ------
    TypeError, ValueError
        If it holds anything but weights of Linear layers that follow one another.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> [tuple(W.shape) for W in from_torch(model)]
    [(2, 3), (1, 2)]
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(state, Mapping):
        raise TypeError(f"model: wanted a module or its state_dict, got {type(model).__name__}")
    if others := [name for name in state if name.rpartition(".")[2] != "weight"]:
        raise ValueError(f"model: wanted weights of linear layers alone, got {', '.join(others)}")
    return [W.detach().clone() for W in _checks.layers("model", list(state.values()))]
