"""Downloads: never half a file, whatever goes wrong, and no byte asked for twice."""

import gc
import gzip
import logging
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pooch
import pytest
from loopback import md5, refusing, serving

from lop_utils import downloads

GOOD = np.random.default_rng(0).bytes(300_000)
FILE, PART = "numbers.bin", "numbers.bin.part"


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        server.files[FILE] = GOOD
        yield server


@pytest.fixture
def get(server):
    """Fetch the file into a folder."""

    def get(folder, body=GOOD, url=None):
        return downloads.fetch(url or server.url + FILE, md5(body), FILE, folder=folder)

    return get


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# One call


def test_a_good_answer_is_kept_and_nothing_is_printed(get, server, tmp_path, capfd, monkeypatch):
    # pooch's own handler keeps the stderr of its import; this one has the captured one.
    monkeypatch.setattr(pooch.get_logger(), "handlers", [logging.StreamHandler(sys.stderr)])
    folder = tmp_path / "new" / "folder"
    assert get(folder) == folder / FILE
    assert content(folder) == {FILE: GOOD}
    server.mode = "404"
    assert get(folder) == folder / FILE
    assert server.requests == [(f"/{FILE}", None)]
    assert capfd.readouterr() == ("", "")
    assert pooch.get_logger().level == 0


def test_the_logger_of_others_is_as_before_after_a_failure(get, server, tmp_path, monkeypatch):
    server.mode = "404"
    monkeypatch.setattr(pooch.get_logger(), "level", 17)
    with pytest.raises(OSError, match="404"):
        get(tmp_path)
    assert pooch.get_logger().level == 17


def test_bytes_are_kept_as_they_lie_on_the_server(get, server, tmp_path):
    server.mode = "encoding said"
    server.files[FILE] = body = gzip.compress(GOOD)
    assert get(tmp_path, body).read_bytes() == body


def test_no_server(get, tmp_path):
    with refusing() as url, pytest.raises(OSError, match=rf"(?s)from {url}, got .* refused"):
        get(tmp_path, url=url)
    assert content(tmp_path) == {}


def test_an_address_of_no_kind(get, tmp_path):
    with pytest.raises(OSError, match="from nowhere, got MissingSchema: Invalid URL 'nowhere'"):
        get(tmp_path, url="nowhere")
    assert content(tmp_path) == {}


def test_a_folder_that_is_a_file(get, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=rf"^{FILE}: wanted .*, got (NotADirectory|FileExists)"):
        get(tmp_path / "file")


def test_where_the_file_is_kept(get, tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    assert get(None) == tmp_path / "cache" / "lop" / FILE
    monkeypatch.setenv("LOP_DATA_DIR", str(tmp_path / "environment"))
    assert get(None) == tmp_path / "environment" / FILE
    assert get(str(tmp_path / "argument")) == tmp_path / "argument" / FILE
    for home in ("HOME", "USERPROFILE"):  # the second on Windows
        monkeypatch.setenv(home, str(tmp_path))
    assert downloads.data_folder("~/x") == tmp_path / "x"


# One call that fails, and the next


# The server says how much there should have been. A reset may take along what lies unread.
BROKEN = ("truncated", "stalled", "reset")
FAILURES = {
    "404": "HTTPError: 404 Client Error",
    "500": "HTTPError: 500 Server Error",
    "truncated": "IncompleteRead",
    "cut, length unsaid": "ValueError: MD5 hash of downloaded file .* does not match",
    "reset": "ConnectionResetError|Connection reset|Connection broken",
    "stalled": "timed out",
    "page": "ValueError: MD5 hash of downloaded file .* does not match",
}


def attempt(get, server, folder, mode):
    """Return the error of a call and what it leaves."""
    server.mode = mode
    try:
        error = get(folder)
    except Exception as raised:
        error = raised
    return error, content(folder)


@pytest.mark.parametrize("mode", FAILURES)
def test_a_bad_answer_leaves_no_file(get, server, tmp_path, mode):
    error, left = attempt(get, server, tmp_path, mode)
    assert isinstance(error, OSError)
    wanted = f"^{FILE}: wanted the file with MD5 {md5(GOOD)} from {server.url}{FILE}, got "
    assert re.match(wanted, str(error)) and re.search(FAILURES[mode], str(error))
    assert str(error).endswith(f"and save it as {tmp_path / FILE}")
    if mode in BROKEN and left:
        assert f"\n{len(left[PART])} bytes are kept in {PART}: the next call" in str(error)
    else:
        assert left == {} and mode not in BROKEN[:2] and "\nNothing was kept of it." in str(error)
    assert len(server.requests) == 1
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})


