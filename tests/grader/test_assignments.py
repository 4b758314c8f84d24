"""Each assignment: what students see, what the reference and the blank get, what mistakes cost."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module

import assignments
import grade
import nbformat
import pytest
from planted import plant

NAMES = assignments.names()
MISTAKES = {name: import_module(f"planted.{name}").MISTAKES for name in NAMES}
each = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]
)


@pytest.fixture(scope="session")
def in_one_process(solution, student, grade_in_process):
    """Return a function that gives all grades of one assignment, by what was handed in."""

    @cache
    def in_one_process(name):
        notebooks = {m.name: plant(solution(name), m) for m in MISTAKES[name]}
        return grade_in_process(name, {"blank": student(name), **notebooks})

    return in_one_process


@pytest.fixture(scope="session")
def by_otter(solution, grader):
    """Return a function that lets the grader grade the solution and one mistake."""

    @cache
    def by_otter(name):
        planted = plant(solution(name), MISTAKES[name][0])
        checks = [i for i, cell in enumerate(planted.cells) if "grader.check(" in cell.source]
        del planted.cells[checks[-1] + 1 :]  # what comes after the last check changes no points
        handed_in = {"": solution(name), MISTAKES[name][0].name: planted}

        def graded(student):
            content = nbformat.writes(handed_in[student]).encode()
            return grade.graded(grade.Submission(student, content), grader(name))

        with ThreadPoolExecutor(2) as pool:
            return dict(zip(handed_in, pool.map(graded, handed_in), strict=True))

    return by_otter


@each
def test_the_reference_gets_every_point(name, by_otter, grader):
    reference = by_otter(name)[""]
    assert reference.status == "graded"
    assert reference.points == grader(name).points
    assert not any(reference.messages.values())
    assert reference.flags == []


@each
def test_the_grader_says_what_the_tests_say_in_one_process(name, by_otter, in_one_process):
    for student, graded in by_otter(name).items():
        assert graded[1:4] == in_one_process(name)[student][1:4]  # status, points, messages


@each
def test_the_blank_gets_none(name, in_one_process, student, grader):
    blank = in_one_process(name)["blank"]
    assert sum(blank.points.values()) == 0
    assert all(blank.messages.values())  # every question says what is missing
    assert grade.flags(student(name), grader(name).allowed) == []


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        pytest.param(name, mistake, marks=pytest.mark.xdist_group(name))
        for name in NAMES
        for mistake in MISTAKES[name]
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_mistake_costs_its_points_and_is_named(name, mistake, in_one_process, grader):
    graded = in_one_process(name)[mistake.name]
    full = grader(name).points
    lost = {question: full[question] - got for question, got in graded.points.items()}
    assert {question: points for question, points in lost.items() if points} == mistake.lost
    said = graded.messages[next(iter(mistake.lost))]
    assert any(mistake.message in text for text in said), said


@each
def test_there_are_enough_mistakes(name):
    assert len(MISTAKES[name]) >= 4
    assert len({mistake.name for mistake in MISTAKES[name]}) == len(MISTAKES[name])
