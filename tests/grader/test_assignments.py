"""Each assignment: what the reference and the blank get, what mistakes cost."""

import json
import subprocess
import sys
from importlib import import_module

import assignments
import nbformat
import pytest
from grading import judge
from planted import plant

NAMES = assignments.names()
MISTAKES = {name: import_module(f"planted.{name}").MISTAKES for name in NAMES}
each = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]
)
CHECKED = """
import json, sys
import torch
torch.set_num_threads(1)
from IPython.core.interactiveshell import InteractiveShell
from otter.execute import Checker
from traitlets.config import Config
Checker.enable_tracking()
shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
for cell in json.load(sys.stdin):
    shell.run_cell(cell).raise_error()
print(json.dumps({test.name: test.summary() for test in Checker.get_results()}))
"""


def graded(notebook, known, host):
    """Grade a notebook as one hands it in."""
    content = nbformat.writes(notebook).encode()
    return judge.grade(content, False, known.assignment, known.tests, host)


def checked(notebook):
    """Return a notebook up to the last check: what comes after it changes no points."""
    last = max(i for i, cell in enumerate(notebook.cells) if "grader.check(" in cell.source)
    del notebook.cells[last + 1 :]
    return notebook


@each
def test_the_reference_gets_every_point(name, host, grader, solution):
    known = grader(name)
    for notebook in (solution(name), judge.reference(known.assignment).content):
        if isinstance(notebook, bytes):
            notebook = nbformat.reads(notebook.decode(), as_version=4)
        found = graded(notebook, known, host)
        assert found.status == "graded"
        assert {q: v.points for q, v in found.verdicts.items()} == known.points, found
        assert found.failed == []
        assert set(found.imports) <= judge.imported(known.assignment)


@each
def test_the_blank_gets_none_and_is_told_why(name, host, grader, student):
    found = graded(student(name), grader(name), host)
    assert sum(verdict.points for verdict in found.verdicts.values()) == 0
    assert all(verdict.said for verdict in found.verdicts.values())
    assert not any("raised" in text for v in found.verdicts.values() for text in v.said)


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        pytest.param(name, mistake, marks=pytest.mark.xdist_group(name))
        for name in NAMES
        for mistake in MISTAKES[name]
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_mistake_costs_its_points_and_is_named(name, mistake, host, grader, solution):
    known = grader(name)
    found = graded(checked(plant(solution(name), mistake)), known, host)
    lost = {question: known.points[question] - v.points for question, v in found.verdicts.items()}
    assert {question: points for question, points in lost.items() if points} == mistake.lost
    said = found.verdicts[next(iter(mistake.lost))].said
    assert any(mistake.message in text for text in said), said


@each
def test_there_are_enough_mistakes(name):
    assert len(MISTAKES[name]) >= 4
    assert len({mistake.name for mistake in MISTAKES[name]}) == len(MISTAKES[name])


@each
def test_the_checks_in_the_notebook_pass_for_the_solution(name, solution, tmp_path):
    """As a student runs them, with Otter, where another assignment has left its checks."""
    other = NAMES[NAMES.index(name) - 1]
    cells = [
        [cell.source for cell in checked(solution(each)).cells if cell.cell_type == "code"]
        for each in (name, other)
    ]
    (mine, *rest), (setup, *_) = cells
    code = json.dumps([mine, "mine = grader", setup, "grader = mine", *rest])
    ran = subprocess.run(
        [sys.executable, "-c", CHECKED], input=code, capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    tested = [q.name for q in assignments.read(name).questions if not q.manual]
    assert list(found) == tested
    assert all("All test cases passed" in said for said in found.values())
