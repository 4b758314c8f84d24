"""Submissions that mean harm or are broken: each ends soon, and every other student has a result.

Where bubblewrap is missing, or the system lets nobody make namespaces, what it holds off is
skipped; the limits hold everywhere.
"""

import csv
import json
import os
import socket
import sys
import threading
import zipfile
from pathlib import Path

import grade
import nbformat
import psutil
import pytest
import sandbox
from lop_course import Question
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of Unix"),
    pytest.mark.xdist_group("hostile"),
]
LIMITS = sandbox.Limits(seconds=120, memory=1.0, disk=0.1, processes=40)
walled = pytest.mark.skipif(
    sys.platform == "win32" or sandbox.bubblewrap() is None, reason="no bubblewrap, no namespaces"
)

# --- The limits, of any program ----------------------------------------------------------

CODE = {
    "time": "while True: pass",
    "memory": "kept = []\nwhile True: kept.append(b'x' * 2**26)",
    "processes": "import subprocess\nfor _ in range(100): subprocess.Popen(['sleep', '300'])",
    "disk": "for i in range(100): open(f'{i}.bin', 'wb').write(bytes(2**23))",
    "disk: deep": "import os\nfor _ in range(1500): os.mkdir('a'); os.chdir('a')",
}
WAIT = "\nimport time; time.sleep(300)"


@pytest.fixture
def folder():
    with sandbox.fresh_folder() as folder:
        yield folder
        (folder / "locked" / "inside").mkdir(parents=True)
        (folder / "locked").chmod(0)
    assert not folder.exists()


@pytest.fixture(params=["shut in", "not shut in"])
def walls(request, monkeypatch):
    """Run a test with bubblewrap and without."""
    if request.param == "not shut in":
        monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    elif sandbox.bubblewrap() is None:
        pytest.skip("no bubblewrap, no namespaces")


def run_code(code, folder, limits=LIMITS, hidden=()):
    return sandbox.run([sys.executable, "-c", code], folder, limits, hidden)


@pytest.mark.parametrize("name", CODE)
def test_a_limit_that_is_met_ends_it(name, folder, walls):
    limits = LIMITS._replace(seconds=1) if name == "time" else LIMITS
    outcome = run_code(CODE[name] + WAIT, folder, limits)
    assert outcome.status == name.removesuffix(": deep"), outcome
    assert outcome.seconds < 30


def test_no_file_grows_beyond_the_limit(folder, walls):
    outcome = run_code("open('a', 'wb').write(bytes(2**28))", folder)
    assert (outcome.status, outcome.code) == ("done", 1)
    assert "File too large" in outcome.said


def test_no_process_outlives_it(folder, walls):
    code = "import subprocess; subprocess.Popen(['sleep', '299.5'], start_new_session=True)"
    assert run_code(f"{code}\nimport time; time.sleep(1)", folder).status == "done"
    running = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert ["sleep", "299.5"] not in running


# --- The walls ---------------------------------------------------------------------------


