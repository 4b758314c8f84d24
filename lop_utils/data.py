"""Targets of a known rank, whitened inputs, labels, a photograph, and MovieLens."""

import os
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks, _files, init
from lop_utils.observed import ObservedEntries

__all__ = [
    "Whitened",
    "balanced_subset",
    "load_movielens",
    "load_photograph",
    "low_rank_target",
    "one_hot",
    "whiten",
]


def low_rank_target(
    d_y: int, d_x: int, singular_values: Tensor, *, generator: torch.Generator | int | None = None
) -> Tensor:
    r"""Return :math:`\Phi = U \,\mathrm{diag}(\sigma)\, V^\top` with Haar singular vectors.

    Parameters
    ----------
    d_y, d_x : int
        Rows and columns.
    singular_values : Tensor, shape (r,)
        The non-zero singular values, positive; they give dtype and device.
    generator : torch.Generator or int, optional
        Source of randomness, or a seed.

    Returns
    -------
    Tensor, shape (d_y, d_x)
        A target of rank r.

    Examples
    --------
    >>> Phi = low_rank_target(4, 5, torch.tensor([3.0, 1.0]))
    >>> [round(s, 4) for s in torch.linalg.svdvals(Phi).tolist()]
    [3.0, 1.0, 0.0, 0.0]
    """
    generator = _checks.seeded(generator)
    d_y, d_x = _checks.count("d_y", d_y, at_least=1), _checks.count("d_x", d_x, at_least=1)
    s = _checks.vector("singular_values", singular_values)
    if not (s.is_meta or (s > 0).all()):
        raise ValueError(f"singular_values: wanted positive numbers, got {s.min().item()}")
    if len(s) > min(d_y, d_x):
        raise ValueError(
            f"singular_values: wanted at most min(d_y, d_x) = {min(d_y, d_x)}, got {len(s)}"
        )
    kind = dict(generator=generator, dtype=s.dtype, device=s.device)
    (U,) = init.orthogonal((len(s), d_y), 1.0, **kind)
    (V,) = init.orthogonal((len(s), d_x), 1.0, **kind)
    return (U * s) @ V.T


@dataclass(frozen=True, repr=False, eq=False)
class Whitened:
    """Whitened inputs, and how they came about."""

    X: Tensor
    """Shape (k, N), with ``X X^T = I_k``."""
    transform: Tensor
    """Shape (k, d): ``X = transform @ inputs``; apply it to new samples."""
    dropped: int
    """How many of the d input directions the inputs do not span (or were asked to be left)."""
    zero_rows: list[int]
    """Rows of the inputs that are zero throughout, such as the dark corners of an image."""
    condition: float
    """Largest over smallest singular value of what was kept, before whitening."""

    def __repr__(self) -> str:
        """Return the sizes and the condition number."""
        (k, N), d = self.X.shape, self.transform.shape[1]
        return f"Whitened({k} x {N}, {self.dropped} of {d} dropped, condition {self.condition:.3g})"


def whiten(X: Tensor, *, rank: int | None = None) -> Whitened:
    r"""Return inputs that are white on their own span: :math:`S_k^{-1}U_k^\top X`, from one SVD.

    Real inputs seldom span their space: a pixel that is always dark has no direction to scale.
    The result therefore has as many rows as the inputs have numerical rank, and says how many
    directions went. Nothing is centred; subtract the mean before, if it should go.

    Parameters
    ----------
    X : Tensor, shape (d, N)
        Inputs in columns.
    rank : int, optional
        Keep the ``rank`` strongest directions. By default all above ``max(d, N)`` times the
        machine precision times the largest singular value.

    Returns
    -------
    Whitened

    Raises
    ------
    TypeError, ValueError
        If ``X`` is zero, has a rank below ``rank``, or is so small that its transform overflows,
        too.

    Examples
    --------
    >>> X = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    >>> white = whiten(X)
    >>> white, white.zero_rows
    (Whitened(2 x 3, 1 of 3 dropped, condition 2.5), [2])
    >>> torch.allclose(white.X @ white.X.T, torch.eye(2), atol=1e-6)
    True
    """
    X = _checks.present("X", _checks.matrix("X", X))
    peak = X.abs().max()  # an SVD loses what is near the least number of the dtype
    U, s, Vt = torch.linalg.svd(X / peak if peak > 0 else X, full_matrices=False)
    spanned = int((s > max(X.shape) * torch.finfo(X.dtype).eps * s[0]).sum())
    if spanned == 0:
        raise ValueError("X: wanted inputs of rank at least 1, got zeros only")
    k = spanned if rank is None else _checks.count("rank", rank, at_least=1)
    if k > spanned:
        raise ValueError(
            f"X: wanted inputs of rank at least {k}, got shape {tuple(X.shape)} of rank "
            f"{spanned}; leave rank out to whiten on the span of the inputs"
        )
    return Whitened(
        X=Vt[:k],
        transform=_checks.held("X", U[:, :k].T / s[:k, None] / peak, "a transform"),
        dropped=len(X) - k,
        zero_rows=(X == 0).all(dim=1).nonzero().flatten().tolist(),
        condition=(s[0] / s[k - 1]).item(),
    )


