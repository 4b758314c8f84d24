r"""The determinant of two consecutive linear layers, step by step.

Two layers with nothing between them, stacked as :math:`\Theta = [W_l^\top; W_{l+1}]`, of shape
``(d_{l-1} + d_{l+1}, d_l)``. Where B is the gradient in their product :math:`W_{l+1} W_l`, a step
of descent with decay is
:math:`\Theta \leftarrow ((1-\eta\lambda) I - \eta J)\,\Theta` with
:math:`J = \bigl(\begin{smallmatrix} 0 & B^\top \\ B & 0 \end{smallmatrix}\bigr)`, whatever the
data, the loss and the other layers. So
:math:`\log\det\Theta\Theta^\top` changes by
:math:`2 (d_{l-1} + d_{l+1}) \log|1-\eta\lambda| + 2 \sum_i \log|1 - s_i^2|`, s being the singular
values of :math:`\eta B / (1-\eta\lambda)`. ``Ws`` are layers, or those of many runs; ``pair`` is
l, from 1.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.losses import Loss, ValueAndGradients

__all__ = ["DeterminantLaw", "log_det", "theta"]


def _pair(Ws: Sequence[Tensor], pair: int) -> tuple[Tensor, Tensor]:
    if not 1 <= pair < len(Ws):
        raise ValueError(f"pair: wanted 1 <= pair < L = {len(Ws)}, got {pair}")
    return Ws[pair - 1], Ws[pair]


def theta(Ws: Sequence[Tensor], pair: int = 1) -> Tensor:
    r"""Return :math:`\Theta = [W_l^\top; W_{l+1}]`.

    Returns
    -------
    Tensor, shape (..., d_{l-1} + d_{l+1}, d_l)

    Raises
    ------
    TypeError, ValueError
        If the layers do not follow one another, or there is no layer ``pair + 1``.

    Examples
    --------
    >>> theta([torch.ones(4, 2), torch.ones(1, 4)]).shape
    torch.Size([3, 4])
    """
    first, second = _pair(_checks.layers("Ws", Ws, runs=True), _checks.count("pair", pair))
    return torch.cat([first.mT, second], dim=-2)


def log_det(Ws: Sequence[Tensor], pair: int = 1) -> Tensor:
    r"""Return :math:`\log\det\Theta\Theta^\top`, from the singular values of :math:`\Theta`.

    In float64 a value sinks no lower than about :math:`10^{-17}` of the largest, so that in long
    runs this saturates, at some -360 for seven values; what it would have been says
    `DeterminantLaw`. From :math:`\Theta\Theta^\top` itself it would do so at half of that.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    TypeError, ValueError
        Also if the layer between is too narrow: the determinant is zero, and stays so.

    Examples
    --------
    >>> log_det([torch.eye(3)[:, :2], torch.eye(3)[2:]]).item()
    0.0
    """
    Theta = theta(Ws, pair)
    if Theta.shape[-2] > Theta.shape[-1]:
        raise ValueError(
            f"Ws: wanted a width of at least {Theta.shape[-2]} between layer {pair} and the next, "
            f"got {Theta.shape[-1]}; the determinant is zero"
        )
    return 2 * torch.linalg.svdvals(Theta).log().sum(-1)


class DeterminantLaw:
    r"""A loss that adds up, as it is trained on, what the law says of :math:`\log\det`.

    Train on it in place of the loss, with the same step size and decay, and read ``predicted`` at
    any iterate: the change of :math:`\log\det\Theta\Theta^\top` since the first call, shape
    ``(...)``, also where the determinant itself has long been lost to rounding::

        law = DeterminantLaw(loss, eta=eta)
        run = descent.train(Ws, law, eta=eta, steps=10_000, every=100)
        history = descent.record(
            run, measured=lambda it: log_det(it.Ws), predicted=lambda it: law.predicted
        )  # measured - measured[0] and predicted agree

    Parameters
    ----------
    loss : Loss
        Of the network in which the two layers are one, their product. A loss of the end-to-end
        matrix is that for any depth; `losses.network` takes the activations without the None
        between the two. A batch is drawn once a call, as without the law.
    eta : float, Tensor or callable
        Step size of all runs or of each, or what gives it for step t. A step for each layer has
        another law: there the product of the two takes the place of the square.
    lam : float
        Weight decay.
    pair : int
        Which two layers: l and l + 1.

    Raises
    ------
    TypeError, ValueError
        At the call of the class if a number is out of range, and while training if there is no
        layer ``pair + 1``.

    Examples
    --------
    >>> from lop_utils import descent, losses
    >>> Ws = [torch.eye(3)[:, :2].double(), torch.eye(3)[2:].double()]
    >>> law = DeterminantLaw(losses.squared_error([[3.0, 4.0]]), eta=0.1)
    >>> *_, last = descent.train(Ws, law, eta=0.1, steps=1)
    >>> round(law.predicted.item(), 4), round(log_det(last.Ws).item(), 4)  # 2 log(1 - 0.01 * 25)
    (-0.5754, -0.5754)
    """

    def __init__(
        self,
        loss: Loss,
        *,
        eta: float | Tensor | Callable[[int], float | Tensor],
        lam: float = 0.0,
        pair: int = 1,
    ) -> None:
        self.loss, self.generator = loss, getattr(loss, "generator", None)
        if not callable(eta):
            eta = (
                _checks.scalars("eta", eta)
                if hasattr(eta, "ndim")
                else _checks.positive("eta", eta)
            )
        self.eta, self.lam = eta, _checks.nonnegative("lam", lam)
        self.pair = _checks.count("pair", pair, at_least=1)
        self._t, self._at, self._pending = -1, None, None
        self._steps: list[Tensor] = []
        self._sum: Tensor | float = 0.0

    def __call__(self, Ws: Sequence[Tensor]) -> ValueAndGradients:
        """Return the loss of the network and its gradients in all layers."""
        (first, second), l = _pair(Ws, self.pair), self.pair
        value, grads = self.loss([*Ws[: l - 1], second @ first, *Ws[l + 1 :]])
        B = grads[l - 1]
        if self._at is not first:  # else the trainer asks for the same step again
            self._take()
            self._t += 1
        self._at, self._pending = first, B
        return ValueAndGradients(value, [*grads[: l - 1], second.mT @ B, B @ first.mT, *grads[l:]])

    def _take(self) -> None:
        """Count the step from the last call to this one."""
        if self._pending is None:
            return
        B, eta = self._pending, self.eta(self._t) if callable(self.eta) else self.eta
        if isinstance(eta, Tensor) and eta.ndim:
            eta = eta[..., None, None]
        kept = 1 - eta * self.lam
        if self.lam:
            logs = torch.as_tensor(kept, dtype=B.dtype).abs().log() * 2 * sum(B.shape[-2:])
            self._sum = self._sum + (logs[..., 0, 0] if logs.ndim else logs)
        E = B * (eta / kept)
        self._steps.append(E @ E.mT if E.shape[-2] <= E.shape[-1] else E.mT @ E)
        if len(self._steps) == 256:
            self._add_up()

    def _add_up(self) -> None:
        """Turn the steps at hand into a sum: together, that costs little a step."""
        if self._steps:
            squares = torch.stack(self._steps)
            eye = torch.eye(squares.shape[-1], dtype=squares.dtype, device=squares.device)
            self._sum = self._sum + 2 * torch.linalg.slogdet(eye - squares).logabsdet.sum(0)
            self._steps.clear()

    @property
    def predicted(self) -> Tensor:
        """The change of the logarithm since the first call, by the law."""
        self._add_up()
        B = self._pending
        zero = torch.zeros(() if B is None else B.shape[:-2], dtype=getattr(B, "dtype", None))
        return zero.to(getattr(B, "device", "cpu")) + self._sum
