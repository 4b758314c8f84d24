"""The assignments, written once, and graded: by the grader itself, or in one process."""

import json
import subprocess
import sys
import warnings
import zipfile
from functools import cache
from pathlib import Path

import assignments
import grade
import nbformat
import pytest

with warnings.catch_warnings():  # of what Otter imports, against traitlets
    warnings.simplefilter("ignore")
    import otter.assign  # noqa: F401


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Return a function that writes an assignment, once, and returns its folder."""
    return cache(lambda name: assignments.make(name, out=tmp_path_factory.mktemp("made") / name))


@pytest.fixture(scope="session")
def grader(written):
    """Return a function that returns what grades an assignment."""
    return cache(lambda name: grade.grader(name, written(name) / "solution" / "grader.zip"))


@pytest.fixture(scope="session")
def solution(written):
    """Return a function that reads the reference solution of an assignment."""
    return lambda name: nbformat.read(written(name) / "solution" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="session")
def student(written):
    """Return a function that reads what students get."""
    return lambda name: nbformat.read(written(name) / "student" / f"{name}.ipynb", as_version=4)


def cells(notebook):
    """Return the cells of code up to the last check: what comes after it changes no points."""
    found = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return found[: 1 + max(i for i, cell in enumerate(found) if cell.startswith("grader.check("))]


@pytest.fixture(scope="session")
def in_process():
    """Return a function that sends a job to a process that has imported everything."""
    script = Path(__file__).with_name("in_process.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def in_process(cells, changes=(), tests=""):
        job = {"cells": cells, "changes": changes, "tests": str(tests)}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return {result["name"]: result for result in json.loads(process.stdout.readline())}

    yield in_process
    process.communicate()


@pytest.fixture(scope="session")
def grade_in_process(in_process, solution, written, tmp_path_factory):
    """Return a function that grades the solution, named "", and notebooks that are alike."""

    def grade_in_process(name, notebooks):
        folder = tmp_path_factory.mktemp("unpacked")
        with zipfile.ZipFile(written(name) / "solution" / "grader.zip") as archive:
            archive.extractall(folder)
        solved, changes = cells(solution(name)), []
        for changed, notebook in notebooks.items():
            found = cells(notebook)
            place = next(i for i, cell in enumerate(solved) if found[i] != cell)
            changes.append([changed, place, found[place:]])
        graded = {}
        for changed, result in in_process(solved, changes, folder / "tests").items():
            points = {question: score for question, (score, _) in result["tests"].items()}
            said = {
                question: grade.reasons(said) for question, (_, said) in result["tests"].items()
            }
            graded[changed] = grade.Grade(changed, "graded", points, said, [], {}, 0.0)
        return graded

    return grade_in_process