@pytest.mark.parametrize("mode", ["truncated", "cut, length unsaid", "page"])
def test_a_careless_download_would_leave_a_file(server, tmp_path, mode):
    def careless(folder):
        path = folder / FILE
        if not path.exists():
            with urllib.request.urlopen(server.url + FILE, timeout=5) as answer:
                with path.open("wb") as out:
                    while piece := answer.read(1000):
                        out.write(piece)
        return path

    attempt(careless, server, tmp_path, mode)
    _, left = attempt(careless, server, tmp_path, "good")
    assert left.keys() == {FILE} and left[FILE] != GOOD


@pytest.mark.parametrize("mode", FAILURES)
def test_no_connection_stays_open(get, server, tmp_path, mode):
    attempt(get, server, tmp_path, mode)
    gc.collect()  # an open socket would warn now, and a warning is an error


@pytest.mark.parametrize("old", [b"", GOOD[:1000], GOOD + b"\n", b"<html>"])
def test_a_broken_file_is_replaced(get, server, tmp_path, old):
    (tmp_path / FILE).write_bytes(old)
    for _ in range(2):  # not taken, even where no better one comes
        error, left = attempt(get, server, tmp_path, "truncated")
        assert "IncompleteRead" in str(error) and left[FILE] == old
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})


def test_what_others_leave_is_not_taken(get, server, tmp_path):
    (tmp_path / "tmpabcdef").write_bytes(GOOD[:100])
    assert get(tmp_path).read_bytes() == GOOD
    assert server.requests == [(f"/{FILE}", None)]


# Going on


@pytest.mark.parametrize("mode", BROKEN[:2])
def test_only_the_rest_is_asked_for_and_sent(get, server, tmp_path, mode):
    _, left = attempt(get, server, tmp_path, mode)
    have = len(left[PART])
    # Half of it was sent; less than a piece of that may be lost with the connection.
    assert len(GOOD) // 2 - downloads._PIECE < have <= len(GOOD) // 2
    assert left == {PART: GOOD[:have]}
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})
    assert server.requests[1:] == [(f"/{FILE}", f"bytes={have}-")]
    assert server.sent[1:] == [len(GOOD) - have]


def test_a_bad_line_wins_in_the_end(get, server, tmp_path):
    sizes = [0]
    for _ in range(6):
        _, left = attempt(get, server, tmp_path, "truncated")
        sizes.append(len(left[PART]))
        assert left == {PART: GOOD[: sizes[-1]]}
    assert sizes == sorted(set(sizes))
    server.mode = "good"
    get(tmp_path, url=server.url + "mirror/" + FILE)  # another address does as well
    assert content(tmp_path) == {FILE: GOOD}
    assert server.requests[-1] == (f"/mirror/{FILE}", f"bytes={sizes[-1]}-")


@pytest.mark.parametrize("mode", ["404", "500"])
def test_an_error_of_the_server_costs_nothing(get, server, tmp_path, mode):
    (tmp_path / PART).write_bytes(GOOD[:1000])
    error, left = attempt(get, server, tmp_path, mode)
    assert mode in str(error) and "1000 bytes are kept" in str(error)
    assert left == {PART: GOOD[:1000]}


def test_nor_does_a_day_without_a_network(get, tmp_path):
    (tmp_path / PART).write_bytes(GOOD[:1000])
    with refusing() as url, pytest.raises(OSError, match="1000 bytes are kept"):
        get(tmp_path, url=url)
    assert content(tmp_path) == {PART: GOOD[:1000]}


@pytest.mark.parametrize(
    ("mode", "requests"), [("ranges unknown", 1), ("another range", 2), ("range unsaid", 2)]
)
def test_a_server_that_knows_no_ranges(get, server, tmp_path, mode, requests):
    (tmp_path / PART).write_bytes(GOOD[:1000])
    assert attempt(get, server, tmp_path, mode) == (tmp_path / FILE, {FILE: GOOD})
    asked = [f"bytes={1000}-", None][:requests]
    assert server.requests == [(f"/{FILE}", span) for span in asked]


