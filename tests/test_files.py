"""Downloads are checked or not there; a file is written whole or stays as it was."""

import contextlib
import gc
import os
import re
import subprocess
import time

import numpy as np
import pooch
import pytest
import torch
from loopback import md5, refusing, serving

from lop_utils import _files

GOOD = np.random.default_rng(0).bytes(300_000)
FILE = "numbers.bin"


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        server.files[FILE] = GOOD
        yield server


@pytest.fixture
def get(server):
    """Fetch the file into a folder."""

    def get(folder, url=None):
        return _files.fetch(url or server.url + FILE, md5(GOOD), FILE, folder)

    return get


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_good_answer_is_kept_and_nothing_is_printed(get, server, tmp_path, capfd):
    folder = tmp_path / "new" / "folder"
    assert get(folder) == folder / FILE and content(folder) == {FILE: GOOD}
    server.mode = "404"
    assert get(folder) == folder / FILE and server.requests == [f"/{FILE}"]
    with pytest.raises(OSError, match="404"):
        get(tmp_path / "other")
    assert capfd.readouterr() == ("", "")


def test_where_the_file_is_kept(get, tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    assert get(None) == tmp_path / "cache" / "lop" / FILE
    monkeypatch.setenv("LOP_DATA_DIR", str(tmp_path / "environment"))
    assert get(None) == tmp_path / "environment" / FILE
    assert get(str(tmp_path / "argument")) == tmp_path / "argument" / FILE
    for home in ("HOME", "USERPROFILE"):  # the second on Windows
        monkeypatch.setenv(home, str(tmp_path))
    assert _files.data_folder("~/x") == tmp_path / "x"


CONNECTION, ANOTHER = "Check the connection and try again", "What came is another file"
FAILURES = {
    "404": ("HTTPError: 404 Client Error", CONNECTION),
    "truncated": ("IncompleteRead", CONNECTION),
    "stalled": ("timed out", CONNECTION),
    "drip": ("TimeoutError: 0 bytes in the last 1 seconds", CONNECTION),
    "drip in the head": ("TimeoutError: 0 bytes in the last 1 seconds", CONNECTION),
    "endless": ("OverflowError: more than 1048576 bytes came", ANOTHER),
    "cut, length unsaid": ("ValueError: the MD5 of the 150000 bytes that came is", ANOTHER),
    "page": ("ValueError: the MD5 of the 26 bytes that came is", ANOTHER),
}


@pytest.mark.parametrize("old", [None, GOOD[:1000]], ids=["new", "broken-file-there"])
@pytest.mark.parametrize("mode", FAILURES)
def test_a_bad_answer_leaves_things_as_they_were(get, server, tmp_path, mode, old):
    if old:
        (tmp_path / FILE).write_bytes(old)
    before, server.mode, (got, remedy) = content(tmp_path), mode, FAILURES[mode]
    with pytest.raises(OSError, match=got) as error:
        get(tmp_path)
    wanted = f"{FILE}: wanted the file with MD5 {md5(GOOD)} from {server.url}{FILE}, got "
    assert str(error.value).startswith(wanted) and f"\n{remedy}" in str(error.value)
    assert str(error.value).endswith(f"and save it as {tmp_path / FILE}")
    assert content(tmp_path) == before and len(server.requests) == 1
    gc.collect()  # an open socket would warn now, and a warning is an error
    server.mode = "good"
    assert get(tmp_path).read_bytes() == GOOD


def test_no_server_and_no_address(get, tmp_path):
    with refusing() as url, pytest.raises(OSError, match=rf"(?s)from {url}, got .* refused"):
        get(tmp_path, url=url)
    with pytest.raises(OSError, match="from nowhere, got MissingSchema: Invalid URL 'nowhere'"):
        get(tmp_path, url="nowhere")
    assert content(tmp_path) == {}


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_connection(get, server, tmp_path):
    (tmp_path / "file").write_text("")
    wanted = rf"^{FILE}: wanted .*, got (NotADirectory|FileExists)(?s:.*)can be written and has roo"
    with pytest.raises(OSError, match=wanted) as error:
        get(tmp_path / "file")
    assert "connection" not in str(error.value) and server.requests == []


def test_a_failure_is_tried_again(get, server, tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_RETRIES", 1)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.mode = "once 404"
    assert get(tmp_path).read_bytes() == GOOD and len(server.requests) == 2


# Files that are written


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_what_breaks_off_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"

    def broken(stream):
        stream.write(b"ne")
        raise error

    for before in ({}, {"a.bin": b"old"}):
        with pytest.raises(error):
            try:
                raise OSError("which the caller is handling")
            except OSError:
                _files.write_whole(path, broken)
        assert content(tmp_path) == before
        _files.write_whole(path, lambda stream: stream.write(b"old"))
    _files.write_whole(path, lambda stream: stream.write(b"new"))
    assert content(tmp_path) == {"a.bin": b"new"}


def test_nothing_is_there_before_it_is_whole_and_two_may_write_at_once(tmp_path):
    path = tmp_path / "a.bin"

    def outer(stream):
        stream.write(b"outer")
        _files.write_whole(path, lambda other: other.write(b"inner"))
        assert path.read_bytes() == b"inner"

    _files.write_whole(path, outer)
    assert content(tmp_path) == {"a.bin": b"outer"}


WRITERS = {
    "bytes": lambda stream: stream.write(bytes(100_000)),
    "numpy": lambda stream: np.savez(stream, a=np.zeros(100_000)),
    "torch": lambda stream: torch.save({"a": torch.zeros(100_000)}, stream),
}


@contextlib.contextmanager
def small_limit(folder):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        yield "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def small_disk(folder):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only who may mount a file system can fill a small one")
    try:
        yield "No space left on device"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("full", [small_limit, small_disk])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_what_the_system_says(write, full, tmp_path):
    with full(tmp_path) as words:
        _files.write_whole(tmp_path / "a.bin", lambda stream: stream.write(b"old"))
        with pytest.raises(OSError, match=re.escape(words)):
            _files.write_whole(tmp_path / "a.bin", write)
        assert content(tmp_path) == {"a.bin": b"old"}


def test_drafts_of_the_dead_go_and_no_others(tmp_path, monkeypatch):
    path, others = tmp_path / "[a].bin", ("[a].bin.draft", "a.bin.01234567.draft", "notes.draft")
    for name in ("[a].bin.01234567.draft", *others):
        (tmp_path / name).write_bytes(b"dead")
        os.utime(tmp_path / name, (0, 0))

    def outer(stream):  # which lives
        _files.write_whole(path, lambda other: other.write(b"inner"))
        stream.write(b"outer")

    _files.write_whole(path, outer)
    assert content(tmp_path) == {path.name: b"outer"} | dict.fromkeys(others, b"dead")


def test_a_draft_that_is_taken_for_a_dead_one_is_begun_again(tmp_path, monkeypatch):
    if _files.fcntl is None:
        pytest.skip("Windows removes no open file")
    path, lock = tmp_path / "a.bin", _files._lock

    def late(stream, wait):
        monkeypatch.setattr(_files, "_lock", lock)
        _files._remove_dead_drafts(path)
        lock(stream, wait=wait)

    monkeypatch.setattr(_files, "_lock", late)
    _files.write_whole(path, lambda stream: stream.write(b"all"))
    assert content(tmp_path) == {"a.bin": b"all"}


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        _files.write_whole(tmp_path / "none" / "a.bin", WRITERS["bytes"])
