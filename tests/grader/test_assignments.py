"""Each assignment: what students see, what the reference and the blank get, what mistakes cost."""

from importlib import import_module

import assignments
import nbformat
import pytest
from planted import plant

NAMES = assignments.names()
MISTAKES = {name: import_module(f"planted.{name}").MISTAKES for name in NAMES}
each = pytest.mark.parametrize("name", NAMES)
graded_before = {}


@pytest.fixture(scope="session")
def grades(written, solution, grade_all):
    """Return a function that returns all grades of one assignment, by what was handed in."""

    def grades(name):
        if name not in graded_before:
            student = written(name) / "student" / f"{name}.ipynb"
            notebooks = {
                "reference": solution(name),
                "blank": nbformat.read(student, as_version=4),
            }
            notebooks |= {m.name: plant(solution(name), m) for m in MISTAKES[name]}
            graded_before[name] = grade_all(name, notebooks)
        return graded_before[name]

    return grades


@each
def test_the_reference_gets_every_point(name, grades, grader):
    grade = grades(name)["reference"]
    assert grade.status == "graded"
    assert grade.points == grader(name).points
    assert not any(grade.messages.values())
    assert grade.flags == []


@each
def test_the_blank_gets_none(name, grades):
    grade = grades(name)["blank"]
    assert grade.status == "graded"
    assert sum(grade.points.values()) == 0
    assert all(grade.messages.values())  # every question says what is missing
    assert grade.flags == []


@pytest.mark.parametrize(
    ("name", "mistake"),
    [(name, mistake) for name in NAMES for mistake in MISTAKES[name]],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_mistake_costs_its_points_and_is_named(name, mistake, grades, grader):
    grade = grades(name)[mistake.name]
    assert grade.status == "graded"
    full = grader(name).points
    lost = {question: full[question] - got for question, got in grade.points.items()}
    assert {question: points for question, points in lost.items() if points} == mistake.lost
    first = next(iter(mistake.lost))
    assert any(mistake.message in text for text in grade.messages[first]), grade.messages[first]
    assert mistake.message not in str(grades(name)["reference"].messages)


@each
def test_there_are_enough_mistakes(name):
    assert len(MISTAKES[name]) >= 4
    assert len({mistake.name for mistake in MISTAKES[name]}) == len(MISTAKES[name])
