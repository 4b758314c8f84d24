"""Where a student's notebook runs: behind walls, within limits, as far as this system has them.

bubblewrap shows the host (``worker.py``) nothing but Python, the package and itself, all of it
read-only, without a network; for each submission the host then forks into namespaces of its own.
A control group bounds memory where the system lets us have one. What holds here, ``protection``
says.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from grading.wire import Channel
from grading.worker import VISITS, WORK

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent


class Limits(NamedTuple):
    """What one submission may take."""

    seconds: float = 60.0  # of the processor, for one cell, or one call of an answer
    memory: float = 4.0  # GiB, of all its processes together
    disk: float = 0.25  # GiB
    processes: int = 64  # threads, too

    @property
    def total(self):
        """The seconds of everything, by the clock."""
        return 10 * self.seconds


LIMITS = Limits()
BASE = """--unshare-all --unshare-user --uid 1000 --gid 1000 --cap-drop ALL --die-with-parent
--new-session --clearenv --dev /dev --proc /proc""".split()


def outside():
    """Return the paths of Python and the package that a notebook needs to see."""
    found = [sys.prefix, sys.base_prefix, Path(sys.executable).resolve().parent.parent]
    import torch

    found += [Path(torch.__file__).parent.parent, ROOT / "lop_utils"]
    found = sorted({Path(path).resolve() for path in found} - {Path("/usr")})
    return [each for each in found if not any(each.is_relative_to(o) for o in found if o != each)]


def command(limits):
    """Return the beginning of a command that shuts in what follows."""
    said = [shutil.which("bwrap"), *BASE]
    for path in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/sys/devices/system/cpu"):
        if Path(path).is_symlink():
            said += ["--symlink", os.readlink(path), path]
        else:
            said += ["--ro-bind-try", path, path]
    for path in outside():
        said += ["--ro-bind", str(path), str(path)]
    for file in ("__init__.py", "worker.py", "wire.py"):
        said += ["--ro-bind", str(HERE / file), f"/grader/grading/{file}"]
    said += ["--size", str(int(limits.disk * 2**30)), "--tmpfs", WORK]
    for name, value in environment(WORK).items():
        said += ["--setenv", name, value]
    return [*said, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORK]


def environment(folder):
    """Return the environment of a notebook: no secrets of ours."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    return kept | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "IPYTHONDIR": f"{folder}/.ipython",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{folder}/.matplotlib",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@cache
