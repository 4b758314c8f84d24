"""What runs behind the walls: a host that has imported everything, and forks for each submission.

The host never runs a student's code. For each submission it forks; the child makes namespaces of
its own, in which it sees no process but its own and can write to nothing but a small folder in
memory, gives up every right, and executes the notebook. At ``grader.check("q1")`` the notebook's
process forks once more: the copy serves the functions and values that the judge asks for, so that
neither a loop nor a change in there, nor what later cells do, touches any other question.
"""

import ast
import contextlib
import ctypes
import io
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import types
import warnings
import zipfile
from importlib import import_module
from typing import NamedTuple

import psutil

from grading import wire

WORK = "/notebook"
WATCH = 0.2  # seconds between two looks at the processes
LARGEST = 20 * 2**20  # bytes of a notebook
LONGEST = 20_000  # characters of a written answer
LONGEST_CELL = 10**5  # characters of code
RUBBISH = re.compile(r"^__MACOSX|\.ipynb_checkpoints")  # what systems put beside the notebook
IMPORTED = (
    *("IPython.core.interactiveshell", "matplotlib.pyplot", "nbformat.v4", "sklearn.datasets"),
    *("lop_utils.completion", "lop_utils.images", "lop_utils.law", "lop_utils.spectra"),
)
VISITS = 8  # how often one question is graded at its checks, of which the last one counts

# --- Walls that a process builds around itself --------------------------------------------

NEWNS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
NOSUID, NODEV, BIND = 2, 4, 4096
CAPBSET_DROP, NO_NEW_PRIVS, CAPABILITIES = 24, 38, 0x20080522


def system(name, *arguments):
    """Call the C library, which knows what Python does not; raise OSError where it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source, target, kind, flags, options=None):
    """Mount, as the command does."""
    encoded = [None if each is None else each.encode() for each in (source, target, kind, options)]
    system("mount", *encoded[:3], ctypes.c_ulong(flags), encoded[3])


def namespaces():
    """Put this process, and its children, into namespaces of their own."""
    user, group = os.getuid(), os.getgid()
    system("unshare", NEWUSER | NEWPID | NEWIPC)
    for name, text in [("setgroups", "deny"), ("uid_map", user), ("gid_map", group)]:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text if name == "setgroups" else f"{text} {text} 1")


def shut_in(disk):
    """Leave one folder in memory to write to, hide the processes, and give up every right."""
    system("unshare", NEWNS)
    mount("tmpfs", WORK, "tmpfs", NOSUID | NODEV, f"size={disk},nr_inodes=20000")
    os.mkdir(f"{WORK}/.shm")
    mount(f"{WORK}/.shm", "/dev/shm", None, BIND)
    with open("/proc/self/oom_score_adj", "w") as file:  # not the host, when memory ends
        file.write("1000")
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    mount("tmpfs", "/proc", "tmpfs", NOSUID | NODEV | 1, "size=4096")
    number = 0
    with contextlib.suppress(OSError):  # until there is none of that number
        while True:
            system("prctl", CAPBSET_DROP, number, 0, 0, 0)
            number += 1
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    system("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
    system("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)


def limit(memory, disk):
    """Bound what one process may take; what all take together the warden watches."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_AS: memory,
    }
    for what, most in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(what, (most, most))


# --- The host -----------------------------------------------------------------------------


def main(number, walled):
    """Import what notebooks need, say what walls there are, and fork for each submission."""
    control = socket.socket(fileno=number)
    prepare()
    nested = walled and can_nest()
    control.sendall(json.dumps({"nested": nested}).encode() + b"\n")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens need no burial
    while True:
        message, sockets, _, _ = socket.recv_fds(control, 2**16, 64)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with contextlib.suppress(BaseException):
                warden(json.loads(message), sockets, nested)
            os._exit(0)
        for number in sockets:
            os.close(number)


def prepare():
    """Import all that a notebook imports, once for all."""
    warnings.simplefilter("ignore")
    for name in IMPORTED:
        import_module(name)
    import matplotlib
    import torch

    matplotlib.use("agg")
    torch.set_num_threads(1)
    torch.linalg.svd(torch.eye(2).double())  # what is loaded at the first call
    otter = types.ModuleType("otter")
    otter.Notebook = Checks
    sys.modules["otter"] = otter  # the first cell of every notebook asks for it


