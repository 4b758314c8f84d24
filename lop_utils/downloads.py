"""Files from the network: checked, whole or not there at all, and taken up where they broke off."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

__all__ = ["data_folder", "fetch"]

_TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces of the answer
_PIECE = 1 << 14  # bytes; a connection that breaks loses less than this


def data_folder(folder: str | os.PathLike | None = None) -> Path:
    """Say where data are kept.

    Parameters
    ----------
    folder : str or path, optional
        By default what the environment variable ``LOP_DATA_DIR`` says, or else ``lop`` in the
        user's folder for caches.

    Returns
    -------
    Path
        Absolute; it need not exist.

    Examples
    --------
    >>> data_folder("data") == Path.cwd() / "data"
    True
    """
    import pooch  # only when asked for

    folder = folder or os.environ.get("LOP_DATA_DIR") or pooch.os_cache("lop")
    return Path(folder).expanduser().absolute()


def _alone(stream: BinaryIO) -> bool:
    """Lock a file until it is closed, unless another process has; the system frees a dead one's."""
    try:
        import fcntl
    except ImportError:  # Windows: two at once would spoil the part, and the checksum finds it
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or a file system without locks
        return False
    return True


@contextmanager
def _opened(part: Path) -> Iterator[BinaryIO | None]:
    """Open what is kept of a file, or give nothing while another process fills it."""
    try:
        with part.open("a+b") as stream:
            yield stream if _alone(stream) else None
    finally:
        with suppress(OSError):
            if part.stat().st_size == 0:
                part.unlink()


def _receive(url: str, stream: BinaryIO) -> bool:
    """Append what the stream lacks, or begin it anew; return whether it was gone on with."""
    import requests

    start = stream.seek(0, os.SEEK_END)
    # The bytes as they lie on the server: positions are theirs, and so is the checksum.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        span = answer.headers.get("Content-Range", "")
        goes_on = start > 0 and answer.status_code == 206 and span.startswith(f"bytes {start}-")
        useless = start > 0 and not goes_on and answer.status_code in (206, 416)
        if not useless:
            answer.raise_for_status()
            if not goes_on:
                stream.truncate(0)
            for piece in answer.raw.stream(_PIECE, decode_content=False):
                stream.write(piece)
            return goes_on
    stream.truncate(0)
    return _receive(url, stream)


class _Download:
    """What pooch calls to bring a file to its place: by way of the part, which outlives it."""

    def __init__(self, part: Path):
        self.part, self.resumed = part, False

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        with _opened(self.part) as kept, open(output_file, "w+b") as out:
            self.resumed = _receive(url, out if kept is None else kept)
            if kept is not None:
                # Copied, not renamed: who else has the part open must never write into the copy.
                kept.seek(0)
                shutil.copyfileobj(kept, out)
                kept.truncate(0)


def _retrieve(url: str, md5: str, path: Path, download: _Download) -> None:
    import pooch

    retrieve = partial(pooch.retrieve, url, f"md5:{md5}", fname=path.name, path=path.parent)
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")  # else it prints each download
    try:
        retrieve(downloader=download)
    except ValueError:  # the checksum: perhaps the parts were of two files
        if not download.resumed:
            raise
        retrieve(downloader=download)
    finally:
        log.setLevel(level)


def fetch(url: str, md5: str, file: str, *, folder: str | os.PathLike | None = None) -> Path:
    """Return where the file with this checksum lies; download it only if it is not there yet.

    A file under the name ``file`` is whole: pooch downloads under another name and renames once
    the checksum is right. What has arrived when a download breaks off is kept as ``FILE.part``,
    and the next call asks the server for the rest. Where the parts do not make the file, because
    they are of two files, it is downloaded once more from the start.

    Parameters
    ----------
    url : str
        Address, http or https.
    md5 : str
        The checksum, 32 hexadecimal digits.
    file : str
        Its name in the folder. One of this name that fails the checksum is replaced.
    folder : str or path, optional
        Where to keep it; see `data_folder`.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If the file cannot be had: no network, no answer in time, an error or a file that is
        cut off or another than expected, a folder that cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     size = Path(folder, "word.txt").write_text("hello")
    ...     fetch("http://x/y", "5d41402abc4b2a76b9719d911017c592", "word.txt", folder=folder).name
    'word.txt'
    """
    import urllib3  # requests stands on it; both come with pooch

    path = data_folder(folder) / file
    download = _Download(path.with_name(f"{file}.part"))
    try:
        _retrieve(url, md5, path, download)
    # The errors of requests are OSErrors, those of urllib3 are not.
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        kept = "Nothing was kept of it."
        if download.part.is_file():
            size = download.part.stat().st_size
            kept = f"{size} bytes are kept in {download.part.name}: the next call gets the rest."
        raise OSError(
            f"{file}: wanted the file with MD5 {md5} from {url}, "
            f"got {type(error).__name__}: {error}\n{kept} Check the connection "
            f"and try again, or get the file in another way and save it as {path}"
        ) from error
    return path
