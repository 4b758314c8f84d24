"""The assignments, written once, and walled processes that run notebooks."""

import warnings
from functools import cache

import assignments
import grade
import nbformat
import pytest
from adding import adding
from grading import walls

with warnings.catch_warnings():  # of what Otter imports, against traitlets
    warnings.simplefilter("ignore")
    import otter.assign  # noqa: F401


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Return a function that writes an assignment, once, and returns its folder."""
    return cache(lambda name: assignments.make(name, out=tmp_path_factory.mktemp("made") / name))


@pytest.fixture(scope="session")
def student(written):
    """Return a function that reads what students get."""
    return lambda name: nbformat.read(written(name) / "student" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="session")
def solution(written):
    """Return a function that reads the reference solution of an assignment."""
    return lambda name: nbformat.read(written(name) / "solution" / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="session")
def grader():
    """Return a function that returns what grades an assignment."""
    return cache(grade.grader)


@pytest.fixture(scope="session")
def host():
    """Return a host that grades the book's assignments."""
    with walls.Host(walls.LIMITS) as host:
        yield host


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """Return what grades the small assignment."""
    return adding(tmp_path_factory.mktemp("adding"))