@walled
def test_the_network_cannot_be_reached(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        assert run_code(code, folder).code != 0
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
        server.settimeout(5)  # and without the walls it is
        reach = threading.Thread(target=exec, args=(f"{code}.close()", {}))
        reach.start()
        server.accept()[0].close()
        reach.join()
    outcome = run_code("import socket; socket.create_connection(('192.0.2.1', 80), 5)", folder)
    assert outcome.code != 0


@walled
def test_solutions_other_submissions_and_the_home_folder_are_not_seen(folder, tmp_path):
    (tmp_path / "anna.ipynb").write_text("mine")
    hidden = [*(grade.ROOT / part for part in grade.PRIVATE), tmp_path]
    code = f"""
import json, os
seen = {{path: os.listdir(path) if os.path.isdir(path) else [] for path in {[*map(str, hidden)]!r}}}
mine = {{".ssh", ".config", ".bash_history"}}
seen["home"] = sorted(mine & set(os.listdir({str(Path.home())!r})))
print(json.dumps(seen))
"""
    outcome = run_code(code, folder, hidden=hidden)
    assert outcome.code == 0, outcome.said
    assert not any(json.loads(outcome.said).values())
    assert (tmp_path / "anna.ipynb").read_text() == "mine"


@walled
def test_a_folder_above_the_project_can_be_hidden(folder):
    """As when submissions lie in the folder that the clone lies in."""
    above = grade.ROOT.parent
    code = f"import lop_utils.book.answers, os; print(os.listdir({str(above)!r}))"
    outcome = run_code(code, folder, hidden=[above])
    assert outcome.code == 0, outcome.said
    assert outcome.said == f"{[grade.ROOT.name]}\n"


@walled
def test_nothing_but_its_own_folder_can_be_written(folder):
    for path in ("/", "/usr", grade.ROOT, Path(sys.executable).parent):
        assert run_code(f"open('{path}/written', 'w')", folder).code != 0
        assert not Path(path, "written").exists()
    assert run_code("open('written', 'w')", folder).code == 0
    assert (folder / "written").exists()
    for path in ("/tmp", "/dev/shm"):  # what lies there is memory that no process owns
        code = f"for i in range(40): open('{path}/' + str(i), 'wb').write(bytes(2**22))"
        assert "No space left" in run_code(code, folder).said


def test_secrets_of_ours_are_not_handed_on(folder, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "secret")
    outcome = run_code("import os; print(sorted(os.environ))", folder)
    assert outcome.code == 0
    assert "A_TOKEN" not in outcome.said
    assert "OMP_NUM_THREADS" in outcome.said


def test_what_is_said_is_cut_and_nothing_in_the_folder_keeps_the_grader_waiting(folder):
    outcome = run_code("import os; os.mkfifo('said.txt'); print('x' * 10**6)", folder)
    assert outcome.said.strip("\n") == "x" * (sandbox.TAIL - 1)


def test_without_bubblewrap_it_is_said(monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    assert "NOT shut in" in sandbox.protection()


# --- A class -----------------------------------------------------------------------------

NOTE = {"Tests": "a", "Usual mistakes": "b", "Time": "5 minutes."}
QUESTION = Question("q1", "Add", 2, False, 5, NOTE)
TESTS = """
from otter.test_files import test_case

OK_FORMAT = False
name = "q1"
points = None


@test_case(points=1, hidden=False)
def test_one(add):
    assert add(1, 2) == 3


@test_case(points=1, hidden=True)
def test_two(add):
    assert add(2, 2) == 4
"""
ADD = "def add(a, b):\n    return a + b"


@pytest.fixture
def grader(tmp_path):
    """Return an assignment that imports nothing, and what grades it."""
    archive = tmp_path / "grader.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("tests/q1.py", TESTS)
    archive.with_name("adding.ipynb").write_bytes(notebook(ADD))
    return grade.Grader("adding", archive, [QUESTION], {"q1": 2.0}, set())


def notebook(*cells):
    return nbformat.writes(new_notebook(cells=[new_code_cell(cell) for cell in cells])).encode()


def test_a_loop_is_stopped(grader):
    loop = grade.Submission("loop", notebook(ADD, "while True:\n    pass"))
    found = grade.graded(loop, grader, LIMITS._replace(seconds=6))
    assert (found.status, sum(found.points.values())) == ("time", 0)
    assert found.seconds < 20


def test_whatever_happens_to_one_the_others_go_on(grader, monkeypatch):
    def fail(*_, **__):
        raise RecursionError("too deep")

    monkeypatch.setattr(grade, "run", fail)
    found = grade.graded(grade.Submission("anna", notebook(ADD)), grader)
    assert (found.status, found.said) == ("doubtful", "RecursionError: too deep")


CLASS = {
    "honest": ("graded", "2.0"),
    "wrong": ("graded", "1.0"),
    "tests": ("graded", "2.0"),  # nothing hides them from the process that runs them
    "memory": ("memory", "0.0"),
    "exit": ("no result", "0.0"),
    "deep": ("disk", "0.0"),
    "CARL": ("graded", "2.0"),
    "rubbish": ("unreadable", "0.0"),
    "nested": ("unreadable", "0.0"),
    "stream": ("unreadable", "0.0"),
    "pipe": ("unreadable", "0.0"),
    "link": ("unreadable", "0.0"),
    "linked": ("unreadable", "0.0"),
    "empty": ("missing", "0.0"),
    "late": ("missing", "0.0"),
}


@pytest.fixture
def handed_in(tmp_path):
    """Return a folder with honest submissions among hostile and broken ones."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    cells = {
        "honest": [ADD],
        "wrong": ["def add(a, b):\n    return 3"],
        "tests": [ADD, "assert 'hidden=True' in open('tests/q1.py').read()"],
        "memory": [CODE["memory"]],
        "exit": ["import os\nos._exit(0)"],
        "deep": [CODE["disk: deep"] + WAIT],
    }
    for name, sources in cells.items():
        (folder / f"{name}.ipynb").write_bytes(notebook(*sources))
    for name in ("CARL.ZIP", "stream.zip"):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("ADDING.IPYNB", notebook(ADD))
    broken = bytearray((folder / "stream.zip").read_bytes())
    broken[50:70] = b"\xff" * 20  # in the stream, after the local header
    (folder / "stream.zip").write_bytes(broken)
    (folder / "rubbish.ipynb").write_bytes(bytes(range(256)) * 100)
    (folder / "nested.ipynb").write_text("[" * 100_000)
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "link.ipynb").symlink_to(folder / "honest.ipynb")
    (folder / "linked").symlink_to(folder.parent, target_is_directory=True)
    (folder / "empty").mkdir()
    return folder


def test_every_student_has_a_result(handed_in, grader, tmp_path):
    out, said = tmp_path / "out", []
    grade.grade_folder(
        grader, handed_in, out, roster=["late"], jobs=2, limits=LIMITS, show=said.append
    )
    assert "the reference gets 2 points" in said[1]
    with (out / "grades.csv").open(encoding="utf-8-sig") as table:
        lines = {line["student"]: line for line in csv.DictReader(table)}
    assert {name: (line["status"], line["points"]) for name, line in lines.items()} == CLASS
    assert all(line["why"].startswith(grade.SENTENCES[line["status"]]) for line in lines.values())
    assert lines["honest"]["look"] == "not on the list"  # which names one student alone
    assert lines["tests"]["look"] == "uses open; not on the list"  # a person is told
    assert {path.stem for path in (out / "feedback").iterdir()} == CLASS.keys()
