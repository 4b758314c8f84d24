"""What a notebook can reach, and what it takes: by calls, behind the walls and without them."""

import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from adding import ADD, HONEST, Q1, Q2, SETUP, TOTAL, grade, notebook, points
from grading import judge, walls

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of Unix"),
    pytest.mark.xdist_group("walls"),
]
LIMITS = walls.Limits(seconds=1, memory=1.0, disk=0.05, processes=40)


@pytest.fixture(scope="module", params=["walled", "open"])
def any_host(request):
    """Run a test with bubblewrap and without."""
    if request.param == "walled" and not walls.bubblewrap():
        pytest.skip("no bubblewrap, or no namespaces")
    with walls.Host(LIMITS) as host, pytest.MonkeyPatch.context() as patch:
        if request.param == "open":
            host.stop()
            patch.setattr(walls, "bubblewrap", lambda: False)
            host.start()
            patch.undo()
        yield host


@pytest.fixture(scope="module")
def walled():
    if not walls.bubblewrap():
        pytest.skip("no bubblewrap, or no namespaces")
    with walls.Host(LIMITS) as host:
        yield host


@pytest.fixture(scope="module")
def seen(walled, known):
    """Return a function that runs a cell behind the walls and returns what it leaves in seen."""

    def seen(cell):
        found = []
        test = judge.Test(1.0, False, lambda seen: found.append(seen), ["seen"])
        judge.grade(notebook(cell), False, known.assignment, {"q1": [test]}, walled)
        return found[0]

    return seen


# --- Walls ---------------------------------------------------------------------------------

CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    ctypes.set_errno(0)
    return os.strerror(ctypes.get_errno()) if getattr(libc, name)(*arguments) == -1 else "done"
here = os.getcwd().encode()
seen = {
    "remount /": call("mount", None, b"/", None, 32 | 4096, None),
    "tmpfs": call("mount", b"tmpfs", here, b"tmpfs", 0, None),
    "bind": call("mount", b"/usr", here, None, 4096, None),
    "proc": call("mount", b"proc", b"/proc", b"proc", 0, None),
    "umount /proc": call("umount2", b"/proc", 2),
    "umount": call("umount2", here, 2),
    "unshare user": call("unshare", 0x10000000),
    "unshare mount": call("unshare", 0x20000),
    "chroot": call("chroot", b"/usr"),
    "setuid": call("setuid", 0) if os.getuid() else "no root",
    "mknod": call("mknod", b"zero", 0o20666, 0x105),
    "kill host": call("kill", 2, 0) if os.getpid() != 2 else "itself",
}
"""


def test_no_call_of_the_system_opens_a_wall(seen):
    found = seen(CALLS)
    assert len(found) == 12
    assert "done" not in found.values(), found


def test_no_right_of_root_is_left(seen):
    code = """
import ctypes
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capget(header, data) == 0
seen = list(data)
"""
    assert seen(code) == [0] * 6


@pytest.mark.parametrize("family", ["inet", "unix", "abstract"])
def test_no_socket_of_ours_can_be_reached(seen, family, tmp_path):
    server = socket.socket(socket.AF_INET if family == "inet" else socket.AF_UNIX)
    names = {"inet": ("127.0.0.1", 0), "unix": str(tmp_path / "s"), "abstract": "\0grading-test"}
    with server:
        server.bind(names[family])
        server.listen()
        code = f"""
import socket
try:
    with socket.socket(socket.{server.family.name}) as mine:
        mine.connect({server.getsockname()!r})
    seen = "connected"
except OSError as error:
    seen = error.strerror
"""
        assert seen(code) != "connected"
        reach = threading.Thread(target=exec, args=(code, found := {}))  # and without walls it is
        reach.start()
        server.settimeout(5)
        server.accept()[0].close()
        reach.join()
        assert found["seen"] == "connected"


def test_nothing_of_ours_is_seen_and_nothing_but_the_own_folder_written(seen, tmp_path):
    (tmp_path / "anna.ipynb").write_text("mine")
    paths = [*map(str, (Path.home() / ".ssh", tmp_path, walls.ROOT / "tests", walls.ROOT / "book"))]
    paths += [
        "/run",
        "/var",
        "/opt",
        "/srv",
        "/etc/passwd",
        "/etc/hostname",
        str(walls.ROOT / "tools"),
    ]
    code = f"""
import os
seen = {{"there": [path for path in {paths!r} if os.path.exists(path)], "written": []}}
for top in ["/", "/dev", "/tmp", "/proc", "/usr", "/grader", {str(walls.ROOT)!r}, {sys.prefix!r}]:
    for folder in (top, os.path.dirname(top)):
        try:
            open(os.path.join(folder, "written"), "w").close()
            seen["written"].append(folder)
        except OSError:
            pass
open("written", "w").close()
seen["processes"] = [name for name in os.listdir("/proc") if name.isdigit()]
seen["secrets"] = [name for name in os.environ if "TOKEN" in name]
seen["folder"] = sorted(name for name in os.listdir(".") if name[0] != ".")
"""
    os.environ["A_TOKEN"] = "secret"
    found = seen(code)
    assert found == {
        "there": [],
        "written": [],
        "processes": [],
        "secrets": [],
        "folder": ["written"],
    }


def test_the_disk_is_memory_of_a_size(seen):
    code = """
import os
seen = {}
for folder in (".", "/dev/shm"):
    try:
        for i in range(100):
            with open(f"{folder}/{i}", "wb") as file:
                file.write(bytes(2**20))
    except OSError as error:
        seen[folder] = i, error.strerror
