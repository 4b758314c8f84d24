r"""What wide and deep networks are to their training: a recursion, and two ways to write a network.

A network with one hidden layer computes :math:`f(x) = a^\top W x = b\cdot x` and takes steps of
:math:`\eta_1` in W and :math:`\eta_2` in a. Its training sees of it no more than
:math:`A = \eta_2 W^\top W`, :math:`z = \eta_1|a|^2`, b and :math:`q = \eta_1\eta_2`, in which the
width does not occur. ``Ws`` are layers, or those of many runs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, _wide, descent
from lop_utils.losses import Loss, ValueAndGradients, of_product

__all__ = [
    "OneHidden",
    "beside_mup",
    "exponent",
    "of_layers",
    "power_law",
    "recursion",
    "rescaled",
    "residual",
]


class OneHidden(NamedTuple):
    """A network with one hidden layer and D inputs, or many, as their training sees them."""

    A: Tensor
    r"""Shape (..., D, D): :math:`\eta_2 W^\top W`."""
    z: Tensor
    r"""Shape (...): :math:`\eta_1|a|^2`."""
    b: Tensor
    r"""Shape (..., D): :math:`W^\top a`, what the network computes."""
    q: Tensor
    r"""Shape (...): :math:`\eta_1\eta_2`."""

    def at(self, eta: Tensor) -> "OneHidden":
        """Return it with all steps ``eta`` times as long, for each of them along a new axis."""
        rest = [None] * self.z.ndim
        each = torch.as_tensor(eta, dtype=self.b.dtype, device=self.b.device)[(..., *rest)]
        b = self.b.expand(*each.shape[: each.ndim - len(rest)], *self.b.shape)
        return OneHidden(each[..., None, None] * self.A, each * self.z, b, each**2 * self.q)


def of_layers(Ws: Sequence[Tensor], rates: Sequence[float]) -> OneHidden:
    r"""Return what training sees of two layers.

    Parameters
    ----------
    rates : sequence of float
        Step sizes of the two layers.

    Returns
    -------
    OneHidden

    Raises
    ------
    TypeError, ValueError
        If these are not two layers with one output, or not two step sizes.

    Examples
    --------
    >>> of_layers([torch.eye(2), torch.ones(1, 2)], [1.0, 0.5]).b
    tensor([1., 1.])
    """
    Ws = _checks.layers("Ws", Ws, runs=True)
    first, second = _checks.each("rates", rates, 2, "step sizes", _checks.positive)
    if len(Ws) != 2 or Ws[1].shape[-2] != 1:
        raise ValueError(
            f"Ws: wanted two layers with one output, got {[tuple(W.shape) for W in Ws]}"
        )
    W, a = Ws
    z = first * a.square().sum((-2, -1))
    return OneHidden(second * W.mT @ W, z, (a @ W)[..., 0, :], torch.full_like(z, first * second))


@torch.no_grad()
def recursion(
    start: OneHidden, gradient: Callable[[Tensor], Tensor], steps: int
) -> Iterator[OneHidden]:
    r"""Yield a network with one hidden layer before each step of gradient descent, and at the end.

    With g the negative gradient of the loss in b, exactly and for steps of any size,

    .. math::

        b' = b + Ag + zg + q(b\cdot g)g,\quad
        A' = A + q(bg^\top + gb^\top) + qz\,gg^\top,\quad
        z' = z + 2q\,b\cdot g + q\,g^\top A g .

    Parameters
    ----------
    start : OneHidden
    gradient : callable
        Takes b of shape (..., D), returns g of this shape. It is called once a step.
    steps : int

    Yields
    ------
    OneHidden
        Not finite where a run has diverged.

    References
    ----------
    Bordelon and Pehlevan (2025), arXiv:2502.02531, for the limits of its start.

    Examples
    --------
    >>> start = of_layers([torch.eye(1), torch.ones(1, 1)], [0.1, 0.1])
    >>> [round(it.b.item(), 4) for it in recursion(start, lambda b: 2 - b, steps=1)]
    [1.0, 1.21]
    """
    A, z, b, q = start
    yield start
    for _ in range(_checks.count("steps", steps)):
        g = gradient(b)
        if g.shape != b.shape:
            raise ValueError(f"gradient: wanted shape {tuple(b.shape)} as b, got {tuple(g.shape)}")
        Ag = (A @ g[..., None])[..., 0]
        bg, gAg = (b * g).sum(-1), (g * Ag).sum(-1)
        half = (q[..., None] * g)[..., None] * (b + z[..., None] / 2 * g)[..., None, :]
        b = b + Ag + (z + q * bg)[..., None] * g
        A, z = A + half + half.mT, z + q * (2 * bg + gAg)
        yield OneHidden(A, z, b, q)


def rescaled(loss: Loss, rates: Sequence[float]) -> Loss:
    r"""Return a loss of :math:`U_l = W_l/\sqrt{c_l}`, of which one step size serves all layers.

    A step of gradient descent of :math:`\eta` in every U is one of :math:`\eta c_l` in
    :math:`W_l`. So runs with step sizes of their own can have one for each layer, too.

    Parameters
    ----------
    loss : Loss
        Of the layers W.
    rates : sequence of float
        :math:`c_l`.

    Returns
    -------
    Loss

    Examples
    --------
    >>> from lop_utils.losses import squared_error
    >>> rescaled(squared_error([[5.0]]), [4.0])([torch.ones(1, 1).double()]).grads[0].item()
    -6.0
    """
    rates = _checks.each("rates", rates, len(rates), "numbers", _checks.positive)
    roots = [rate**0.5 for rate in rates]

    def of_us(Us: Sequence[Tensor]) -> ValueAndGradients:
        value, grads = loss([root * U for root, U in zip(roots, Us, strict=True)])
        return ValueAndGradients(value, [root * G for root, G in zip(roots, grads, strict=True)])

    return of_us


def residual(loss: Loss, beta: float, matrices: int = 1) -> Loss:
    r"""Return a loss of a linear network with residual branches between its outer layers.

    The layers are :math:`W_{\text{in}}`, ``matrices`` for each branch in the order in which they
    act, and :math:`W_{\text{out}}`; a branch takes h to :math:`h + \beta V W h`, say.

    Parameters
    ----------
    loss : Loss
        Of the chain of layers that follow one another.
    beta : float
        Factor of every branch.
    matrices : int
        How many a branch has.

    Returns
    -------
    Loss

    Raises
    ------
    TypeError, ValueError
        While training also if the inner layers make no whole number of branches.

    Examples
    --------
    >>> from lop_utils.losses import squared_error
    >>> ones = [torch.ones(1, 1).double()] * 3
    >>> residual(squared_error([[0.0]]), 0.5)(ones).value.item()  # half the square of 1.5
    1.125
    """
    beta, m = _checks.positive("beta", beta), _checks.count("matrices", matrices, at_least=1)
    return _wide.branched(loss, beta, m)


def beside_mup(
    Ws: Sequence[Tensor], lam: Tensor, aim: Tensor, etas: Tensor, base: int, gamma0: float, T: int
) -> dict[str, float | Tensor]:
    r"""Return what muP as the book writes it, and Microsoft's package, make of one start.

    Parameters
    ----------
    Ws : sequence of Tensor, shapes (runs, N, D) and (runs, 1, N)
    lam, aim : Tensor, shape (D,)
        The loss is :math:`\frac12\sum_k\lambda_k(b - b_*)_k^2`.
    etas : Tensor, shape (n,)
        Step sizes at the width ``base``.
    base, gamma0, T : int, float, int
        T is the number of steps.

    Returns
    -------
    dict
        ``gap``, the largest difference in an output; of theirs and ours ``ends``, the losses at
        the end, (2, n, runs), and ``moved``, how far five of the first steps move h, (2, runs).

    Examples
    --------
    >>> beside_mup(Ws, lam, aim, etas, base=32, gamma0=1.0, T=9)  # doctest: +SKIP
    """
    import mup  # an extra

    (runs, N, D), root, gap = Ws[0].shape, lam.sqrt(), 0.0
    ends, moved = torch.zeros(2, len(etas), runs), torch.zeros(2, runs)

    def layers(N: int) -> torch.nn.Sequential:
        last = mup.MuReadout(N, 1, bias=False, output_mult=1 / (gamma0 * base))
        return torch.nn.Sequential(torch.nn.Linear(D, N, bias=False), last).double()

    loss = of_product(lambda W: (0.5 * (lam * (W - aim).square()).sum(), lam * (W - aim)))
    for i, r in ((i, r) for i in range(len(etas)) for r in range(runs)):
        (W, a), eta = (layer[r] for layer in Ws), etas[i].item()
        net = mup.set_base_shapes(layers(N), layers(base), delta=layers(2 * base))
        net[0].weight.data, net[1].weight.data = W.clone(), gamma0 * N * a
        sgd = mup.MuSGD(net.parameters(), lr=eta * gamma0**2 * base)
        for it in descent.train([W, a], loss, eta=[eta * gamma0**2 * N, eta / N], steps=T):
            f = net(root.diag())[:, 0]
            gap = max(gap, (f.detach() - root * (it.Ws[1] @ it.Ws[0])[0]).abs().max().item())
            if it.t == 5 and i == 0:
                both = net[0].weight.detach(), it.Ws[0]
                moved[:, r] = torch.stack([(root * (U - W)).norm() / N**0.5 for U in both])
            value = 0.5 * (f - root * aim).square().sum()
            ends[:, i, r] = torch.stack([value.detach(), it.loss])
            sgd.zero_grad(), value.backward(), sgd.step()
    return {"gap": gap, "ends": ends, "moved": moved}


def power_law(
    a: float, beta: float, *, last: int = 10**6, bins: int = 120
) -> tuple[Tensor, Tensor]:
    r"""Return eigenvalues and target of modes that fall like powers, most of them in bins.

    Mode k has :math:`\lambda_k = k^{-a}`, with the power :math:`\lambda_kb_{*k}^2 = k^{-a\beta-1}`.
    The first forty stand alone; a bin has the power and the squared target of all its modes.

    Parameters
    ----------
    a, beta : float
    last : int
        The last mode.
    bins : int
        How many are returned, at most.

    Returns
    -------
    tuple of Tensor, shape (n,) each

    Examples
    --------
    >>> lam, target = power_law(2.0, 0.5, last=1000, bins=60)
    >>> round((lam * target.square()).sum().item(), 6)  # 1/1 + 1/4 + ... + 1/1000^2
    1.643935
    """
    _checks.positive("a", a), _checks.positive("beta", beta)
    last = _checks.count("last", last, at_least=41)
    k = torch.arange(1, last + 1, dtype=torch.float64)
    lam, power = k**-a, k ** (-a * beta - 1)
    far = _checks.count("bins", bins, at_least=42) - 40
    tail = torch.logspace(math.log10(41), math.log10(last + 1), far, dtype=torch.float64).round()
    edges = torch.cat([torch.arange(1, 41, dtype=torch.float64), tail.unique()])
    place = torch.bucketize(k, edges, right=True) - 1
    sums = torch.zeros(2, len(edges), dtype=torch.float64)
    sums.index_add_(1, place, torch.stack([power, power / lam]))
    total, squares = sums[:, sums[0] > 0]
    return total / squares, squares.sqrt()


def exponent(t: Tensor, errors: Tensor, first: float) -> Tensor:
    r"""Return the :math:`\beta` of errors :math:`\sim t^{-\beta}`, by a line through logarithms.

    Parameters
    ----------
    t, errors : Tensor, shapes (T,) and (T, ...)
    first : float
        From which time on.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> t = torch.arange(1.0, 100)
    >>> round(exponent(t, t**-0.7, first=10).item(), 4)
    0.7
    """
    t, errors = _checks.vector("t", t.double()), _checks.numbers("errors", errors)
    if not (late := t >= first).sum() > 1:
        raise ValueError(f"first: wanted two times from it on, got {first}")
    x, y = t[late].log().double(), errors[late].log().double()
    x = x - x.mean()
    return -(x @ (y - y.mean(0))) / (x @ x)
