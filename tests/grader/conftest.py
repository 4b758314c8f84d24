"""The assignments, written once, and graded by the grader itself."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import assignments
import grade
import nbformat
import pytest

with warnings.catch_warnings():  # of what Otter imports, against traitlets
    warnings.simplefilter("ignore")
    import otter.assign  # noqa: F401

JOBS = 2


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Return a function that writes an assignment, once, and returns its folder."""
    made = {}

    def written(name):
        if name not in made:
            made[name] = assignments.make(name, out=tmp_path_factory.mktemp("made") / name)
        return made[name]

    return written


@pytest.fixture(scope="session")
def grader(written):
    """Return a function that returns what grades an assignment."""
    return lambda name: grade.grader(name, written(name) / "solution" / "grader.zip")


@pytest.fixture(scope="session")
def solution(written):
    """Return a function that reads the reference solution of an assignment."""
    return lambda name: nbformat.read(written(name) / "solution" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="session")
def grade_all(grader):
    """Return a function that grades several notebooks at once, by name."""

    def grade_all(name, notebooks, **more):
        handed_in = [
            grade.Submission(student, nbformat.writes(notebook).encode())
            for student, notebook in notebooks.items()
        ]
        with ThreadPoolExecutor(JOBS) as pool:
            graded = pool.map(lambda each: grade.graded(each, grader(name), **more), handed_in)
        return {each.student: each for each in graded}

    return grade_all
