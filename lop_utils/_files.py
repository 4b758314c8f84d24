"""Where data lie, checked downloads, and files that are whole or not there."""

import glob
import hashlib
import os
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None

__all__ = ["data_folder", "fetch", "read_torch", "write_whole"]

_TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces of the answer
_RETRIES = 2  # after one and two seconds
_WINDOW, _LEAST = 60.0, 600_000  # so many seconds bring at least so many bytes
_MOST = 1 << 29  # bytes of a file; the largest that is asked for has a third of it


def data_folder(folder: str | os.PathLike | None = None) -> Path:
    """Return where data are kept, as an absolute path that need not exist.

    By default this is what the environment variable ``LOP_DATA_DIR`` says, or else ``lop`` in the
    user's folder for caches.
    """
    import pooch  # only when asked for

    folder = folder or os.environ.get("LOP_DATA_DIR") or pooch.os_cache("lop")
    return Path(folder).expanduser().absolute()


class _Bounded:
    """What a download writes to: a stream, the checksum of what came, and an end to it."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.came, self.md5 = stream, 0, hashlib.md5(usedforsecurity=False)
        self.flush = stream.flush

    def write(self, piece: bytes) -> None:
        self.came += len(piece)
        if self.came > _MOST:
            raise OverflowError(f"more than {_MOST} bytes came")
        self.md5.update(piece)
        self.stream.write(piece)


def _download(url: str, md5: str, stream: BinaryIO) -> None:
    import pooch  # only when asked for

    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=1 << 16,
        timeout=_TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the checksum is that of the file as it lies
        hooks={"response": lambda answer, **_: answers.append(answer)},
    )
    file, answers, failed, before = _Bounded(stream), [], [], 0

    def work() -> None:
        try:
            downloader(url, file, None)
        except BaseException as error:
            failed.append(error)
        for answer in answers:  # pooch leaves one open that is an error or breaks off
            answer.close()

    # A byte now and then keeps every read within its timeout: only from outside is it too slow.
    # A thread that is given up finds its stream closed when the next piece has come.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.join(_WINDOW) or thread.is_alive():
        if file.came - before < _LEAST:
            raise TimeoutError(f"{file.came - before} bytes in the last {_WINDOW:g} seconds")
        before = file.came
    if failed:
        raise failed[0]
    if (got := file.md5.hexdigest()) != md5:
        raise ValueError(f"the MD5 of the {file.came} bytes that came is {got}")


def fetch(url: str, md5: str, file: str, folder: str | os.PathLike | None = None) -> Path:
    """Return where the file with this checksum lies; download it if it is not there yet.

    A file of the name ``file`` in `data_folder` is whole: it gets its name once the checksum is
    right. One that fails the checksum is replaced, by nothing else than the right one.

    Raises
    ------
    OSError
        If the file cannot be had: no network, no answer in time, one that is too slow or has no
        end, an error, another file than expected, a folder that cannot be written, a full disk.
    """
    import pooch  # only when asked for
    import requests

    path = data_folder(folder) / file
    if path.is_file() and pooch.file_hash(str(path), alg="md5") == md5:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for tried in range(_RETRIES + 1):
            try:
                write_whole(path, partial(_download, url, md5))
                break
            except (requests.RequestException, ValueError):  # ValueError: another checksum
                if tried == _RETRIES:
                    raise
                time.sleep(tried + 1)
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, requests.RequestException | TimeoutError):
            remedy = "Check the connection and try again"
        elif isinstance(error, OSError):
            remedy = f"See that {path.parent} can be written and has room, name another folder"
        else:
            remedy = "What came is another file, a network's login page say: try again"
        raise OSError(
            f"{file}: wanted the file with MD5 {md5} from {url}, got {type(error).__name__}: "
            f"{error}\n{remedy}, or get the file in another way and save it as {path}"
        ) from error
    return path


def _lock(stream: BinaryIO, *, wait: bool) -> None:
    if fcntl:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _remove_dead_drafts(path: Path, mine: Path | None = None) -> None:
    """Remove what killed writers of a file left: a draft that nobody has locked."""
    for draft in {*path.parent.glob(f"{glob.escape(path.name)}.????????.draft")} - {mine}:
        with suppress(OSError):  # its writer lives, or is ready by now
            if fcntl:
                with draft.open("rb") as stream:
                    _lock(stream, wait=False)
                    draft.unlink()
            elif time.time() - draft.stat().st_mtime > 60:  # closed, it may be about to be renamed
                draft.unlink()  # which Windows refuses while it is open


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file by way of a draft: under its name it is complete, or as it was before.

    Several may write at once, and the last one wins. A writer that is killed leaves its draft,
    which the next one removes.

    Raises
    ------
    OSError
        What the system says: no such folder, no permission, no room. Other errors are those of
        ``write``.
    """
    handled = sys.exception()
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.draft")
    try:
        while True:
            with draft.open("xb") as stream:
                with suppress(OSError):  # a file system without locks, where no draft is removed
                    _lock(stream, wait=True)
                if not draft.exists():
                    continue  # taken for a dead one's in the moment before it was locked
                _remove_dead_drafts(path, mine=draft)
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())  # or a power cut could leave the name on an empty file
                if not fcntl:  # Windows renames no open file
                    stream.close()
                draft.replace(path)
                return
    except RuntimeError as error:  # torch.save hides behind one what the system says
        if isinstance(error.__context__, OSError) and error.__context__ is not handled:
            raise error.__context__ from None
        raise
    finally:
        draft.unlink(missing_ok=True)


def read_torch(file: str | Path, format: str) -> dict[str, Any]:
    """Return the dictionary that `torch.save` wrote, if its ``format`` is the one wanted.

    Raises
    ------
    ValueError
        If the file is damaged or something else; names it.
    OSError
        If it is not there or cannot be read.
    """
    # Where there is no GPU, a file written on one must open all the same.
    place = None if torch.cuda.is_available() else "cpu"
    try:
        with zipfile.ZipFile(file) as archive:  # torch writes check sums but does not read them
            if (member := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{member} has another check sum")
        content = torch.load(file, map_location=place, weights_only=True)
        known = content["format"] == format
    except OSError:  # there is no such file, or it may not be read: Python's own words name it
        raise
    except Exception as error:  # torch has half a dozen kinds for a file that is not one
        raise ValueError(f"file: wanted a run that was saved, got {file}, damaged") from error
    if not known:
        raise ValueError(f"file: wanted a run that was saved, got {file}, which holds others' data")
    return content
