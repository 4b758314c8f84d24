"""Sets of labelled images: downloaded when asked for, decoded once, and kept as arrays."""

import gzip
import os
import tarfile
import textwrap
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks, _files

__all__ = ["Images", "fetch_images", "load_images"]

_NAMES = ("digits", "mnist", "fashion_mnist", "usps", "cifar10")


@dataclass(frozen=True, repr=False, eq=False)
class Images:
    """Images as columns, with their labels."""

    X: Tensor
    """Shape (pixels, N), between 0 and 1; the pixels of an image row by row, colour by colour."""
    y: Tensor
    """Shape (N,), int64: classes 0 to 9."""
    shape: tuple[int, ...]
    """Rows and columns of one image; for colours 3, rows and columns."""
    train: int
    """How many columns, the first ones, were published for training; the others for testing."""
    name: str
    """Which set it is."""

    def __repr__(self) -> str:
        """Return name and sizes."""
        return f"Images({self.name}, {len(self.y)} of {' x '.join(map(str, self.shape))})"


# The published formats, whose content the checksums vouch for


def _idx(path: Path) -> list[np.ndarray]:
    """Decode one array of LeCun's format: 0, 0, type 8 (uint8), dimensions, sizes, entries."""
    content = gzip.decompress(path.read_bytes())
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    return [np.frombuffer(content[start:], np.uint8).reshape(shape)]


def _libsvm(path: Path) -> list[np.ndarray]:
    """Decode lines of a digit + 1 and 16 x 16 numbered grey values between -1 and 1."""
    from sklearn.datasets import load_svmlight_file  # half a second to import

    # A value that a line leaves out is 0 in this format, the middle grey.
    values, labels = load_svmlight_file(str(path), n_features=256, zero_based=False)
    x = ((values.toarray() + 1) / 2 * 255).round().astype(np.uint8)
    return [x.reshape(-1, 16, 16), (labels - 1).astype(np.uint8)]


def _cifar(path: Path) -> list[np.ndarray]:
    """Decode records of a label and 32 x 32 values of red, of green and of blue."""
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:  # in its order: to go back would be to decompress again
            if (name := Path(member.name).name) in names:
                found[name] = np.frombuffer(archive.extractfile(member).read(), np.uint8)
    records = [found[name].reshape(-1, 1 + 3 * 32 * 32) for name in names]
    parts = np.concatenate(records[:5]), records[5]
    return [A for part in parts for A in (part[:, 1:].reshape(-1, 3, 32, 32), part[:, 0])]


_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_IDX = tuple(
    f"{kind}-ubyte.gz"
    for kind in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)
# Address, files with their MD5 checksums, what decodes one into arrays in the order of _ARRAYS,
# and the shape of an image.
_SOURCES = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        {
            _IDX[0]: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            _IDX[1]: "d53e105ee54ea40749a09fcbcd1e9432",
            _IDX[2]: "9fb629c4189551a2d022fa330f9573f3",
            _IDX[3]: "ec29112dd5afa0611ce80d1b7f02629c",
        },
        _idx,
        (28, 28),
    ),
    "fashion_mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        {
            _IDX[0]: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            _IDX[1]: "25c81989df183df01b3e8a0aad5dffbe",
            _IDX[2]: "bef4ecab320f06d8554ea6380940ec79",
            _IDX[3]: "bb300cfdad3c16e7a12a480ee83cd310",
        },
        _idx,
        (28, 28),
    ),
    "usps": (
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass",
        {
            "usps.bz2": "ec16c51db3855ca6c91edd34d0e9b197",
            "usps.t.bz2": "8ea070ee2aca1ac39742fdd1ef5ed118",
        },
        _libsvm,
        (16, 16),
    ),
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        _cifar,
        (3, 32, 32),
    ),
}


# One file of arrays a set


def _convert(name: str, path: Path, url: str | None) -> None:
    """Download what is published and keep its arrays; then the archives may go."""
    base, files, decode, _ = _SOURCES[name]
    base = (url or base).rstrip("/")
    archives = [  # two sets have files of the same names
        _files.fetch(f"{base}/{file}", md5, f"{name}-{file}", path.parent)
        for file, md5 in files.items()
    ]
    arrays = [A for archive in archives for A in decode(archive)]
    content = dict(zip(_ARRAYS, arrays, strict=True))
    _files.write_whole(path, lambda stream: np.savez_compressed(stream, **content))
    for archive in archives:
        archive.unlink(missing_ok=True)