"""
    found = seen(code)
    assert 30 < found["."][0] < 60
    assert found["/dev/shm"][0] == 0  # the same memory
    assert {said for _, said in found.values()} == {"No space left on device"}
    assert sorted(seen("import os\nseen = os.listdir('.')")) == [".ipython", ".shm"]


def test_what_holds_is_said(monkeypatch):
    monkeypatch.setattr(walls, "bubblewrap", lambda: True)
    for systemd, group, said in [(["x"], None, "systemd"), (None, ("x", "y"), "a control group")]:
        monkeypatch.setattr(walls, "systemd", lambda systemd=systemd: systemd)
        monkeypatch.setattr(walls, "group_folder", lambda group=group: group)
        assert f"memory bounded by {said}" in walls.protection()
    monkeypatch.setattr(walls, "group_folder", lambda: None)
    assert "memory bounded by looking" in walls.protection()
    assert "starts Python anew" in walls.protection(nested=False)
    monkeypatch.setattr(walls, "bubblewrap", lambda: False)
    assert "NOT shut in" in walls.protection()


def test_where_namespaces_cannot_be_nested_each_notebook_has_a_host_of_its_own(walled, known):
    walled.nested = False
    before = walled.process.pid
    assert points(grade(known, walled, *HONEST)) == [2, 1]
    assert walled.process.pid != before
    assert walled.nested


# --- Limits: each costs what it stops, and nothing that stood before -------------------------

HOLD = "kept = []\nwhile True:\n    kept.append(b'x' * 2**26)"
LOOP = "while True:\n    pass"
STUBBORN = (
    "import signal\nfor each in (signal.SIGALRM, signal.SIGPROF):\n"
    "    signal.signal(each, signal.SIG_IGN)\nwhile True:\n    pass"
)
FORKS = "import subprocess\nfor _ in range(100): subprocess.Popen(['sleep', '300'])"
THREADS = (
    "import threading, time\nthreading.stack_size(2**16)\nfor _ in range(200): "
    "threading.Thread(target=time.sleep, args=(300,), daemon=True).start()"
)
MEMFD = (
    "import os, time\nkept = [os.memfd_create(str(i)) for i in range(100)]\nfor each in kept:\n"
    "    os.write(each, bytes(2**25))\ntime.sleep(300)"
)
TOGETHER = (
    "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n"
    "        kept = b'x' * (500 * 2**20)\n        time.sleep(300)\ntime.sleep(300)"
)
SHUT = (
    "import gc, time\nfrom grading import wire\nfor each in gc.get_objects():\n"
    "    if isinstance(each, wire.Channel): each.sock.shutdown(2)\ntime.sleep(300)"
)
END = "import os\nos._exit(0)"
ENDS = [
    (HOLD, "graded", [2, 1]),  # one process cannot take more: a MemoryError, as any other
    (TOGETHER, "memory", [2, 0]),
    ("import os\nos.fork()", "graded", [2, 1]),
    (SHUT, "ended", [2, 0]),
    (LOOP, "graded", [2, 1]),
    (STUBBORN, "time", [2, 0]),
    (FORKS + "\nimport time; time.sleep(300)", "processes", [2, 0]),
    (THREADS + "\ntime.sleep(300)", "processes", [2, 0]),
    (END, "ended", [2, 0]),
    ("import os, signal\nos.kill(0, signal.SIGKILL)", "ended", [2, 0]),
    ("import ctypes\nctypes.string_at(0)", "ended", [2, 0]),
    ("import sys\nsys.exit(1)", "graded", [2, 1]),
    ("import os\nos.close(3); os.closerange(4, 200)", "ended", [2, 0]),
    ("\n" * 32_000, "graded", [2, 1]),
    ("x = [" + "1," * 400_000 + "]", "graded", [2, 1]),
    ("(" * 100_000, "graded", [2, 1]),
    ("import os\nfor _ in range(1500): os.mkdir('a'); os.chdir('a')", "graded", [2, 1]),
    ("grader = None", "graded", [2, 1]),  # graded at the end
    ("import torch\ntorch.set_grad_enabled(False)\ntorch.Tensor.sum = None", "graded", [2, 1]),
]


@pytest.mark.parametrize(("cell", "status", "got"), ENDS, ids=[cell[:20] for cell, *_ in ENDS])
def test_what_stood_before_counts(cell, status, got, any_host, known):
    graded = grade(known, any_host, SETUP, ADD, Q1, cell, TOTAL, Q2)
    assert (graded.status, points(graded)) == (status, got), graded
    assert points(grade(known, any_host, *HONEST)) == [2, 1]  # and the next is graded as ever


def test_memory_that_no_process_maps_is_counted_where_there_is_a_control_group(
    walled, known, monkeypatch
):
    if not (walls.systemd() or walls.group_folder()):
        pytest.skip("no control group")
    monkeypatch.setattr(walled, "limits", LIMITS._replace(seconds=15))
    graded = grade(known, walled, SETUP, ADD, Q1, MEMFD, TOTAL, Q2)
    assert (graded.status, points(graded)) == ("ended", [2, 0])
    assert points(grade(known, walled, *HONEST)) == [2, 1]


def test_a_loop_in_an_answer_costs_that_answer(any_host, known):
    loop = "def add(a, b):\n    while True:\n        pass"
    graded = grade(known, any_host, SETUP, loop, Q1, "total = 42", Q2)
    assert (graded.status, points(graded)) == ("graded", [0, 1])
    assert graded.verdicts["q1"].said == ["add took longer than 1 s"]


def test_no_process_outlives_its_notebook(any_host, known):
    import psutil

    sleep = "import subprocess; subprocess.Popen(['sleep', '299.5'], start_new_session=True)"
    grade(known, any_host, SETUP, ADD, Q1, sleep, "import time; time.sleep(0.5)")
    running = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert ["sleep", "299.5"] not in running
