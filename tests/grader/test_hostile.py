"""Submissions that mean harm or are broken: each ends soon, and every other student has a result.

Where bubblewrap is missing, or the system lets nobody make namespaces, what it holds off is
skipped; the limits hold everywhere.
"""

import csv
import json
import socket
import sys
import threading
import time
from pathlib import Path

import grade
import nbformat
import pytest
import sandbox
from nbformat.v4 import new_code_cell

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of Unix")
NAME = "whitening"
LIMITS = sandbox.Limits(seconds=90, memory=2.0, disk=0.1, processes=40)
walled = pytest.mark.skipif(
    sys.platform == "win32" or sandbox.bubblewrap() is None, reason="no bubblewrap, no namespaces"
)

CODE = {
    "loop": "while True:\n    pass",
    "allocation": "kept = []\nwhile True:\n    kept.append(torch.ones(2**25, dtype=torch.float64))",
    "exit": "import os\nos._exit(0)",
    "processes": (
        "import subprocess\nfor _ in range(100):\n    subprocess.Popen(['sleep', '300'])\n"
        "import time\ntime.sleep(300)"
    ),
    "disk": (
        "import pathlib\nfor i in range(100):\n"
        "    pathlib.Path.home().joinpath(f'{i}.bin').write_bytes(bytes(2**23))\n"
        "import time\ntime.sleep(300)"
    ),
    "file": "import pathlib\npathlib.Path('large.bin').write_bytes(bytes(2**28))",
    "tests": "stolen = open('tests/q1.py').read()\nassert 'hidden=True' in stolen",
}
ENDED = {
    "loop": "time",
    "allocation": "memory",
    "exit": "no result",
    "processes": "processes",
    "disk": "disk",
    "file": "disk",
    "tests": "graded",  # nothing hides them from the process that runs them; a person is told
}


@pytest.fixture(scope="module")
def handed_in(solution, written, tmp_path_factory):
    """Return a folder with two honest submissions among the hostile ones."""
    folder = tmp_path_factory.mktemp("submissions")

    def hand_in(name, code):
        notebook = solution(NAME)
        imports = next(
            i for i, cell in enumerate(notebook.cells) if cell.source.startswith("import ")
        )
        notebook.cells.insert(imports + 1, new_code_cell(code))
        nbformat.write(notebook, folder / f"{name}.ipynb")

    for name, code in CODE.items():
        hand_in(name, code)
    hand_in("honest", "1 + 1")
    blank = written(NAME) / "student" / f"{NAME}.ipynb"
    (folder / "zz-blank.ipynb").write_bytes(blank.read_bytes())
    (folder / "rubbish.ipynb").write_bytes(bytes(range(256)) * 100)
    (folder / "nested.ipynb").write_text("[" * 100_000)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def results(handed_in, written, tmp_path_factory):
    """Grade the folder as an instructor does; return the lines of the table and the seconds."""
    out = tmp_path_factory.mktemp("grades") / "out"
    patch = pytest.MonkeyPatch()
    patch.setattr(grade, "grader_of", lambda name: written(name) / "solution" / "grader.zip")
    started = time.monotonic()
    grade.grade_folder(
        NAME, handed_in, out, roster=["late"], jobs=2, limits=LIMITS, show=lambda text: None
    )
    patch.undo()
    with (out / "grades.csv").open(encoding="utf-8-sig") as table:
        return {line["student"]: line for line in csv.DictReader(table)}, time.monotonic() - started


def test_every_student_has_a_result(results, handed_in):
    lines, seconds = results
    wanted = {"late", *(path.stem for path in handed_in.iterdir())}
    assert lines.keys() == wanted
    assert seconds < len(lines) * LIMITS.seconds
    assert all(float(line["seconds"]) < LIMITS.seconds + 10 for line in lines.values())


def test_the_honest_ones_lose_nothing(results):
    lines, _ = results
    assert (lines["honest"]["status"], lines["honest"]["points"]) == ("graded", "16.0")
    assert (lines["zz-blank"]["status"], lines["zz-blank"]["points"]) == ("graded", "0.0")


@pytest.mark.parametrize("name", CODE)
def test_a_hostile_one_ends_as_it_should(name, results):
    line = results[0][name]
    assert line["status"] == ENDED[name], line
    if ENDED[name] != "graded":
        assert float(line["points"]) == 0
        assert line["why"].startswith(grade.SENTENCES[ENDED[name]])


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("rubbish", "unreadable"),
        ("nested", "unreadable"),
        ("empty", "missing"),
        ("late", "missing"),
    ],
)
def test_what_is_no_notebook_is_said(name, status, results):
    assert results[0][name]["status"] == status


