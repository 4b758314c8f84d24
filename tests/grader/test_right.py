"""A right answer gets every point, in whatever words, or is told what to change."""

import re
import warnings
from importlib import import_module

import lop_course
import pytest
import torch
from grading import judge

SOLVED = {name: import_module(f"right.{name}") for name in lop_course.names()}


@pytest.fixture(autouse=True)
def settings():
    """Put back what an answer sets for all that runs after it."""
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)


def said_of(name, right):
    """Run an assignment with other answers; return what the tests of each question say."""
    known, said, question, part = {"__name__": "__main__"}, {}, None, None
    for cell in lop_course.read(name).notebook.cells:
        source = cell.source
        if cell.cell_type == "raw":
            part = source.removeprefix("# ").splitlines()[0]
            if part == "BEGIN QUESTION":
                if "manual: true" in source:  # a written answer has no tests; all that follow are
                    break
                question = re.search("^name: (.+)", source, re.M)[1]
                said[question] = []
            elif part == "BEGIN SOLUTION" and question in right:
                exec(right[question], known)
        elif cell.cell_type != "code" or (part == "BEGIN SOLUTION" and question in right):
            continue
        elif part == "BEGIN TESTS":
            said[question] += failures(source, known)
        else:
            exec(source, known)
    return said


def failures(source, known):
    """Return what a test says against the answers, if anything."""
    names = re.search(r"^def test_\w+\((.*)\):", source, re.M)[1].split(", ")
    test = {}
    exec(source, test)
    (run,) = (each for name, each in test.items() if name.startswith("test_"))
    try:
        run(*(known.get(name) for name in names))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return []


@pytest.mark.parametrize("where", ["in one process", "by the grader"])
@pytest.mark.parametrize(
    ("name", "style"),
    [
        pytest.param(name, style, marks=pytest.mark.xdist_group(name))
        for name, solved in SOLVED.items()
        for style in solved.RIGHT
    ],
)
def test_a_right_answer_gets_every_point_or_is_told_what_to_change(
    name, style, where, host, grader
):
    right = SOLVED[name].RIGHT[style]
    if where == "by the grader":
        content = judge.reference(grader(name).assignment, right).content
        graded = judge.grade(content, False, grader(name).assignment, grader(name).tests, host)
        said = {question: verdict.details for question, verdict in graded.verdicts.items()}
        assert graded.failed == []
    else:  # as in a student's notebook, and on Gradescope
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = said_of(name, right)
    assert right.keys() <= said.keys()
    named = {q: text for (of, q), text in SOLVED[name].NAMED.items() if of == style}
    assert {q: texts for q, texts in said.items() if texts and q not in named} == {}
    for question, text in named.items():
        assert any(text in each for each in said[question]), said[question]


def test_each_is_solved_in_five_ways():
    assert {name: len(solved.RIGHT) for name, solved in SOLVED.items()} == dict.fromkeys(SOLVED, 5)