def bubblewrap():
    """Say whether bubblewrap is there and can shut in."""
    if shutil.which("bwrap") is None:
        return False
    tried = [*command(LIMITS), "true"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


# --- Memory, where the kernel counts it -----------------------------------------------------


@cache
def systemd():
    """Return the command that gives a process a control group, if there is a systemd that does."""
    if path := shutil.which("systemd-run"):
        user = [] if os.geteuid() == 0 else ["--user"]
        said = [path, *user, "--scope", "--quiet", "--collect"]
        tried = subprocess.run([*said, "true"], check=False, capture_output=True)
        return said if tried.returncode == 0 else None
    return None


@cache
def group_folder():
    """Return a folder of control groups in which we may make one, and the file of its limit."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if "memory" in kinds.split(","):
                found = Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
            elif kinds == "":
                found = Path("/sys/fs/cgroup" + path), "memory.max"
            else:
                continue
            made = found[0] / f"grading-{os.getpid()}"
            with suppress(OSError):
                made.mkdir()
                try:
                    if (made / found[1]).exists():
                        return found
                finally:
                    made.rmdir()
    return None


def bounded(limits, name):
    """Return the beginning of a command that runs in a control group, where we may make one."""
    most = int((limits.memory + 1) * 2**30)  # the host itself, too
    if said := systemd():
        tasks = ["-p", f"TasksMax={limits.processes + 64}"]
        return [*said, "-p", f"MemoryMax={most}", "-p", "MemorySwapMax=0", *tasks]
    if found := group_folder():
        folder = found[0] / name
        folder.mkdir()
        (folder / found[1]).write_text(str(most))
        join = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
        return ["sh", "-c", join, "sh"]
    return []


def sweep(name):
    """Remove the control groups that dead hosts have left behind, by their name or a pattern."""
    for folder in group_folder()[0].glob(name) if group_folder() else ():
        for _ in range(50):  # the last process may still be dying
            with suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def protection(nested=True):
    """Say in a few sentences what a submission can and cannot reach here."""
    if not bubblewrap():
        return (
            "NOT shut in: a submission can use the network and can read and write what you can. "
            "Install bubblewrap (Linux), or grade on a machine that holds nothing of value."
        )
    counted = "systemd" if systemd() else "a control group" if group_folder() else None
    return (
        "Shut in by bubblewrap: no network, none of your files, no right of root; "
        + ("" if nested else "no namespaces within namespaces, so each starts Python anew; ")
        + (
            f"memory bounded by {counted}."
            if counted
            else "memory bounded by looking five times a second: what no process maps is missed."
        )
    )


# --- The host -----------------------------------------------------------------------------


class Host:
    """A process behind the walls that has imported everything, and forks for each submission."""

    count = 0

    def __init__(self, limits=LIMITS):
        self.limits, self.process, self.folder = limits, None, None

    def __enter__(self):
        if self.process is None:
            self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Start it, and learn whether it can fork behind walls of its own."""
        Host.count += 1
        mine, theirs = socket.socketpair()
        number, self.walled = theirs.fileno(), bubblewrap()
        self.name = f"grading-{os.getpid()}-{Host.count}"
        start = bounded(self.limits, self.name)
        if self.walled:
            start, path, more = [*start, *command(self.limits)], "/grader", {}
        else:
            self.folder, path = tempfile.mkdtemp(prefix="grading-"), str(HERE.parent)
            more = {"env": environment(self.folder), "cwd": self.folder}
        code = f"import sys; sys.path[:0] = [{path!r}, {str(ROOT)!r}]; from grading import worker; "
        self.process = subprocess.Popen(
            [*start, sys.executable, "-P", "-c", f"{code}worker.main({number}, {self.walled})"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[number],
            start_new_session=True,
            **more,
        )
        theirs.close()
        self.control = mine
        mine.settimeout(120)
        said = mine.recv(1000)
        if not said:
            error = self.process.communicate()[1].decode("utf-8", "replace")
            raise OSError(f"the grader's own process does not start: {error[-1000:]}")
        self.nested = json.loads(said)["nested"]

    def stop(self):
        """Kill it, and all that it has started."""
        self.control.close()
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()
        sweep(self.name)
        if not self.walled:
            for each in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
                subprocess.run([*each, self.folder], check=False, stderr=subprocess.DEVNULL)

    def has_died(self):
        """Say whether it is gone."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
            return True
        return False

    @contextmanager
    def job(self, questions, manual):
        """Start one submission; yield its channel, its sockets, and what says how it ended."""
        until = time.monotonic() + self.limits.total
        pairs = [socket.socketpair() for _ in range(2 + VISITS * len(questions))]
        folder = WORK if self.walled else tempfile.mkdtemp(dir=self.folder)
        said = {
            "questions": questions,
            "manual": manual,
            "seconds": self.limits.seconds,
            "memory": int(self.limits.memory * 2**30),
            "disk": int(self.limits.disk * 2**30),
            "processes": self.limits.processes,
            "folder": folder,
        }
        theirs = [theirs for _, theirs in pairs]
        (line, main, *rest) = [Channel(mine, until) for mine, _ in pairs]
        sockets = {name: rest[i * VISITS : (i + 1) * VISITS] for i, name in enumerate(questions)}

        def ended():
            """Kill what still runs; return how it ended."""
            with suppress(OSError):
                line.sock.shutdown(socket.SHUT_WR)
            line.until = time.monotonic() + 30
            found = bytearray()
            with suppress(OSError, TimeoutError, ValueError):
                line.sock.settimeout(30)
                while part := line.sock.recv(1000):
                    found += part
                status = json.loads(found)["status"]
                return status if status in ("memory", "processes") else "ended"
            return "ended"

        try:
            socket.send_fds(self.control, [json.dumps(said).encode()], [s.fileno() for s in theirs])
            for each in theirs:
                each.close()
            yield main, sockets, ended
        finally:
            ended()
            for mine, _ in pairs:
                mine.close()
            if not self.nested and self.walled:
                self.stop()
                self.start()
