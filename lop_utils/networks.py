r"""Networks with nonlinear layers, one or many at once, and their training.

A network is a list of matrices ``Ws`` as in `dln`, with one activation behind each; a leading
axis of the matrices holds runs that differ in seed or scale and share every call.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.checkpoints import Iterate

__all__ = [
    "Activation",
    "batch_norm_relu",
    "fix_statistics",
    "forward",
    "linear",
    "stack_runs",
    "train",
]

Activation = Callable[[Tensor], Tensor]
"""What stands behind a layer: features in, features of the same shape out."""


def linear(Z: Tensor) -> Tensor:
    """Return the features as they are: the activation of a linear layer.

    Parameters
    ----------
    Z : Tensor
        Features.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> linear(torch.tensor([-1.0]))
    tensor([-1.])
    """
    return Z


def _standardised_relu(Z: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    return torch.relu((Z - mean) / spread) * (2 / Z.shape[-2]) ** 0.5


def _statistics(Z: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(Z, dim=-1, keepdim=True, correction=0)
    return mean, (variance + 1e-10).sqrt()  # a feature that never varies stays zero


def batch_norm_relu(Z: Tensor) -> Tensor:
    r"""Standardise each feature over the samples at hand, then apply ReLU.

    .. math:: \sigma(Z)_{ji} = \sqrt{2/d}\;\max\Bigl(0, \frac{Z_{ji} - m_j}{s_j}\Bigr)

    with the mean :math:`m_j` and the standard deviation :math:`s_j` of row j. The factor gives
    a sample the length 1 on average, so that the step size need not know the width d.

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
    return _standardised_relu(Z, *_statistics(Z))


def fix_statistics(
    Ws: Sequence[Tensor], X: Tensor, activations: Sequence[Activation]
) -> list[Activation]:
    """Replace each `batch_norm_relu` by one with the means and deviations of given samples.

    What a trained network makes of one sample should not depend on which others are looked at
    with it: fix the statistics on the training set, then measure anything.

    Parameters
    ----------
    Ws : sequence of Tensor, shape (d_l, d_{l-1}) or (B, d_l, d_{l-1}) each
        Layers.
    X : Tensor, shape (d_0, N)
        Samples whose statistics are taken, layer by layer.
    activations : sequence of callable
        One behind each layer.

    Returns
    -------
    list of callable
        With other activations left as they are.

    Raises
    ------
    TypeError, ValueError
        If the shapes, dtypes or devices do not fit, or an entry is not finite.

    Examples
    --------
    >>> Ws, X = [torch.eye(1)], torch.tensor([[1.0, 3.0]])
    >>> fixed = fix_statistics(Ws, X, [batch_norm_relu])
    >>> round(forward(Ws, torch.tensor([[4.0]]), fixed)[-1].item() ** 2, 4)  # ((4 - 2) / 1)^2 * 2
    8.0
    """
    Ws = _network(Ws, activations)
    Z, fixed = _inputs(X, Ws), []
    for W, activation in zip(Ws, activations, strict=True):
        before = W @ Z
        if activation is batch_norm_relu:
            mean, spread = _statistics(before)
            activation = partial(_standardised_relu, mean=mean, spread=spread)
        fixed.append(activation)
        Z = activation(before)
    return fixed