def _read(path: Path, published: tuple[int, ...]) -> list[np.ndarray]:
    try:
        with path.open("rb") as file:  # np.load leaves a damaged file of its own open
            if not zipfile.is_zipfile(file):  # np.load would ask to trust it as a pickle
                raise ValueError("no archive of arrays")
            file.seek(0)
            with np.load(file, allow_pickle=False) as content:
                arrays = [content[key] for key in _ARRAYS]
        first = arrays[0].shape[1:]
        # A set of fewer or smaller images will do, one of other colours will not.
        if len(first) != len(published) or first[:-2] != published[:-2]:
            raise ValueError(f"x_train: wanted images as of shape {published}, got {first}")
        for part, x, y in (("train", *arrays[:2]), ("test", *arrays[2:])):
            if x.dtype != np.uint8 or x.shape[1:] != first or x.size == 0:
                sizes = ", ".join(map(str, ("N", *first)))
                raise ValueError(f"x_{part}: wanted uint8 ({sizes}), got {x.dtype} {x.shape}")
            if y.dtype != np.uint8 or y.shape != x.shape[:1] or y.max() > 9:
                raise ValueError(
                    f"y_{part}: wanted uint8 ({len(x)},) of 0 to 9, got {y.dtype} {y.shape}"
                )
    except (FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise  # nothing says that it is damaged, and Python's own words name it
    except Exception as error:  # zipfile, zlib and numpy have many kinds for a damaged file
        raise OSError(
            f"{path}: wanted the arrays {', '.join(_ARRAYS)}, got {type(error).__name__}: {error}\n"
            "Delete the file, and the next call downloads the set anew"
        ) from error
    return arrays


def _digits(dtype: torch.dtype) -> Images:
    from sklearn.datasets import load_digits  # half a second to import: only when asked for

    bunch = load_digits()
    X = torch.from_numpy(bunch.data).T.to(dtype).contiguous() / 16
    return Images(X, torch.from_numpy(bunch.target).long(), (8, 8), X.shape[1], "digits")


def fetch_images(
    name: str,
    *,
    dtype: torch.dtype = torch.float64,
    folder: str | os.PathLike | None = None,
    url: str | None = None,
) -> Images:
    """Return a set of labelled images, or say why it cannot be had.

    The published files are downloaded at the first call and checked; what is in them is kept as
    ``NAME.npz``, and they themselves are deleted. Where that file is there, nothing is
    downloaded. It holds the uint8 arrays ``x_train``, of shape (N, rows, columns) or
    (N, 3, rows, columns), ``y_train``, of shape (N,), ``x_test`` and ``y_test``. One that was
    made in another way need not have the published number or size of images.

    * digits: 8 x 8, 1797 images, comes with scikit-learn; CC BY 4.0; the test part of Alpaydin
      and Kaynak (1998), doi:10.24432/C50P49.
    * mnist: 28 x 28, 60 000 for training and 10 000 for testing, 12 MB; CC BY-SA 3.0; LeCun,
      Bottou, Bengio and Haffner (1998), doi:10.1109/5.726791.
    * fashion_mnist: 28 x 28, 60 000 and 10 000, 31 MB; MIT; Xiao, Rasul and Vollgraf (2017),
      arXiv:1708.07747.
    * usps: 16 x 16, 7291 and 2007, 8 MB; no terms stated, cite Hull (1994), doi:10.1109/34.291440.
    * cifar10: 3 x 32 x 32, 50 000 and 10 000, 170 MB; no terms stated, cite Krizhevsky (2009),
      Learning Multiple Layers of Features from Tiny Images, University of Toronto.

    Parameters
    ----------
    name : str
        One of the list.
    dtype : torch.dtype
        Of the pixels. In float64 MNIST takes 440 MB and CIFAR-10 1.5 GB, in float32 half of it.
    folder : str or path, optional
        Where to keep ``NAME.npz``. By default what the environment variable ``LOP_DATA_DIR``
        says, or else ``lop`` in the user's folder for caches.
    url : str, optional
        Another address, http or https, under which the published files lie; the checksums stay.

    Returns
    -------
    Images
        The training images before the test images, both in the published order.

    Raises
    ------
    TypeError, ValueError
        If ``dtype`` is not floating-point, or there is no set of that name.
    OSError
        If the set cannot be had: the download fails, ``NAME.npz`` is damaged, or the folder
        cannot be written.

    Examples
    --------
    >>> digits = fetch_images("digits", dtype=torch.float32)
    >>> digits, digits.X.dtype, digits.X.shape
    (Images(digits, 1797 of 8 x 8), torch.float32, torch.Size([64, 1797]))
    """
    _checks.one_of("name", name, _NAMES)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: wanted a floating-point dtype, got {dtype!r}")
    if name == "digits":
        return _digits(dtype)
    path = _files.data_folder(folder) / f"{name}.npz"
    if not path.exists():
        try:
            _convert(name, path, url)
        except OSError:
            if not path.exists():  # else another process was quicker, and deleted the archives
                raise
    x_train, y_train, x_test, y_test = _read(path, _SOURCES[name][-1])
    X = torch.empty(x_train[0].size, len(x_train) + len(x_test), dtype=dtype)
    X[:, : len(x_train)] = torch.from_numpy(x_train).flatten(1).T
    X[:, len(x_train) :] = torch.from_numpy(x_test).flatten(1).T
    y = torch.from_numpy(np.concatenate([y_train, y_test])).long()
    return Images(X.div_(255), y, x_train.shape[1:], len(x_train), name)


def load_images(
    name: str,
    *,
    dtype: torch.dtype = torch.float64,
    folder: str | os.PathLike | None = None,
    url: str | None = None,
) -> Images:
    """Return a set of labelled images; where it cannot be had, warn and return the digits instead.

    The field ``name`` of the result says which set it is.

    Parameters
    ----------
    name, dtype, folder, url
        As of `fetch_images`.

    Returns
    -------
    Images

    Raises
    ------
    TypeError, ValueError
        If ``dtype`` is not floating-point, or there is no set of that name.

    Warns
    -----
    UserWarning
        If the set cannot be had, for instance without a network, and the digits stand in.

    Examples
    --------
    >>> load_images("digits")
    Images(digits, 1797 of 8 x 8)
    """
    try:
        return fetch_images(name, dtype=dtype, folder=folder, url=url)
    except OSError as error:
        cause = error.__cause__ or error
        why = textwrap.shorten(f"{type(cause).__name__}: {cause}", 120, placeholder=" ...")
        warnings.warn(
            f"{name} could not be had ({why}), so scikit-learn's digits of 8 x 8 pixels stand in; "
            f"fetch_images({name!r}) says more",
            stacklevel=2,
        )
        return _digits(dtype)
