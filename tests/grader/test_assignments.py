"""Each assignment: what students see, what the reference and the blank get, what mistakes cost."""

import shutil
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


def checked(notebook):
    """Return a notebook up to the last check: what comes after it changes no points."""
    last = max(i for i, cell in enumerate(notebook.cells) if "grader.check(" in cell.source)
    del notebook.cells[last + 1 :]
    return notebook


@pytest.fixture(scope="session")
def in_one_process(solution, student, in_process, written, tmp_path_factory):
    """Return a function that gives status, points and messages of all that can be handed in."""

    def code(notebook):
        return [cell.source for cell in checked(notebook).cells if cell.cell_type == "code"]

    @cache
    def in_one_process(name):
        folder = tmp_path_factory.mktemp("unpacked")
        shutil.unpack_archive(written(name) / "solution" / "grader.zip", folder)
        handed_in = {m.name: code(plant(solution(name), m)) for m in MISTAKES[name]}
        handed_in["blank"] = code(student(name))
        solved, changes = code(solution(name)), []
        for changed, found in handed_in.items():
            place = next(i for i, cell in enumerate(solved) if found[i] != cell)
            changes.append([changed, place, found[place:]])
        graded = {}
        for changed, result in in_process(solved, changes, folder / "tests").items():
            points = {question: score for question, (score, _) in result["tests"].items()}
            said = {
                question: grade.reasons(said) for question, (_, said) in result["tests"].items()
            }
            graded[changed] = ("graded", points, said)
        return graded

    return in_one_process


@pytest.fixture(scope="session")
def by_otter(solution, grader):
    """Return a function that lets the grader grade the solution and one mistake."""

    @cache
    def by_otter(name):
        first = MISTAKES[name][0]
        handed_in = {"": solution(name), first.name: checked(plant(solution(name), first))}

        def graded(student):
            content = nbformat.writes(handed_in[student]).encode()
            return grade.graded(grade.Submission(student, content), grader(name))

        with ThreadPoolExecutor(2) as pool:
            return dict(zip(handed_in, pool.map(graded, handed_in), strict=True))

    return by_otter


@each
def test_the_reference_gets_every_point(name, by_otter, grader):
    reference = by_otter(name)[""]
    assert (reference.status, reference.points) == ("graded", grader(name).points)
    assert not any(reference.messages.values())
    assert reference.flags == []


@each
def test_the_grader_says_what_the_tests_say_in_one_process(name, by_otter, in_one_process):
    for student, graded in by_otter(name).items():
        assert graded[1:4] == in_one_process(name)[student]


@each
def test_the_blank_gets_none(name, in_one_process, student, grader):
    _, points, messages = in_one_process(name)["blank"]
    assert sum(points.values()) == 0
    assert all(messages.values())  # every question says what is missing
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
    _, points, messages = in_one_process(name)[mistake.name]
    lost = {question: full - points[question] for question, full in grader(name).points.items()}
    assert {question: points for question, points in lost.items() if points} == mistake.lost
    said = messages[next(iter(mistake.lost))]
    assert any(mistake.message in text for text in said), said


@each
def test_there_are_enough_mistakes(name):
    assert len(MISTAKES[name]) >= 4
    assert len({mistake.name for mistake in MISTAKES[name]}) == len(MISTAKES[name])
