"""What a step of training holds and sends: numbers trained, bytes at the peak, messages."""

__all__ = ["dense", "exchanged", "full", "parameters", "sampled"]


def parameters(d_y: int, d_x: int, k: int, L: int) -> int:
    """Return how many numbers a network of width k between d_x and d_y trains.

    Parameters
    ----------
    d_y, d_x : int
        Rows and columns of the product.
    k : int
        Width.
    L : int
        Depth, at least 2.

    Returns
    -------
    int

    Examples
    --------
    >>> parameters(1000, 1000, 1000, 3), parameters(1000, 1000, 6, 3), parameters(6, 6, 6, 3)
    (3000000, 12036, 108)
    """
    return k * (d_y + d_x) + (L - 2) * k * k


def full(d: int, L: int, *, size: int = 8) -> int:
    """Return the bytes that a step of L square layers of width d holds at its peak.

    That is in the update: the target, the layers, their gradients and the next layers, and one
    gradient times the step size.

    Parameters
    ----------
    d : int
        Width.
    L : int
        Depth.
    size : int
        Bytes of a number.

    Returns
    -------
    int

    Examples
    --------
    >>> full(1000, 3)
    88000000
    """
    return (3 * L + 2) * d * d * size


def dense(d_y: int, d_x: int, k: int, L: int, *, size: int = 8) -> int:
    """Return the bytes that a step of `cost.dense_step` holds at its peak.

    That is where the residual goes backwards: target, product and residual in full; layers and
    first gradients; the products on the way, of which each but the last has k rows.

    Parameters
    ----------
    d_y, d_x : int
        Rows and columns of the product.
    k : int
        Width; well below both, or another moment holds more.
    L : int
        Depth, at least 2.
    size : int
        Bytes of a number.

    Returns
    -------
    int

    Examples
    --------
    >>> dense(1000, 1000, 6, 3)
    24240288
    """
    inner = (L - 2) * (k * d_x + k * k)
    return (3 * d_y * d_x + 2 * k * (d_y + d_x) + inner) * size


def sampled(n: int, d_y: int, d_x: int, k: int, L: int, *, size: int = 8) -> int:
    """Return the bytes that a sampled run holds: O(n + d k).

    Two values and their residuals in two orders, places in 32 bits in both orders and the
    permutation between them; four copies of every layer (weights, gradients, the next weights,
    products on the way). What torch allocates is within a third of it.

    Parameters
    ----------
    n : int
        Observed entries.
    d_y, d_x : int
        Rows and columns.
    k : int
        Width.
    L : int
        Depth.
    size : int
        Bytes of a number.

    Returns
    -------
    int

    Examples
    --------
    >>> round(sampled(10**9, 10**6, 10**5, 40, 3) / 1e9, 1)  # gigabytes
    49.4
    """
    return n * (4 * size + 16) + 4 * parameters(d_y, d_x, k, L) * size


def exchanged(d_x: int, k: int) -> int:
    r"""Return how many numbers a process sends in a step when rows are sharded.

    Parameters
    ----------
    d_x : int
        Columns.
    k : int
        Width.

    Returns
    -------
    int
        The entries of :math:`P^\top R`, and the loss.

    Examples
    --------
    >>> exchanged(100_000, 40)
    4000001
    """
    return k * d_x + 1