def one_hot(y: Tensor, K: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return labels as columns of the identity.

    Parameters
    ----------
    y : Tensor of int, shape (N,)
        Classes 0, ..., K - 1.
    K : int
        Number of classes.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    Tensor, shape (K, N)

    Examples
    --------
    >>> one_hot([1, 0], 3).T.tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    K, dtype = _checks.count("K", K, at_least=1), _checks.instance("dtype", dtype, torch.dtype)
    return torch.nn.functional.one_hot(_checks.indices("y", y, K), K).T.to(dtype)


def balanced_subset(y: Tensor, n: int, *, generator: torch.Generator | int | None = None) -> Tensor:
    """Return the indices of n samples of each class, drawn without replacement.

    Parameters
    ----------
    y : Tensor of int, shape (N,)
        Labels. The classes are those that occur.
    n : int
        How many of each.
    generator : torch.Generator or int, optional
        Source of randomness, or a seed.

    Returns
    -------
    Tensor of int64, shape (K n,)
        Where in ``y`` they stand: first those of the lowest class, in random order, then those
        of the next.

    Raises
    ------
    TypeError, ValueError
        If a class has fewer than ``n`` samples, too.

    Examples
    --------
    >>> y = torch.tensor([1, 0, 1, 0, 0, 1])
    >>> y[balanced_subset(y, 2)]
    tensor([0, 0, 1, 1])
    """
    n, generator = _checks.count("n", n, at_least=1), _checks.seeded(generator)
    classes, y = _checks.whole("y", y).unique(return_inverse=True)
    chosen = []
    for k, name in enumerate(classes.tolist()):
        members = (y == k).nonzero().flatten()
        if len(members) < n:
            raise ValueError(f"n: wanted at least {n} of class {name}, got {len(members)}")
        order = _checks.shuffled(len(members), generator)
        chosen.append(members[order[:n].to(y.device)])
    return torch.cat(chosen)


def load_photograph(name: str) -> Tensor:
    """Return a photograph as a matrix of grey values.

    Parameters
    ----------
    name : str
        ``"china"``: a temple, 427 x 640 pixels, shipped with scikit-learn.

    Returns
    -------
    Tensor, shape (rows, cols)
        The luma ``0.299 red + 0.587 green + 0.114 blue`` (ITU-R BT.601) of the stored values,
        float64 between 0 (black) and 1 (white).

    References
    ----------
    danielbuechele on flickr.com, photo 6061409035, CC BY 2.0, as scikit-learn ships it.
    Whoever shows it names the author.

    Examples
    --------
    >>> load_photograph("china").shape
    torch.Size([427, 640])
    """
    _checks.one_of("name", name, ["china"])
    from sklearn.datasets import load_sample_image  # half a second to import: only when asked for

    colours = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float64) / 255
    grey = colours @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    return grey.clamp_(max=1)  # the weights add up to 1 but for rounding


_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
# MD5 checksum, the file in the archive, and what stands between the fields of its lines.
_ARCHIVES = {
    "ml-100k": ("0e33842e24a9c977be4e0107933c0723", "ml-100k/u.data", b"\t"),
    "ml-1m": ("c4d9eecfca2ab87c1945afe126590906", "ml-1m/ratings.dat", b"::"),
}


def load_movielens(
    name: str, *, folder: str | os.PathLike | None = None, url: str | None = None
) -> ObservedEntries:
    """Return a set of MovieLens ratings: 1 to 5 stars that people gave to films.

    The archive is downloaded at the first call and kept; later calls need no network. Each call
    compares its MD5 checksum and replaces a file that fails it.

    The data are GroupLens's and no part of this book. Their terms, in full in the archive's
    README: use for research, citing the reference below; no redistribution without permission;
    no commercial use without permission; no endorsement by GroupLens or the University of
    Minnesota may be stated or implied.

    Parameters
    ----------
    name : str
        ``"ml-100k"``: 100 000 ratings, 943 users, 1682 films, 5 MB. ``"ml-1m"``: 1 000 209
        ratings, 6040 users, 3706 films, 6 MB.
    folder : str or path, optional
        Where to keep the archive. By default what the environment variable ``LOP_DATA_DIR``
        says, or else ``lop`` in the user's folder for caches.
    url : str, optional
        Another address, http or https, of the same archive; the checksum stays.

    Returns
    -------
    ObservedEntries
        User ``r`` is ``r + 1`` in the archive. Of the films only those that somebody rated are
        there, in the order of the archive's numbers.

    Raises
    ------
    ValueError
        If there is no set of that name, or ``url`` is no address.
    OSError
        If the archive cannot be had: no network, no answer in time, an error or another file
        than expected, a folder that cannot be written.

    References
    ----------
    Harper and Konstan (2015), The MovieLens Datasets: History and Context, ACM Transactions on
    Interactive Intelligent Systems 5(4), doi:10.1145/2827872.

    Examples
    --------
    >>> load_movielens("ml-100k")  # doctest: +SKIP
    ObservedEntries(100000 of 943 x 1682)
    """
    md5, member, separator = _ARCHIVES[_checks.one_of("name", name, list(_ARCHIVES))]
    folder = folder and _checks.path("folder", folder)
    url = f"{_GROUPLENS}{name}.zip" if url is None else url
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ValueError(f"url: wanted an address, http or https, got {url!r}")
    path = _files.fetch(url, md5, f"{name}.zip", folder)
    with zipfile.ZipFile(path) as archive:
        text = archive.read(member).replace(separator, b" ").decode()
    # User, item, rating and time: the checksum says that nothing else is there.
    numbers = torch.from_numpy(np.fromstring(text, dtype=np.int64, sep=" ")).reshape(-1, 4)
    users, rows = numbers[:, 0].unique(return_inverse=True)
    items, cols = numbers[:, 1].unique(return_inverse=True)
    return ObservedEntries(rows, cols, numbers[:, 2].double(), (len(users), len(items)))