@pytest.mark.parametrize("part", [GOOD, GOOD + b"more", bytes(400_000)], ids=len)
def test_a_part_that_is_not_less_than_the_whole(get, server, tmp_path, part):
    (tmp_path / PART).write_bytes(part)
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})
    assert [span for _, span in server.requests] == [f"bytes={len(part)}-", None]


def test_a_part_of_another_file(get, server, tmp_path):
    (tmp_path / PART).write_bytes(bytes(1000))
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})
    assert [span for _, span in server.requests] == ["bytes=1000-", None]


def test_a_file_that_was_changed_on_the_server(get, server, tmp_path):
    """Neither its rest nor the whole of it has the checksum: one fresh download, then an error."""
    (tmp_path / PART).write_bytes(GOOD[:1000])
    server.files[FILE] = GOOD[::-1]
    error, left = attempt(get, server, tmp_path, "good")
    assert re.search(FAILURES["page"], str(error)) and left == {}
    assert [span for _, span in server.requests] == ["bytes=1000-", None]


def test_an_interrupt_half_way_is_gone_on_from(get, server, tmp_path, monkeypatch):
    class Interrupted:
        pieces = 0

        def write(self, piece):
            self.pieces += 1
            if self.pieces == 3:
                raise KeyboardInterrupt
            return self.stream.write(piece)

        def __getattr__(self, name):
            return getattr(self.stream, name)

    receive = downloads._receive

    def interrupted(url, stream):
        wrapped = Interrupted()
        wrapped.stream = stream
        return receive(url, wrapped)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(downloads, "_receive", interrupted)
        get(tmp_path)
    have = 2 * downloads._PIECE
    assert content(tmp_path) == {PART: GOOD[:have]}
    assert get(tmp_path).read_bytes() == GOOD
    assert server.requests[1:] == [(f"/{FILE}", f"bytes={have}-")]


def test_a_killed_process_is_gone_on_from(get, server, tmp_path):
    server.mode = "stalled"
    code = f"from lop_utils import downloads; downloads.fetch({server.url + FILE!r}, "
    code += f"{md5(GOOD)!r}, {FILE!r}, folder={str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        part, deadline = tmp_path / PART, time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 100_000):
            assert time.monotonic() < deadline, "nothing arrived"
            time.sleep(0.01)
        process.kill()
    have = part.stat().st_size
    assert part.read_bytes() == GOOD[:have]
    server.mode = "good"
    assert get(tmp_path).read_bytes() == GOOD
    assert server.requests[1:] == [(f"/{FILE}", f"bytes={have}-")] and not part.exists()


# Two at once


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_two_at_once_do_not_write_into_one_part(get, server, tmp_path, monkeypatch):
    receive, begun, go_on = downloads._receive, threading.Event(), threading.Event()

    def slow(url, stream):
        begun.set()
        assert go_on.wait(10)
        return receive(url, stream)

    (tmp_path / PART).write_bytes(GOOD[:1000])
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_receive", slow)
        first = threading.Thread(target=lambda: found.append(get(tmp_path)))
        first.start()
        assert begun.wait(10)
    assert get(tmp_path).read_bytes() == GOOD
    go_on.set()
    first.join()
    assert found == [tmp_path / FILE] and content(tmp_path) == {FILE: GOOD}
    assert [span for _, span in server.requests] == [None, "bytes=1000-"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_a_file_system_without_locks(get, server, tmp_path, monkeypatch):
    import fcntl

    def unknown(stream, operation):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert attempt(get, server, tmp_path, "truncated")[1] == {}
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})


def test_a_system_without_fcntl(get, server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert attempt(get, server, tmp_path, "truncated")[1].keys() == {PART}
    assert attempt(get, server, tmp_path, "good") == (tmp_path / FILE, {FILE: GOOD})


@pytest.mark.skipif(os.name == "nt", reason="folders have no such mode")
def test_a_file_in_a_folder_that_cannot_be_written(get, server, tmp_path):
    Path(tmp_path, FILE).write_bytes(GOOD)
    tmp_path.chmod(0o500)
    try:
        assert get(tmp_path) == tmp_path / FILE and server.requests == []
    finally:
        tmp_path.chmod(0o700)