def can_nest():
    """Try whether a process here can make namespaces of its own; some systems forbid it."""
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            namespaces()
            if (first := os.fork()) == 0:
                shut_in(2**20)
                os._exit(0)
            os._exit(os.waitpid(first, 0)[1] != 0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def warden(job, sockets, nested):
    """Start one submission and watch it, until it ends, meets a limit, or nobody waits for it."""
    line = socket.socket(fileno=sockets.pop(0))
    mine, theirs = os.pipe()
    now = psutil.Process().memory_info()  # of which every process begins as a copy
    if nested:
        namespaces()
    first = os.fork()
    if first == 0:
        line.close()
        os.close(mine)
        with contextlib.suppress(BaseException):
            keeper(job, sockets, theirs, nested, now.vms)
        os._exit(1)
    os.close(theirs)
    for number in sockets:
        os.close(number)
    status, family = "", {first: psutil.Process(first)}
    while not status:
        ready, _, _ = select.select([line, mine], [], [], WATCH)
        if mine in ready:
            status = "ended"
        elif line in ready:
            status = "given up"
        else:
            with contextlib.suppress(psutil.Error):
                children = family[first].children(recursive=True)
                family.update((child.pid, child) for child in children)
            status = exceeded(family.values(), job["memory"] + now.rss, job["processes"])
    for process in [*family.values()]:
        with contextlib.suppress(psutil.Error):
            for each in (*process.children(recursive=True), process):
                each.kill()
    with contextlib.suppress(OSError):  # and what was born meanwhile
        os.killpg(first, signal.SIGKILL)
    os.waitpid(first, 0)
    line.sendall(json.dumps({"status": status}).encode())


def exceeded(family, most, many):
    """Return the limit that processes exceed together, or nothing."""
    memory = threads = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            memory += process.memory_info().rss
            threads += process.num_threads()
    if threads > many:
        return "processes"
    if memory > most:  # then count exactly: copies share what they have not changed
        memory = 0
        for process in family:
            with contextlib.suppress(psutil.Error):
                found = process.memory_full_info()
                memory += getattr(found, "pss", found.uss)
    return "memory" if memory > most else ""


def keeper(job, sockets, theirs, nested, mapped):
    """Be the first process of the namespaces: shut in, start the notebook, and bury."""
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.setsid()
    # One process that takes all meets an error of its own before the warden ends the notebook.
    limit(mapped + job["memory"] * 15 // 16, job["disk"])
    if nested:
        shut_in(job["disk"])
    os.chdir(job["folder"])
    notebook = os.fork()
    if notebook == 0:
        os.close(theirs)
        with contextlib.suppress(BaseException):
            Notebook(job, [socket.socket(fileno=number) for number in sockets]).run()
        os._exit(0)
    while True:
        with contextlib.suppress(ChildProcessError):
            if os.wait()[0] != notebook:
                continue
        os._exit(0)


# --- The notebook -------------------------------------------------------------------------


class Late(BaseException):
    """It took longer than allowed."""


CLOCKS = {signal.ITIMER_PROF: 1, signal.ITIMER_REAL: 3}  # of the processor, and three times by ours


@contextlib.contextmanager
def seconds(most):
    """Raise Late in what takes longer: a neighbour who takes the processor costs nobody's time."""

    def ring(*_):
        signal.setitimer(signal.ITIMER_REAL, 1.0)  # again, where it is caught
        raise Late

    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, ring)
    for clock, times in CLOCKS.items():
        signal.setitimer(clock, times * most)
    try:
        yield
    finally:
        for clock in CLOCKS:
            signal.setitimer(clock, 0)


class Checks:
    """What a notebook imports as otter: a check calls the judge, and says nothing."""

    at = None  # what to do at the check of a question

    def __init__(self, *_, **__):
        pass

    def check(self, question, *_, **__):
        """Let the judge grade the question as it stands here."""
        if Checks.at:
            Checks.at(question)

    def check_all(self, *_, **__):
        """Say nothing: the judge grades."""

    export = to_pdf = add_plugin_files = run_plugin = check_all


class Notebook:
    """One submission: parsed, executed cell by cell, and asked for its answers."""

    def __init__(self, job, sockets):
        self.job, (main, *rest) = job, sockets
        self.judge = wire.Channel(main)
        self.sockets = {
            name: rest[i * VISITS : (i + 1) * VISITS] for i, name in enumerate(job["questions"])
        }
        self.failed, self.number = [], os.getpid()

    def run(self):
        """Parse, execute, and let the judge grade at the checks and at the end."""
        try:
            with seconds(self.job["seconds"]):
                sources, about = parsed(*self.judge.receive_with_arrays(), self.job["manual"])
        except BaseException as error:
            return self.judge.send({"unreadable": f"{type(error).__name__}: {error}"[:300]})
        self.judge.send(about)
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        import_module("torch").set_num_threads = lambda number: None  # a copy would wait for them
        os.environ["HOME"] = os.environ["TMPDIR"] = os.getcwd()
        config = Config({"HistoryManager": {"enabled": False}})
        self.shell = InteractiveShell.instance(config=config)
        Checks.at = self.at
        for i, source in enumerate(sources, start=1):
            self.execute(i, source)
        Checks.at = None
        self.judge.send({"end": self.failed[:5]})
        while question := self.judge.receive().get("again"):
            self.visit(question)
        return None

    def execute(self, i, source):
        """Run one cell; one that fails or takes too long is noted, and the next one runs."""
        if len(source) > LONGEST_CELL:
            self.failed.append([i, "a long cell", f"more than {LONGEST_CELL} characters"])
            return
        try:
            with seconds(self.job["seconds"]):
                done = self.shell.run_cell(source, store_history=False)
            error = done.error_before_exec or done.error_in_exec
        except BaseException as caught:
            error = caught
        if os.getpid() != self.number:  # a copy that the cell has made: one notebook is enough
            os._exit(0)
        if isinstance(error, Late):
            self.failed.append([i, f"stopped after {self.job['seconds']:g} s", ""])
        elif error is not None:
            self.failed.append([i, type(error).__name__, str(error)[:200]])

    def at(self, question):
        """Be at the check of a question: stop the cell's clock, and let the judge look."""
        if self.sockets.get(question):
            left = {clock: signal.setitimer(clock, 0)[0] for clock in CLOCKS}
            self.visit(question)
            for clock, time in left.items():
                signal.setitimer(clock, max(time, 0.01))

    def visit(self, question):
        """Fork a copy that answers the judge; kill it when the judge has what it wants."""
        sock = self.sockets[question].pop(0)
        self.judge.send({"at": question})
        if (copy := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                Answers(self, question, wire.Channel(sock)).serve()
            os._exit(0)
        sock.close()
        self.judge.receive()
        with contextlib.suppress(OSError):
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)


class Answers:
    """The answers to one question, as they stand: values, and functions to be called."""

    def __init__(self, notebook, question, judge):
        self.judge, self.functions = judge, wire.Functions()
        self.seconds = notebook.job["seconds"]
        names = notebook.job["questions"][question]
        self.values = {name: notebook.shell.user_ns.get(name) for name in names}

    def serve(self):
        """Answer the judge until it goes away."""
        said = {}
        for name, value in self.values.items():
            try:
                wire.Sent(value, wire.Functions())
                said[name] = value
            except BaseException as error:
                said[name] = type(f"{type(value).__name__} ({error})", (), {})()
        self.send("values", said)
        while True:
            self.answer(*self.judge.receive_with_arrays())

    def send(self, kind, value):
        """Send a value to the judge."""
        sent = wire.Sent(value, self.functions)
        self.judge.send({kind: sent.said}, sent.arrays)

    def answer(self, message, arrays):
        """Call a function as the judge asks; send its result, or how it failed."""
        received = wire.Received(arrays, self.functions, self.ask)
        try:
            function, arguments, named = received.value(message["call"])
            with seconds(self.seconds), contextlib.redirect_stdout(io.StringIO()):
                result = function(*arguments, **named)
            self.send("result", (result, arguments, named))
        except Late:
            self.judge.send({"late": self.seconds})
        except BaseException as error:
            self.judge.send({"error": [type(error).__name__, str(error)[:1000]]})

    def ask(self, function, arguments, named):
        """Call a function of the judge."""
        self.send("call", (function, arguments, named))
        message, arrays = self.judge.receive_with_arrays()
        if "error" in message:
            raise RuntimeError(message["error"])
        return wire.Received(arrays, self.functions, self.ask).value(message["result"])


# --- What was handed in -------------------------------------------------------------------


class Cell(NamedTuple):
    """A cell, as far as it can be read."""

    cell_type: str
    source: str
    outputs: list


def parsed(message, content, manual):
    """Return the code cells of a notebook, and what the judge is told of it."""
    if message["zipped"]:
        content = unpacked(content)
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    said = json.loads(text.lstrip("\ufeff"))
    if said.get("nbformat", 4) < 4:
        said = import_module("nbformat").reads(json.dumps(said), as_version=4)
    # Not held to the format: who saves a notebook elsewhere has answered all the same.
    cells = [cell(each) for each in said["cells"] if isinstance(each, dict)]
    metadata = said.get("metadata")
    otter = metadata.get("otter") if isinstance(metadata, dict) else None
    about = {
        "belongs": str(otter.get("assignment_name") or "") if isinstance(otter, dict) else "",
        "written": written_answers(cells, manual),
        "imports": sorted(imported(cells))[:20],
    }
    return [each.source for each in cells if each.cell_type == "code"], about


def cell(said):
    """Return a cell from what a notebook says of it."""
    source, outputs = said.get("source", ""), said.get("outputs")
    source = "".join(map(str, source)) if isinstance(source, list) else str(source)
    outputs = [each for each in outputs if isinstance(each, dict)] if outputs else []
    # Half of a character, as some editors leave, must not cost its cell.
    source = source.encode("utf-8", "replace").decode("utf-8")
    return Cell(str(said.get("cell_type")), source, outputs)


def unpacked(content):
    """Return the one notebook in a zip file, reading no more of it than a notebook can have."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = [each for each in archive.infolist() if each.filename.lower().endswith(".ipynb")]
        inside = [each for each in inside if not RUBBISH.search(each.filename)]
        if len(inside) != 1:
            raise ValueError(f"wanted one notebook in the zip file, got {len(inside)}")
        with archive.open(inside[0]) as file:
            found = file.read(LARGEST + 1)  # the archive may lie about its size
    if len(found) > LARGEST:
        raise ValueError(f"more than {LARGEST // 2**20} MiB")
    return found


def written_answers(cells, manual):
    """Return what stands below each question graded by hand, and what its code printed at home."""
    found, waiting, name = {each: [] for each in manual}, iter(manual), None
    for cell in cells:
        if "<!-- BEGIN QUESTION -->" in cell.source:
            name = next(waiting, None)
        elif "<!-- END QUESTION -->" in cell.source:
            name = None
        elif name:
            found[name] += [cell.source, *printed(cell)]
    return {name: "\n\n".join(texts)[:LONGEST] for name, texts in found.items()}


def printed(cell):
    """Return what a cell of code showed, as text, a figure as a word."""
    for output in cell.outputs:
        data = output.get("data")
        data = data if isinstance(data, dict) else {}
        text = output.get("text") or data.get("text/plain") or output.get("evalue", "")
        text = "".join(map(str, text)) if isinstance(text, list) else text
        if "image/png" in data or "image/svg+xml" in data:
            yield "-> (a figure: see the notebook)"
        elif isinstance(text, str) and text.strip():
            yield "\n".join(f"-> {line}" for line in text[:LONGEST].strip().splitlines())


def imported(cells):
    """Return the modules of the package that code imports, as far as it says so."""
    found = set()
    for cell in cells:
        if cell.cell_type != "code" or len(cell.source) > LONGEST_CELL:
            continue
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:2]) for name in found if name.startswith("lop_utils.")}