def test_who_looks_at_the_tests_is_pointed_out(results):
    assert "uses open" in results[0]["tests"]["look"]
    assert "imports subprocess" in results[0]["processes"]["look"]
    # the list names one student alone, and all but the blank have the reference's written answer
    honest = results[0]["honest"]["look"]
    assert honest.startswith("not on the list; q6 as allocation")
    assert "imports" not in honest and "uses" not in honest
    assert results[0]["zz-blank"]["look"] == "not on the list"


@walled
def test_no_process_outlives_its_submission(results):
    import psutil

    sleeping = [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "300"]
    ]
    assert sleeping == []


def run_code(code, folder, limits=LIMITS, hidden=()):
    shown = [grade.ROOT, *sandbox.python_folders()]
    return sandbox.run([sys.executable, "-c", code], folder, limits, hidden=hidden, shown=shown)


@walled
def test_the_network_cannot_be_reached(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        assert run_code(code, tmp_path).code != 0
        with pytest.raises(TimeoutError):
            server.accept()
    outcome = run_code("import socket; socket.create_connection(('192.0.2.1', 80), 5)", tmp_path)
    assert outcome.code != 0


def test_the_network_test_would_notice():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        reach = threading.Thread(
            target=lambda: socket.create_connection(server.getsockname(), 5).close()
        )
        reach.start()
        server.accept()[0].close()
        reach.join()


@walled
def test_solutions_other_submissions_and_the_home_folder_are_not_seen(tmp_path):
    work, others = tmp_path / "work", tmp_path / "others"
    work.mkdir(), others.mkdir()
    (others / "anna.ipynb").write_text("mine")
    private = [grade.ROOT / part for part in grade.PRIVATE]
    looked = [str(path) for path in [*private, others]]
    code = f"""
import json, os
seen = {{path: os.listdir(path) if os.path.isdir(path) else [] for path in {looked!r}}}
mine = {{".ssh", ".config", ".bash_history"}}
seen["home"] = sorted(mine & set(os.listdir({str(Path.home())!r})))
print(json.dumps(seen))
"""
    outcome = run_code(code, work, hidden=[*private, others])
    assert outcome.code == 0, outcome.said
    assert not any(json.loads(outcome.said).values())
    assert (others / "anna.ipynb").read_text() == "mine"


@walled
def test_a_folder_above_the_project_can_be_hidden(tmp_path):
    """As when submissions lie in the folder that the clone lies in."""
    above = grade.ROOT.parent
    code = f"import lop_utils.answers, os; print(os.listdir({str(above)!r}))"
    outcome = run_code(code, tmp_path, hidden=[above])
    assert outcome.code == 0, outcome.said
    assert outcome.said == f"{[grade.ROOT.name]}\n"


@walled
@pytest.mark.parametrize("path", ["/", "/usr", str(grade.ROOT), str(Path(sys.executable).parent)])
def test_nothing_but_its_own_folder_can_be_written(path, tmp_path):
    outcome = run_code(f"open({path!r} + '/written', 'w')", tmp_path)
    assert outcome.code != 0
    assert not Path(path, "written").exists()
    assert run_code("open('written', 'w')", tmp_path).code == 0
    assert (tmp_path / "written").exists()


@walled
def test_memory_cannot_be_taken_as_files(tmp_path):
    """What lies in /tmp and /dev/shm is memory that no process owns."""
    for place in ("/tmp", "/dev/shm"):
        code = (
            f"import os\nfor i in range(40): open('{place}/' + str(i), 'wb').write(bytes(2**22))\n"
        )
        outcome = run_code(code, tmp_path)
        assert outcome.code != 0
        assert "No space left" in outcome.said


def test_secrets_of_ours_are_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "secret")
    outcome = run_code("import os; print(sorted(os.environ))", tmp_path)
    assert outcome.code == 0
    assert "A_TOKEN" not in outcome.said
    assert "OMP_NUM_THREADS" in outcome.said


def test_what_is_said_is_cut(tmp_path):
    outcome = run_code("print('x' * 10**6)", tmp_path)
    assert outcome.said.strip("\n") == "x" * (sandbox.TAIL - 1)


def test_nothing_in_its_folder_keeps_the_grader_waiting(tmp_path):
    code = "import os; os.mkfifo('said.txt'); print('done')"
    assert run_code(code, tmp_path).said == "done\n"


def test_without_bubblewrap_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    assert "NOT shut in" in sandbox.protection()
    assert run_code("print('runs')", tmp_path).said == "runs\n"
    started = time.monotonic()
    outcome = run_code("while True: pass", tmp_path, LIMITS._replace(seconds=1.0))
    assert outcome.status == "time"
    assert time.monotonic() - started < 10