def stack_runs(runs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Put networks of the same shape into one, with a leading axis of runs.

    Parameters
    ----------
    runs : sequence of sequence of Tensor
        B networks, each ``[W_1, ..., W_L]``.

    Returns
    -------
    list of Tensor
        L tensors; the l-th of shape (B, d_l, d_{l-1}).

    Raises
    ------
    TypeError, ValueError
        If there is no run, or the networks differ in depth, shapes, dtype or device.

    Examples
    --------
    >>> [W.shape for W in stack_runs([[torch.ones(2, 3)], [torch.zeros(2, 3)]])]
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


def _network(Ws: Sequence[Tensor], activations: Sequence[Activation]) -> list[Tensor]:
    """Return the layers as a list if they follow one another; with or without an axis of runs."""
    if isinstance(Ws, Tensor) or not isinstance(Ws, Sequence):
        raise TypeError(f"Ws: wanted a sequence of tensors, got {type(Ws).__name__}")
    for l, W in enumerate(Ws):
        if not isinstance(W, Tensor):
            raise TypeError(f"Ws[{l}]: wanted a torch.Tensor, got {type(W).__name__}")
        if W.ndim not in (2, 3) or W.shape[:-2] != Ws[0].shape[:-2]:
            raise ValueError(
                f"Ws[{l}]: wanted a matrix, or one for each run as in Ws[0] of shape "
                f"{tuple(Ws[0].shape)}, got shape {tuple(W.shape)}"
            )
        _checks.matrix(f"Ws[{l}]", W.flatten(0, -2))
    _checks.chain("Ws", [W if W.ndim == 2 else W[0] for W in Ws])
    if len(activations) != len(Ws):
        raise ValueError(
            f"activations: wanted one behind each of L = {len(Ws)} layers, got {len(activations)}"
        )
    return list(Ws)


def _inputs(X: Tensor, Ws: Sequence[Tensor]) -> Tensor:
    _checks.same_kind("X", _checks.matrix("X", X), "Ws[0]", Ws[0])
    if X.shape[0] != Ws[0].shape[-1]:
        raise ValueError(f"X: wanted {Ws[0].shape[-1]} rows, got shape {tuple(X.shape)}")
    return X


def _features(Ws: Sequence[Tensor], X: Tensor, activations: Sequence[Activation]) -> list[Tensor]:
    outputs = [X]
    for W, activation in zip(Ws, activations, strict=True):
        outputs.append(activation(W @ outputs[-1]))
    return outputs


def forward(Ws: Sequence[Tensor], X: Tensor, activations: Sequence[Activation]) -> list[Tensor]:
    r"""Return the input and the features of every layer, :math:`z^l = \sigma_l(W_l z^{l-1})`.

    Parameters
    ----------
    Ws : sequence of Tensor, shape (d_l, d_{l-1}) or (B, d_l, d_{l-1}) each
        Layers of one network or of B.
    X : Tensor, shape (d_0, N)
        Samples in columns.
    activations : sequence of callable
        One behind each layer, such as `linear` or ``torch.relu``.

    Returns
    -------
    list of Tensor
        L + 1 tensors: ``X``, then (d_l, N) or (B, d_l, N). `dln.layer_outputs` is the case in
        which all layers are linear.

    Raises
    ------
    TypeError, ValueError
        If the shapes, dtypes or devices do not fit, or an entry is not finite.

    Examples
    --------
    >>> Ws, X = [-torch.eye(1), 3 * torch.eye(1)], torch.tensor([[-2.0, 1.0]])
    >>> [Z.tolist() for Z in forward(Ws, X, [torch.relu, linear])[1:]]
    [[[2.0, 0.0]], [[6.0, 0.0]]]
    """
    Ws = _network(Ws, activations)
    return _features(Ws, _inputs(X, Ws), activations)


def train(
    Ws: Sequence[Tensor] | Iterate,
    X: Tensor,
    Y: Tensor,
    activations: Sequence[Activation],
    *,
    eta: float | Callable[[int], float],
    beta: float = 0.0,
    lam: float = 0.0,
    alpha: float = 1.0,
    batch: int | None = None,
    steps: int,
    every: int = 1,
    generator: torch.Generator | None = None,
) -> Iterator[Iterate]:
    r"""Run gradient descent on :math:`\frac12\|\alpha f(X) - Y\|_F^2`, with momentum, in batches.

    .. math:: M_l \leftarrow \beta M_l + \nabla_l\ell + \lambda W_l, \qquad
              W_l \leftarrow W_l - \eta M_l

    Networks with a leading axis of runs are trained side by side, on the same batches: none of
    them sees the others. Gradients come from automatic differentiation, so that any activation
    will do; for linear layers `descent` has the closed form.

    Parameters
    ----------
    Ws : sequence of Tensor, or Iterate
        Layers at ``t = 0``, (d_l, d_{l-1}) or (B, d_l, d_{l-1}) each; not changed. An iterate of
        this method goes on from there, digit for digit.
    X : Tensor, shape (d_0, N)
        Inputs in columns.
    Y : Tensor, shape (d_L, N)
        Labels in columns.
    activations : sequence of callable
        One behind each layer.
    eta : float or callable
        Step size, for a loss that sums over samples and entries; or what gives the step size
        of step t.
    beta : float
        Momentum, from 0 to below 1.
    lam : float
        Weight decay.
    alpha : float
        Factor at the output.
    batch : int, optional
        Samples a step, drawn without replacement; their gradient is scaled by N / batch. All of
        them if absent.
    steps : int
        Number of steps from ``t = 0``.
    every : int
        Yield when ``t`` is a multiple of it, and at the first and the last step.
    generator : torch.Generator, optional
        Source of the batches, on the CPU; torch's global one if absent.

    Yields
    ------
    Iterate
        Its loss has shape () or (B,), and is that of the batch that comes next.

    Raises
    ------
    TypeError, ValueError
        At the call, if an argument is out of range or the shapes do not fit.
    FloatingPointError
        While running, if a loss that is yielded is no longer finite; names the step and ``eta``.

    Examples
    --------
    >>> one = [torch.ones(1, 1), torch.ones(1, 1)]
    >>> data = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    >>> run = train(one, *data, [torch.relu, linear], eta=0.1, steps=2)
    >>> [round(it.loss.item(), 3) for it in run]
    [0.5, 0.312, 0.175]
    """
    earlier = Ws if isinstance(Ws, Iterate) else None
    Ws = [W.detach().clone() for W in _network(earlier.Ws if earlier else Ws, activations)]
    N = _inputs(X, Ws).shape[1]
    _checks.fits("Y", _checks.matrix("Y", Y), (Ws[-1].shape[-2], N), "X", X)
    fixed = eta if callable(eta) else _checks.positive("eta", eta)
    rate = eta if callable(eta) else lambda t: fixed
    alpha = _checks.positive("alpha", alpha)
    lam, steps = _checks.nonnegative("lam", lam), _checks.count("steps", steps)
    every = _checks.count("every", every, at_least=1)
    if not _checks.nonnegative("beta", beta) < 1:
        raise ValueError(f"beta: wanted 0 <= beta < 1, got {beta!r}")
    if batch is not None and _checks.count("batch", batch, at_least=1) > N:
        raise ValueError(f"batch: wanted at most N = {N} samples, got {batch}")
    memory = (earlier.memory if earlier else None) or {}
    wanted = {"velocity"} | ({"generator"} if batch else set())
    if earlier and set(memory) != wanted:
        raise ValueError(
            f"Ws: wanted an iterate of the same method, which remembers {sorted(wanted)}, got one "
            f"that remembers {sorted(memory)}"
        )
    if earlier and steps < earlier.t:
        raise ValueError(f"steps: wanted steps >= t = {earlier.t} of the iterate, got {steps}")
    velocity = [M.clone() for M in memory["velocity"]] if memory else [0 * W for W in Ws]
    source = torch.default_generator if generator is None else generator

    def drawn() -> tuple[Tensor, Tensor, float]:
        if batch is None:
            return X, Y, 1.0
        chosen = torch.randperm(N, generator=source)[:batch].to(X.device)
        return X[:, chosen], Y[:, chosen], N / batch

    def losses(params: list[Tensor], part: tuple[Tensor, Tensor, float]) -> Tensor:
        inputs, labels, weight = part
        gap = alpha * _features(params, inputs, activations)[-1] - labels
        return 0.5 * weight * gap.square().sum((-2, -1))

    def stream() -> Iterator[Iterate]:
        nonlocal Ws
        if batch and memory:
            source.set_state(memory["generator"][0])
        first = earlier.t if earlier else 0
        for t in range(first, steps + 1):
            state = source.get_state() if batch else None
            params = [W.requires_grad_() for W in Ws]
            with torch.enable_grad():
                loss = losses(params, drawn())
                grads = torch.autograd.grad(loss.sum(), params)
            Ws = [W.detach() for W in params]
            if t % every == 0 or t in (first, steps):  # `record` goes on from the first
                if not torch.isfinite(loss).all():
                    raise FloatingPointError(
                        f"loss: wanted a finite number, got {loss.max().item()} at step t = {t} "
                        f"with eta = {rate(t):g}; a smaller eta keeps the run from diverging"
                    )
                kept = {"velocity": [M.clone() for M in velocity]}
                if state is not None:
                    kept["generator"] = [state]
                yield Iterate(t, [W.clone() for W in Ws], loss.detach(), kept)
            if t < steps:
                for W, M, G in zip(Ws, velocity, grads, strict=True):
                    M.mul_(beta).add_(G).add_(W, alpha=lam)
                    W.sub_(M, alpha=rate(t))

    return stream()
