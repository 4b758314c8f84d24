r"""Networks of infinite width: closed equations for what gradient descent makes of them.

A linear network with L hidden layers of width N, so L + 1 matrices, and D inputs is

.. math::

    f(x) = \frac{w\cdot h^L}{\gamma_0 N}, \qquad h^l = \frac{W_l\,h^{l-1}}{\sqrt N}, \qquad
    h^1 = \frac{W_1\,x}{\sqrt D},

from weights N(0, 1), less its value at the start. All layers take steps of :math:`\eta\gamma_0^2N`
on :math:`\frac1{2P}\sum_\mu\Delta_\mu^2`, a mean over P samples, where :math:`\Delta = y - f`. As N
grows, features keep moving at a rate that :math:`\gamma_0` sets (mean field, muP): 0 is the lazy
limit, the linear dynamics of the tangent kernel. In a *residual* network of L branches layers
between the first and the last add to what they are given,

.. math::

    h^l = h^{l-1} + \frac{\beta}{\sqrt N} W_l\,h^{l-1}, \qquad l = 1, \ldots, L, \qquad
    h^0 = \frac{W_0\,x}{\sqrt D},

so that it has L + 1 hidden layers; with :math:`\beta \propto 1/\sqrt L` it has a limit as L grows.

Source: Bordelon and Pehlevan (2022), arXiv:2205.09653, for the equations of infinite width, and
(2025), arXiv:2502.02531, for linear networks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lop_utils import _checks, _threads, _wide, init
from lop_utils.losses import Loss, least_squares

__all__ = ["MeanField", "finite_width", "marchenko_pastur", "solve", "solve_residual"]


@dataclass(frozen=True, repr=False, eq=False)
class MeanField:
    """A network of infinite width at the steps t = 0, ..., T."""

    loss: Tensor
    r"""Shape (T + 1,): :math:`\frac1{2P}|\Delta|^2`."""
    Delta: Tensor
    """Shape (T + 1, P): labels minus outputs."""
    H: Tensor
    r"""Shape (L, T + 1, P, T + 1, P): :math:`h^l_\mu(t)\cdot h^l_\nu(s)/N` at any two steps."""
    G: Tensor
    r"""Shape (L, T + 1, T + 1): :math:`g^l(t)\cdot g^l(s)/N` of the gradients
    :math:`g^l = \gamma_0N\,\partial f/\partial h^l`, the same for all samples."""
    ntk: Tensor
    r"""Shape (T + 1, P, P): tangent kernel, :math:`G^1K + \sum_l H^lG^{l+1}` at equal steps."""
    mismatch: float
    """Largest relative distance between the outputs as the L layers give them; it is rounding."""

    def __repr__(self) -> str:
        """Return sizes, first and last loss, and the error."""
        (T, P), first, last = self.Delta.shape, self.loss[0].item(), self.loss[-1].item()
        return (
            f"MeanField(L = {len(self.H)}, P = {P}, steps = {T - 1}: loss {first:.3g} to "
            f"{last:.3g}, mismatch {self.mismatch:.0e})"
        )


@torch.no_grad()
def solve(K: Tensor, y: Tensor, *, L: int, eta: float, gamma0: float, steps: int) -> MeanField:
    r"""Return gradient descent on a linear network of infinite width, without sampling one.

    Feature by feature, what the random start gives and what training adds are

    .. math::

        h^l(t) = u^l(t) + \gamma_0\sum_{s<t} C^l(t, s)\,g^l(s), \qquad
        C^l = A^{l-1} + \tfrac{\eta}{P} H^{l-1}\Delta,

        g^l(t) = r^l(t) + \gamma_0\sum_{s<t} D^l(t, s)\,h^l(s), \qquad
        D^l = B^l + \tfrac{\eta}{P} G^{l+1}\Delta,

    with Gaussian u and r of covariances :math:`H^{l-1}` and :math:`G^{l+1}`
    (:math:`H^0 = K,\ G^{L+1} = 1`), and the responses :math:`\gamma_0A^l = \partial h^l/\partial
    r^l`, :math:`\gamma_0B^{l-1} = \partial g^l/\partial u^l` (:math:`A^0 = B^L = 0`), through
    which a layer meets its own past in its neighbours. Averages over features close the
    equations, with outputs :math:`f = g^l\cdot h^l/(\gamma_0N)` at any layer. They are known as a
    fixed point, to be found by damped iteration; but nothing depends on what comes later, so one
    pass in time solves them, for steps of any size, to rounding.

    With T = steps + 1 time grows as :math:`L\,P^2T^3`, below the :math:`(TP)^3` of a fixed point's
    inverses; memory is that of H, :math:`8L(TP)^2` bytes in float64.

    Parameters
    ----------
    K, y : Tensor, shapes (P, P) and (P,)
        Gram matrix :math:`X^\top X/D` of inputs in columns, and labels.
    L : int
        Number of hidden layers.
    eta : float
        Step size: of the network :math:`\eta\gamma_0^2N`.
    gamma0 : float
        How much features move; 0 for the lazy limit.
    steps : int
        Number of steps.

    Returns
    -------
    MeanField

    Raises
    ------
    TypeError, ValueError
        If shapes disagree, or K is not symmetric or has a negative eigenvalue.
    FloatingPointError
        If ``eta`` is so large that the run diverges until numbers overflow; names the step.

    Examples
    --------
    >>> K, y = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
    >>> solve(K, y, L=2, eta=0.1, gamma0=1.0, steps=20)
    MeanField(L = 2, P = 2, steps = 20: loss 0.5 to 9.87e-07, mismatch ...)
    """
    K, y, eta, gamma0, steps = _checked(K, y, eta, gamma0, steps)
    L = _checks.count("L", L, at_least=1)
    with _threads.for_numbers((steps + 1) ** 2 * len(y) ** 2):
        return _found(_wide.march(K, y, L, eta, gamma0, steps + 1))


def _checked(K: Any, y: Any, eta: Any, gamma0: Any, steps: Any) -> tuple:
    y = _checks.present("y", _checks.vector("y", y))
    K = _checks.present("K", _checks.shaped("K", K, (len(y), len(y))))
    _checks.same_kind("y", y, "K", K)
    steps, gamma0 = _checks.count("steps", steps), _checks.nonnegative("gamma0", gamma0)
    return _wide.gram("K", K), y, _checks.positive("eta", eta), gamma0, steps


def _found(parts: tuple[Tensor, Tensor, Tensor, Tensor, float]) -> MeanField:
    Delta, *_ = parts
    loss = _checks.held("y", Delta.square().mean(1) / 2, "labels with a loss")
    return MeanField(loss, *parts)


@torch.no_grad()
def solve_residual(
    K: Tensor, y: Tensor, *, L: int, beta: float, eta: float, gamma0: float, steps: int
) -> MeanField:
    r"""Return gradient descent on a residual network of infinite width, without sampling one.

    A field meets the random matrix of each branch twice, forwards and backwards, as in `solve`:

    .. math::

        h^l(t) = h^{l-1}(t) + \beta\,\Big[u^l(t) + \gamma_0\sum_{s<t} C^l(t, s)\,g^l(s)\Big],
        \qquad C^l = A^{l-1} + \tfrac{\beta\eta}{P} H^{l-1}\Delta,

        g^{l-1}(t) = g^l(t) + \beta\,\Big[r^l(t) + \gamma_0\sum_{s<t} D^l(t, s)\,h^{l-1}(s)\Big],
        \qquad D^l = B^l + \tfrac{\beta\eta}{P} G^l\Delta,

    with u and r of covariances :math:`H^{l-1}` and :math:`G^l`. But now layers share neurons, and
    a field remembers what all branches drew. So each is kept as a sum over these draws. One pass in
    time solves it to rounding, in :math:`O(L^2P^3T^3)` and
    :math:`16(LTP)^2` bytes in float64. With :math:`\beta = \beta_0/\sqrt L` loss and kernels
    converge as L grows, with a difference that falls as 1/L.

    Parameters
    ----------
    K, y, eta, gamma0, steps
        As of `solve`.
    L : int
        Number of branches, each of one matrix.
    beta : float
        Factor of every branch.

    Returns
    -------
    MeanField
        Of L + 1 hidden layers, :math:`h^0, \ldots, h^L`.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As of `solve`.

    References
    ----------
    Bordelon and Pehlevan (2025), arXiv:2502.02531, for residual linear networks.

    Examples
    --------
    >>> K, y = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
    >>> solve_residual(K, y, L=4, beta=0.5, eta=0.1, gamma0=1.0, steps=10)
    MeanField(L = 5, P = 2, steps = 10: loss 0.5 to 4.9e-08, mismatch ...)
    """
    K, y, eta, gamma0, steps = _checked(K, y, eta, gamma0, steps)
    L, beta = _checks.count("L", L, at_least=1), _checks.positive("beta", beta)
    with _threads.for_numbers(L * (steps + 1) ** 2 * len(y) ** 2):
        return _found(_wide.march_branches(K, y, L, beta, eta, gamma0, steps + 1))


def finite_width(
    X: Tensor,
    y: Tensor,
    *,
    L: int,
    width: int,
    gamma0: float,
    runs: int,
    beta: float | None = None,
    generator: torch.Generator | int | None = None,
) -> tuple[list[Tensor], Loss, float]:
    r"""Return networks of finite width of which `solve` gives the limit, to be trained.

    With ``gamma0`` = :math:`1/\sqrt N` that is the NTK parameterisation. They are trained by::

        Ws, loss, rate = mean_field.finite_width(X, y, L=2, width=512, gamma0=1.0, runs=10)
        run = descent.train(Ws, loss, eta=eta * rate, steps=steps)

    Parameters
    ----------
    X, y : Tensor, shapes (D, P) and (P,)
        Inputs in columns, and labels.
    L, gamma0
        As of `solve`; ``gamma0`` > 0.
    width, runs : int
        N; how many networks, side by side.
    beta : float, optional
        Of a residual network with L branches, as of `solve_residual`; without, a plain one.
    generator : torch.Generator or int, optional
        Source of randomness.

    Returns
    -------
    Ws : list of Tensor
        Layers of independent N(0, 1): (runs, N, D), (runs, N, N) L - 1 times, or L with
        ``beta``, (runs, 1, N).
    loss : Loss
        :math:`\frac1{2P}|\Delta|^2` of each run, outputs taken from those of ``Ws`` on.
    rate : float
        Step size of the networks over ``eta`` of `solve`, :math:`\gamma_0^2N`.

    Raises
    ------
    TypeError, ValueError
        Also if ``gamma0`` is so small that outputs at the start drown the labels in rounding.

    Examples
    --------
    >>> Ws, loss, rate = finite_width([[1.0]], [2.0], L=2, width=50, gamma0=1.0, runs=3)
    >>> [tuple(W.shape) for W in Ws], rate
    ([(3, 50, 1), (3, 50, 50), (3, 1, 50)], 50.0)
    """
    X, y = _checks.present("X", _checks.matrix("X", X)), _checks.vector("y", y)
    (D, P), L = X.shape, _checks.count("L", L, at_least=1)
    _checks.fits("y", y, (P,), "X", X)
    N, runs = _checks.count("width", width, at_least=1), _checks.count("runs", runs, at_least=1)
    gamma0 = _checks.positive("gamma0", gamma0)
    inner = L - 1 if beta is None else L
    shapes = [(runs, N, D), *[(runs, N, N)] * inner, (runs, 1, N)]
    drawn = init._drawn(torch.randn, shapes, generator, torch.float64, X.device)
    Ws = [W.to(X.dtype) for W in drawn]  # one seed gives the same networks in either dtype
    inputs, factor = X / (gamma0 * N * (D * P) ** 0.5), N**-0.5
    if beta is None:
        inputs = inputs * factor**inner
    else:
        factor = factor * _checks.positive("beta", beta)
    start = Ws[0] @ inputs
    for W in Ws[1:-1]:
        start = W @ start if beta is None else start + factor * W @ start
    start = Ws[-1] @ start
    most = torch.finfo(X.dtype).eps ** -0.5 * y.abs().max()
    if not (largest := start.abs().max() * P**0.5) <= most:
        raise ValueError(
            f"gamma0: wanted outputs that start below {most:.1e}, or their rounding hides the "
            f"labels, got {largest:.1e}; a larger gamma0 has smaller ones"
        )
    _checks.held("y", y.square().sum(), "labels with a loss")
    rate = _checks.positive("gamma0 ** 2 * width", gamma0 * gamma0 * N)
    loss = least_squares(inputs, y / P**0.5 + start)
    return Ws, loss if beta is None else _wide.branched(loss, factor), rate


def marchenko_pastur(q: float, nodes: int = 60) -> tuple[Tensor, Tensor]:
    r"""Return nodes and weights of Gauss quadrature for the law of Marchenko and Pastur.

    It is the limit of the eigenvalues of :math:`W^\top W/N` for W of shape (N, D), entries N(0, 1)
    and q = D/N; the mass of 1 - 1/q at zero, if q > 1, is a node like others. Its orthogonal
    polynomials have coefficients 1, then 1 + q, and :math:`\sqrt q`; nodes are the eigenvalues of
    their matrix.

    Parameters
    ----------
    q, nodes : float and int
        Ratio, and how many; polynomials up to degree 2 nodes - 1 are integrated exactly.

    Returns
    -------
    x, weights : Tensor of float64, shape (nodes,)
        Eigenvalues, ascending, and the share of each; shares add up to 1.

    References
    ----------
    Golub and Welsch (1969), Math. Comp. 23, for nodes as eigenvalues.

    Examples
    --------
    >>> x, weights = marchenko_pastur(0.5)
    >>> [round((weights * x**k).sum().item(), 12) for k in range(3)]  # 1, 1 and 1 + q
    [1.0, 1.0, 1.5]
    """
    q, nodes = _checks.positive("q", q), _checks.count("nodes", nodes, at_least=1)
    diagonal = torch.full((nodes,), 1 + q, dtype=torch.float64)
    diagonal[0] = 1.0
    beside = torch.full((nodes - 1,), q**0.5, dtype=torch.float64)
    x, V = torch.linalg.eigh(diagonal.diag() + beside.diag(1) + beside.diag(-1))
    rounding = nodes * torch.finfo(x.dtype).eps * x[-1]
    return torch.where(x > rounding, x, 0), V[0].square()
