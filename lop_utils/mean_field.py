r"""Networks of infinite width: closed equations for what gradient descent makes of them.

A linear network with L hidden layers of width N, so L + 1 matrices, and D inputs is

.. math::

    f(x) = \frac{w\cdot h^L}{\gamma_0 N}, \qquad h^l = \frac{W_l\,h^{l-1}}{\sqrt N}, \qquad
    h^1 = \frac{W_1\,x}{\sqrt D},

from weights N(0, 1), less its value at the start. All layers take steps of :math:`\eta\gamma_0^2N`
on :math:`\frac1{2P}\sum_\mu\Delta_\mu^2`, a mean over P samples, where :math:`\Delta = y - f`. As N
grows, features keep moving at a rate that :math:`\gamma_0` sets (mean field, muP): 0 is the lazy
limit, the linear dynamics of the tangent kernel.

Source: Bordelon and Pehlevan (2022), arXiv:2205.09653, for the equations of infinite width, and
(2025), arXiv:2502.02531, for linear networks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lop_utils import _checks, _threads, _wide, init
from lop_utils.losses import Loss, least_squares

__all__ = ["MeanField", "finite_width", "marchenko_pastur", "one_hidden", "solve"]


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
    y = _checks.present("y", _checks.vector("y", y))
    K = _checks.present("K", _checks.shaped("K", K, (len(y), len(y))))
    _checks.same_kind("y", y, "K", K)
    K = _wide.gram("K", K)
    L, steps = _checks.count("L", L, at_least=1), _checks.count("steps", steps)
    eta, gamma0 = _checks.positive("eta", eta), _checks.nonnegative("gamma0", gamma0)
    with _threads.for_numbers(((steps + 1) * len(y)) ** 2):
        Delta, H, G, ntk, mismatch = _wide.march(K, y, L, eta, gamma0, steps + 1)
    loss = _checks.held("y", Delta.square().mean(1) / 2, "labels with a loss")
    return MeanField(loss, Delta, H, G, ntk, mismatch)


def finite_width(
    X: Tensor,
    y: Tensor,
    *,
    L: int,
    width: int,
    gamma0: float,
    runs: int,
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
    generator : torch.Generator or int, optional
        Source of randomness.

    Returns
    -------
    Ws : list of Tensor
        L + 1 layers of independent N(0, 1): (runs, N, D), (runs, N, N), ..., (runs, 1, N).
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
    shapes = [(runs, N, D), *[(runs, N, N)] * (L - 1), (runs, 1, N)]
    drawn = init._drawn(torch.randn, shapes, generator, torch.float64, X.device)
    Ws = [W.to(X.dtype) for W in drawn]  # one seed gives the same networks in either dtype
    inputs = X / (gamma0 * N * N ** ((L - 1) / 2) * (D * P) ** 0.5)
    start = inputs
    for W in Ws:
        start = W @ start
    most = torch.finfo(X.dtype).eps ** -0.5 * y.abs().max()
    if not (largest := start.abs().max() * P**0.5) <= most:
        raise ValueError(
            f"gamma0: wanted outputs that start below {most:.1e}, or their rounding hides the "
            f"labels, got {largest:.1e}; a larger gamma0 has smaller ones"
        )
    _checks.held("y", y.square().sum(), "labels with a loss")
    rate = _checks.positive("gamma0 ** 2 * width", gamma0 * gamma0 * N)
    return Ws, least_squares(inputs, y / P**0.5 + start), rate


@torch.no_grad()
def one_hidden(
    S: Tensor,
    target: Tensor,
    *,
    K: Tensor,
    b: Tensor,
    s: float | Tensor = 1.0,
    eta: float | Tensor,
    gamma0: float,
    steps: int,
) -> Tensor:
    r"""Return gradient descent on one hidden layer by a recursion that knows no width.

    Of :math:`f(x) = a^\top Wx/(\gamma_0N) = b\cdot x` the step needs only :math:`K = W^\top W/N`,
    b and :math:`s = |a|^2/N`, exactly, at any width and from any start: with
    :math:`q = S(b_* - b)`

    .. math::

        b &\leftarrow b + \eta(K + sI)q + \eta^2\gamma_0^2(b\cdot q)\,q, \\
        K &\leftarrow K + \eta\gamma_0^2(qb^\top + bq^\top) + \eta^2\gamma_0^2s\,qq^\top, \\
        s &\leftarrow s + 2\eta\gamma_0^2\,b\cdot q + \eta^2\gamma_0^2\,q^\top Kq .

    Infinite width has K = I, b = 0, s = 1. At finite N/D = nu with unlimited data the spectrum of K
    is that of `marchenko_pastur` (q = 1/nu, eigenvalues x, shares w), with two coordinates for
    each x, one along :math:`b_*` and one along b: ``target`` has :math:`\sqrt w` in the first, b
    :math:`\sqrt{wx/\nu}/\gamma_0` in the second, S = I. At infinite width with P = alpha D samples
    S has the eigenvalues x of q = 1/alpha, and ``target`` :math:`\sqrt w`.

    Parameters
    ----------
    S : Tensor, shape (D, D)
        Covariance of the inputs: :math:`XX^\top/P` of P samples, or that of all.
    target : Tensor, shape (D,)
        :math:`b_*`: labels are :math:`b_*\cdot x`.
    K, b, s : Tensor, shapes (..., D, D) and (..., D), and float or Tensor of shape (...)
        The start, of one run or of many.
    eta : float or Tensor, shape (...)
        Step size, of all runs or of each: of the network :math:`\eta\gamma_0^2N`.
    gamma0, steps
        As of `solve`.

    Returns
    -------
    Tensor, shape (steps + 1, ..., D)
        b at each step; infinite or NaN where one of many runs diverged.

    Raises
    ------
    TypeError, ValueError
        If shapes disagree, or no network has this start: with columns W and a, K, gamma0 b and s
        are the blocks of a Gram matrix.
    FloatingPointError
        If ``eta`` is so large that all runs diverge; names the step.

    Examples
    --------
    >>> eye, e = torch.eye(2), torch.tensor([1.0, 0.0])
    >>> one_hidden(eye, e, K=eye, b=0 * e, eta=0.5, gamma0=0.0, steps=2)[:, 0]
    tensor([0., 1., 1.])
    """
    target = _checks.vector("target", target)
    D = len(target)
    S, K = _checks.shaped("S", S, (D, D)), _checks.shaped("K", K, (D, D), runs=True)
    b = _checks.shaped("b", b, (D,), runs=True) if K.ndim > 2 else _checks.vector("b", b)
    _checks.fits("b", b, K.shape[:-1], "K", K)
    _checks.same_kind("S", S, "K", K)
    _checks.same_kind("target", target, "K", K)
    gamma0, many = _checks.nonnegative("gamma0", gamma0), K.shape[:-2]
    s, eta = _wide.each("s", s, K, many), _wide.each("eta", eta, K, many)
    S, c = _wide.gram("S", S), gamma0 * b
    last = torch.cat([c, s.expand(*many, 1)], -1)[..., None]
    _wide.gram("K, b, s", torch.cat([torch.cat([K, c[..., None, :]], -2), last], -1))  # of [W a]
    path, square = [b], gamma0 * gamma0
    for t in range(1, _checks.count("steps", steps) + 1):
        q = (target - b) @ S
        b_q, K_q = (b * q).sum(-1, keepdim=True), (K @ q[..., None])[..., 0]
        outer = (eta * q)[..., None] * (b + eta / 2 * s * q)[..., None, :]
        b = b + eta * (K_q + s * q + eta * square * b_q * q)
        K = K + square * (outer + outer.mT)
        s = s + square * eta * (2 * b_q + eta * (q * K_q).sum(-1, keepdim=True))
        if not b.isfinite().all(-1).any():
            raise FloatingPointError(
                f"eta: wanted a run that stays finite, all overflowed at step t = {t}; take less"
            )
        path.append(b)
    return torch.stack(path)


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
