"""Sets of images: each published format comes back pixel by pixel, or it is said why not."""

import bz2
import gzip
import io
import os
import pickle
import re
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback import md5, refusing, serving

from lop_utils import _files, images

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
DOWNLOADED = [name for name in images._NAMES if name != "digits"]
each_set = pytest.mark.parametrize("name", DOWNLOADED)

# A few images in each published format, written by means other than those that read them


def idx(array):
    """Write bytes 0, 0, 8 for uint8, the number of dimensions, their sizes, the entries."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + bytes(array.flatten().tolist()), mtime=0)


def libsvm(x, y):
    lines = [
        f"{label + 1} "
        + " ".join(f"{i}:{2 * v / 255 - 1:.7g}" for i, v in enumerate(row.flatten().tolist(), 1))
        for row, label in zip(x, y.tolist(), strict=True)
    ]
    return bz2.compress("\n".join(lines).encode())


def cifar(x_train, y_train, x_test, y_test):
    """Write the records into an archive, whose members are in no order, as published."""
    records = [
        bytes([label]) + bytes(image.flatten().tolist())
        for image, label in zip(
            [*x_train, *x_test], [*y_train.tolist(), *y_test.tolist()], strict=True
        )
    ]
    members = {f"data_batch_{i + 1}.bin": records[i : len(x_train) : 5] for i in range(5)}
    members |= {"test_batch.bin": records[len(x_train) :], "readme.html": [b"<p>"]}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in sorted(members, reverse=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content := b"".join(members[name]))
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def sample(name, train=10, test=4):
    """Return random arrays as those of a set; both ends of the grey values are among them."""
    rng = np.random.default_rng(len(name))
    shape = images._SOURCES[name][-1]
    x = rng.integers(0, 256, (train + test, *shape), dtype=np.uint8)
    x[0].flat[:2] = 0, 255
    y = rng.integers(0, 10, train + test, dtype=np.uint8)
    y[:2] = 0, 9
    return dict(zip(ARRAYS, (x[:train], y[:train], x[train:], y[train:]), strict=True))


def published(name, arrays):
    """Return the files of a set, in the order of the table."""
    x_train, y_train, x_test, y_test = (arrays[key] for key in ARRAYS)
    if name == "usps":
        return [libsvm(x_train, y_train), libsvm(x_test, y_test)]
    if name == "cifar10":
        # Image i is in batch i mod 5: the loader has to put the batches one after another.
        order = np.argsort(np.arange(len(x_train)) % 5, kind="stable")
        back = np.argsort(order)
        return [cifar(x_train[back], y_train[back], x_test, y_test)]
    return [idx(A) for A in (x_train, y_train, x_test, y_test)]


def expected(arrays):
    """Return X and y as a slow loop over the images gives them."""
    x = [*arrays["x_train"], *arrays["x_test"]]
    columns = [torch.tensor(image.flatten().tolist(), dtype=torch.float64) / 255 for image in x]
    labels = [*arrays["y_train"].tolist(), *arrays["y_test"].tolist()]
    return torch.stack(columns, dim=1), torch.tensor(labels)


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def offer(server, monkeypatch):
    """Let the server have the files of a set, and the table their checksums."""

    def offer(name, bodies):
        _, published, *rest = images._SOURCES[name]
        files = dict(zip(published, bodies, strict=True))
        server.files.update(files)
        checksums = {file: md5(body) for file, body in files.items()}
        monkeypatch.setitem(images._SOURCES, name, (server.url, checksums, *rest))
        return list(files)

    return offer


def is_right(found, name, arrays):
    X, y = expected(arrays)
    return (
        (found.X - X).abs().max() < 1e-15
        and torch.equal(found.y, y)
        and found.shape == images._SOURCES[name][-1]
        and found.train == len(arrays["x_train"])
        and found.name == name
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# The published files


@each_set
def test_every_pixel_and_label_comes_back(name, offer, server, tmp_path):
    arrays = sample(name)
    files = offer(name, published(name, arrays))
    found = images.fetch_images(name, folder=tmp_path / "new")
    assert is_right(found, name, arrays)
    assert found.X.dtype == torch.float64 and found.y.dtype == torch.int64
    assert found.X.is_contiguous() and (found.X.min(), found.X.max()) == (0, 1)
    single = images.fetch_images(name, folder=tmp_path / "new", dtype=torch.float32)
    assert single.X.dtype == torch.float32 and (single.X - found.X).abs().max() < 1e-7
    # What was published is kept once, as arrays.
    assert names(tmp_path / "new") == [f"{name}.npz"]
    with np.load(tmp_path / "new" / f"{name}.npz", allow_pickle=False) as content:
        for key, A in arrays.items():
            assert content[key].dtype == np.uint8 and np.array_equal(content[key], A)
    assert server.requests == [f"/{file}" for file in files]
    # The next call asks for nothing.
    server.mode = "404"
    assert is_right(images.load_images(name, folder=tmp_path / "new"), name, arrays)
    assert len(server.requests) == len(files)


def test_a_value_that_libsvm_leaves_out_is_the_middle_grey(offer, tmp_path):
    lines = "1 1:-1 256:1\n10 2:0.5\n"
    offer("usps", [bz2.compress(lines.encode())] * 2)
    found = images.fetch_images("usps", folder=tmp_path)
    assert found.y.tolist() == [0, 9, 0, 9] and found.train == 2
    grey = (found.X * 255).round().int()
    assert (grey[0, 0], grey[255, 0], grey[1, 1]) == (0, 255, 191)
    assert (grey[2:255] == 128).all()


def test_what_is_there_of_four_files_is_not_asked_for_again(offer, server, tmp_path):
    arrays, other = sample("mnist"), sample("fashion_mnist", train=20)
    files = offer("mnist", published("mnist", arrays))
    last = server.files.pop(files[-1])
    with pytest.raises(OSError, match=r"^mnist-t10k-labels-idx1-ubyte.gz: wanted .* 404 "):
        images.fetch_images("mnist", folder=tmp_path)
    # Nor are those of the set whose files have the same names taken for them.
    offer("fashion_mnist", published("fashion_mnist", other))
    found = images.fetch_images("fashion_mnist", folder=tmp_path)
    assert is_right(found, "fashion_mnist", other)
    server.files[files[-1]] = last
    server.requests.clear()
    assert is_right(images.fetch_images("mnist", folder=tmp_path), "mnist", arrays)
    assert server.requests == [f"/{files[-1]}"]


@pytest.mark.parametrize("end", ["mirror", "mirror/"])
def test_another_address_and_place(end, offer, server, tmp_path, monkeypatch):
    arrays = sample("usps")
    offer("usps", published("usps", arrays))
    monkeypatch.setitem(images._SOURCES, "usps", ("nowhere", *images._SOURCES["usps"][1:]))
    monkeypatch.setenv("LOP_DATA_DIR", str(tmp_path / "environment"))
    assert is_right(images.load_images("usps", url=server.url + end), "usps", arrays)
    assert server.requests == ["/mirror/usps.bz2", "/mirror/usps.t.bz2"]
    assert names(tmp_path / "environment") == ["usps.npz"]


def test_another_process_may_be_quicker(tmp_path, monkeypatch):
    arrays = sample("mnist")

    def quicker(*request):
        np.savez(tmp_path / "mnist.npz", **arrays)
        raise FileNotFoundError

    monkeypatch.setattr(_files, "fetch", quicker)
    assert is_right(images.fetch_images("mnist", folder=tmp_path), "mnist", arrays)


# Arrays that are there already


def test_smaller_images_will_do(server, tmp_path):
    arrays = sample("mnist", train=3, test=1)
    arrays |= {key: arrays[key][:, :5, :4] for key in ("x_train", "x_test")}
    np.savez(tmp_path / "mnist.npz", **arrays, other=np.zeros(2))
    found = images.fetch_images("mnist", folder=tmp_path)
    assert found.X.shape == (20, 4) and found.shape == (5, 4) and found.train == 3
    assert repr(found) == "Images(mnist, 4 of 5 x 4)" and server.requests == []


GREY, COLOUR = sample("mnist"), sample("cifar10")


@pytest.mark.parametrize(
    ("name", "change", "got"),
    [
        ("mnist", {"x_train": None}, "KeyError: 'x_train is not a file in the archive'"),
        ("mnist", {"x_test": GREY["x_test"] / 1}, "x_test: wanted uint8 (N, 28, 28), got float64"),
        ("mnist", {"x_test": GREY["x_test"][:0]}, "wanted uint8 (N, 28, 28), got uint8 (0, 28, "),
        ("mnist", {"x_test": GREY["x_test"][:, :27]}, "x_test: wanted uint8 (N, 28, 28), got uin"),
        ("mnist", COLOUR, "x_train: wanted images as of shape (28, 28), got (3, 32, 32)"),
        ("cifar10", GREY, "x_train: wanted images as of shape (3, 32, 32), got (28, 28)"),
        ("mnist", {"y_train": GREY["y_train"][:9]}, "y_train: wanted uint8 (10,) of 0 to 9, got"),
        ("mnist", {"y_test": GREY["y_test"][:, None]}, "y_test: wanted uint8 (4,) of 0 to 9, got"),
        ("mnist", {"y_test": GREY["y_test"].astype(int)}, "of 0 to 9, got int64 (4,)"),
        ("mnist", {"y_test": GREY["y_test"] + np.uint8(9)}, "y_test: wanted uint8 (4,) of 0 to 9"),
        ("mnist", {"x_train": np.array([[[{}]]], dtype=object)}, "ValueError: Object arrays canno"),
    ],
)
def test_arrays_that_do_not_fit(name, change, got, server, tmp_path):
    arrays = {**(GREY if name == "mnist" else COLOUR), **change}
    np.savez(tmp_path / f"{name}.npz", **{key: A for key, A in arrays.items() if A is not None})
    wanted = f"{tmp_path / name}.npz: wanted the arrays x_train, y_train, x_test, y_test, got "
    with pytest.raises(OSError, match=f"^{re.escape(wanted)}.*{re.escape(got)}") as error:
        images.fetch_images(name, folder=tmp_path)
    assert str(error.value).endswith("\nDelete the file, and the next call downloads the set anew")
    assert server.requests == []


FILE = io.BytesIO()
np.savez_compressed(FILE, **GREY)
CUT = FILE.getvalue()[:-1]


@pytest.mark.parametrize(
    "content", [b"", b"<html>", CUT, pickle.dumps([1])], ids=["empty", "text", "cut", "pickle"]
)
def test_no_archive_of_arrays(content, server, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(OSError, match=r"mnist.npz: wanted .*\nDelete the file") as error:
        images.fetch_images("mnist", folder=tmp_path)
    assert "unsafe" not in str(error.value) and server.requests == []


def test_what_may_not_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / "mnist.npz").mkdir()
    # Windows calls it a lack of permission
    with pytest.raises((IsADirectoryError, PermissionError), match=r"mnist\.npz"):
        images.fetch_images("mnist", folder=tmp_path)


# The digits, and when they stand in


def test_digits_never_need_a_network(server, tmp_path):
    np.savez(tmp_path / "digits.npz", **sample("mnist"))
    for load in (images.fetch_images, images.load_images):
        digits = load("digits", folder=tmp_path, url="nowhere")
        assert digits.X.shape == (64, 1797) and digits.train == 1797
        assert digits.shape == (8, 8) and digits.name == "digits"
        assert (digits.X.min(), digits.X.max()) == (0, 1) and digits.y.dtype == torch.int64
        single = load("digits", dtype=torch.float32).X
        assert single.dtype == torch.float32 and torch.equal(single.double(), digits.X)
    assert digits.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # One column is one image, row by row: a zero has a dark centre.
    mean_of_zeros = digits.X[:, digits.y == 0].mean(1).reshape(digits.shape)
    assert mean_of_zeros[3:5, 3:5].max() < 0.2 < mean_of_zeros[3:5, 2].min()
    assert server.requests == []


WHY = {
    "refused": "ConnectionError: ",
    "404": "HTTPError: 404",
    "damaged": "ValueError: no archive of arrays",
    "folder is a file": "(NotADirectory|FileExists)Error",
}


@pytest.mark.parametrize("why", WHY)
@each_set
def test_without_the_set_the_digits_stand_in(name, why, offer, server, tmp_path):
    folder = tmp_path / "folder"
    if why == "404":
        server.mode = "404"
        offer(name, published(name, sample(name)))
    elif why == "folder is a file":
        folder.write_text("")
    elif why == "damaged":
        folder.mkdir()
        (folder / f"{name}.npz").write_bytes(CUT)
    with refusing() as url, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        url = url if why == "refused" else None
        found = images.load_images(name, folder=folder, url=url, dtype=torch.float32)
    (warning,) = caught
    text = str(warning.message)
    assert warning.category is UserWarning and warning.filename == __file__
    assert re.match(rf"{name} could not be had \({WHY[why]}", text), text
    assert "scikit-learn's digits of 8 x 8 pixels stand in" in text
    assert text.endswith(f"fetch_images('{name}') says more")
    assert "\n" not in text and len(text) < 300
    assert found.name == "digits" and found.X.dtype == torch.float32


@pytest.mark.parametrize("load", [images.fetch_images, images.load_images])
def test_what_nobody_could_load(load, server):
    known = "digits, mnist, fashion_mnist, usps, cifar10"
    with pytest.raises(ValueError, match=rf"^name: wanted one of {known}, got 'imagenet'$"):
        load("imagenet")
    for name, dtype in (("digits", torch.int64), ("mnist", torch.int64), ("mnist", "float32")):
        with pytest.raises(
            TypeError, match=f"^dtype: wanted a floating-point dtype, got {dtype!r}"
        ):
            load(name, dtype=dtype)
    assert server.requests == []


# The published sets


def test_the_table_is_as_published():
    assert set(images._SOURCES) == set(DOWNLOADED)
    checksums = [md5 for source in images._SOURCES.values() for md5 in source[1].values()]
    assert all(re.fullmatch("[0-9a-f]{32}", checksum) for checksum in checksums)
    assert len(set(checksums)) == 11


PUBLISHED = {
    "mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "fashion_mnist": [6000] * 10,
}
FOLDERS = [Path(__file__).resolve().parents[2] / "shared" / "data"]
if "LOP_DATA_DIR" in os.environ:
    FOLDERS.insert(0, _files.data_folder())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_set(name):
    folder = next((each for each in FOLDERS if (each / f"{name}.npz").is_file()), None)
    if folder is None:
        pytest.skip(f"there is no {name}.npz in LOP_DATA_DIR or beside the repository")
    found = images.fetch_images(name, folder=folder, dtype=torch.float32)
    assert found.X.shape == (784, 70_000) and found.train == 60_000 and found.shape == (28, 28)
    assert found.y[:60_000].bincount().tolist() == PUBLISHED[name]
    assert found.y[60_000:].bincount(minlength=10).sum() == 10_000
    assert (found.X.min(), found.X.max()) == (0, 1)
