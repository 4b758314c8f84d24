"""Where data lie, checked downloads, and files that are whole or not there."""

import os
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

__all__ = ["data_folder", "fetch", "read_torch", "write_whole"]

_TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces of the answer
_RETRIES = 2  # after one and two seconds


def data_folder(folder: str | os.PathLike | None = None) -> Path:
    """Return where data are kept, as an absolute path that need not exist.

    By default this is what the environment variable ``LOP_DATA_DIR`` says, or else ``lop`` in the
    user's folder for caches.
    """
    import pooch  # only when asked for

    folder = folder or os.environ.get("LOP_DATA_DIR") or pooch.os_cache("lop")
    return Path(folder).expanduser().absolute()


def fetch(url: str, md5: str, file: str, folder: str | os.PathLike | None = None) -> Path:
    """Return where the file with this checksum lies; download it if it is not there yet.

    A file of the name ``file`` in `data_folder` is whole: pooch downloads under another name and
    renames once the checksum is right. One that fails the checksum is replaced.

    Raises
    ------
    OSError
        If the file cannot be had: no network, no answer in time, an error, another file than
        expected, a folder that cannot be written, a full disk.
    """
    import pooch  # only when asked for
    import requests

    path = data_folder(folder) / file
    store = pooch.create(
        path.parent,
        base_url="",
        registry={file: f"md5:{md5}"},
        urls={file: url},
        retry_if_failed=_RETRIES,
    )
    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        timeout=_TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the checksum is that of the file as it lies
        # pooch leaves an answer that is an error open.
        hooks={"response": lambda answer, **_: None if answer.ok else answer.close()},
    )
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")  # else it prints each download
    try:
        store.fetch(file, downloader=download)
    except (OSError, ValueError) as error:  # ValueError: another checksum
        if isinstance(error, requests.RequestException):
            remedy = "Check the connection and try again"
        elif isinstance(error, ValueError):
            remedy = "What came is another file, a network's login page say: try again"
        else:
            remedy = f"See that {path.parent} can be written and has room, name another folder"
        raise OSError(
            f"{file}: wanted the file with MD5 {md5} from {url}, got {type(error).__name__}: "
            f"{error}\n{remedy}, or get the file in another way and save it as {path}"
        ) from error
    finally:
        log.setLevel(level)
    return path


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file by way of a draft: under its name it is complete, or as it was before.

    Raises
    ------
    OSError
        What the system says: no such folder, no permission, no room. Other errors are those of
        ``write``.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.draft")  # others may write, too
    try:
        with draft.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut could leave the new name on an empty file
        draft.replace(path)
    except RuntimeError as error:  # torch.save hides behind one what the system says
        if isinstance(error.__context__, OSError):
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
