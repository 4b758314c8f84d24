"""Run a program that may be hostile: bounded in time, memory, processes and disk, and shut in.

What bounds it everywhere is a clock, the limits of the shell, and a watch over the whole tree of
processes. What shuts it in is bubblewrap, where it is installed and the system lets it make
namespaces: then there is no network, nothing of the disk can be written, folders that are named
are not even seen, and no process outlives the first.
"""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
WATCH = 0.2  # seconds between two looks at the processes
TAIL = 2000  # characters kept of what the program says
DEEPEST = 100  # folders within folders


class Limits(NamedTuple):
    """What one program may take."""

    seconds: float = 300.0
    memory: float = 4.0  # GiB, of all its processes together
    disk: float = 0.25  # GiB, of its folder and of each file
    processes: int = 64


LIMITS = Limits()


class Outcome(NamedTuple):
    """How it ended: "done", or which limit it met."""

    status: str
    code: int | None
    seconds: float
    said: str


# A view of the disk that cannot be written, with processes and devices of its own.
ROOM = "--unshare-all --die-with-parent --new-session --ro-bind / / --dev /dev --proc /proc".split()


@cache
def bubblewrap():
    """Return the path of bubblewrap if it can shut in here, else None."""
    path = shutil.which("bwrap")
    if path is None:
        return None
    tried = [path, *ROOM, "--size", "65536", "--tmpfs", "/tmp", "true"]
    worked = subprocess.run(tried, check=False, capture_output=True).returncode == 0
    return path if worked else None


def protection():
    """Say in a sentence what a program can and cannot reach here."""
    if bubblewrap():
        return "shut in by bubblewrap: no network, no writing outside of its own folder"
    return (
        "NOT shut in: a submission can use the network and can read and write what you can. "
        "Install bubblewrap (Linux), or grade on a machine that holds nothing of value"
    )


def walls(folder, limits, hidden):
    """Return the beginning of a command that shuts in what follows; empty without bubblewrap."""
    if bubblewrap() is None:
        return []

    def empty(path, size):
        return ["--size", str(int(size)), "--tmpfs", str(path)]

    pythons = (sys.prefix, sys.base_prefix, Path(sys.executable).resolve().parent.parent)
    shown = [ROOT, *dict.fromkeys(Path(path).resolve() for path in pythons)]
    hidden = [Path(path) for path in hidden if Path(path).is_dir()]
    above = [path for path in hidden if any(each.is_relative_to(path) for each in shown)]
    command = [bubblewrap(), *ROOM]
    for path in ("/tmp", "/dev/shm", Path.home(), *above):
        command += empty(path, limits.disk * GIB)
    for path in shown:  # after what hides a folder above it
        command += ["--ro-bind", str(path), str(path)]
    for path in hidden:
        if path not in above:
            command += empty(path, 2**16)
    return [*command, "--bind", str(folder), str(folder), "--chdir", str(folder)]


@contextmanager
def fresh_folder():
    """Give a new folder; it is removed however deep or locked it has become."""
    folder = Path(tempfile.mkdtemp(prefix="grading-")).resolve()
    try:
        yield folder
    finally:  # Python's own way down ends a thousand folders deep
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, folder], check=False, stderr=subprocess.DEVNULL)


def run(command, folder, limits=LIMITS, hidden=()):
    """Run a command in a folder of its own; it ends by itself or at the first limit it meets.

    Where bubblewrap shuts in, /tmp, the home folder and the folders ``hidden`` are empty, but for
    the book and Python, wherever these are.
    """
    folder = Path(folder).resolve()
    # bash's own limits: -v bounds one process, the watch below all of them together.
    bounded = (
        f"ulimit -c 0; ulimit -f {int(limits.disk * 2**20)};"
        f" ulimit -v {int((limits.memory + 8) * 2**20)} 2>/dev/null;"
        ' exec "$@"'
    )
    started = time.monotonic()
    # No name, so that nothing can be put in its place: a pipe would be read for ever.
    with tempfile.TemporaryFile() as said:
        process = psutil.Popen(
            [*walls(folder, limits, hidden), "bash", "-c", bounded, "bash", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=own_environment(folder),
            start_new_session=True,
        )
        family = {process.pid: process}
        try:
            status = watch(process, family, folder, limits, started)
        finally:
            kill(family)
            process.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
        text = said.read(TAIL).decode("utf-8", "replace")
    return Outcome(status, process.returncode, time.monotonic() - started, text)


def own_environment(folder):
    """Return the environment: no secrets of ours, nothing outside of the folder to write to."""
    kept = ("LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "IPYTHONDIR": f"{folder}/.ipython",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{folder}/.matplotlib",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": path,
    }


def watch(process, family, folder, limits, started):
    """Wait for the end, learning the family; return "done", or the limit that is exceeded."""
    while True:
        with suppress(psutil.TimeoutExpired):
            process.wait(timeout=WATCH)
            return "done"
        with suppress(psutil.NoSuchProcess):
            family.update((child.pid, child) for child in process.children(recursive=True))
        memory = [bytes_of(each) for each in family.values() if each.is_running()]
        if time.monotonic() - started > limits.seconds:
            return "time"
        if sum(memory) > limits.memory * GIB:
            return "memory"
        if len(memory) > limits.processes:
            return "processes"
        if used(folder) > limits.disk * GIB:
            return "disk"


def bytes_of(process):
    """Return the memory of one process."""
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def used(folder):
    """Return the bytes of all files below a folder; one without a bottom has no end of them."""
    total, waiting = 0, [(folder, 0)]
    while waiting:
        where, depth = waiting.pop()
        if depth > DEEPEST:
            return math.inf
        with suppress(OSError), os.scandir(where) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))
                with suppress(OSError):  # gone meanwhile
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def kill(processes):
    """Kill all of them, and what they have started meanwhile."""
    for process in processes.values():
        with suppress(psutil.Error):
            for child in process.children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
            process.kill()
