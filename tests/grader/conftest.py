"""The assignments, written once, and a process that runs them without being started anew."""

import json
import subprocess
import sys
import warnings
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


@pytest.fixture(scope="session")
def in_process():
    """Return a function that sends a job to a process that has imported everything."""
    script = Path(__file__).with_name("in_process.py")
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True)

    def in_process(cells, changes=(), tests=""):
        job = {"cells": cells, "changes": changes, "tests": str(tests)}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return {result["name"]: result for result in json.loads(process.stdout.readline())}

    yield in_process
    process.kill()
    process.communicate()
