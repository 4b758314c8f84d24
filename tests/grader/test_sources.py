"""The sources of the assignments, and what students, instructors and graders get of them."""

import re
import zipfile

import assignments
import nbformat
import pytest
import yaml
from lop_course import SOURCES, duration

NAMES = assignments.names()
each = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.xdist_group("sources")
# The least and the most minutes, and the points.
KINDS = {"assignment": (60, 120, 20), "project": (480, 1200, 40)}


def text_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_five_assignments_and_a_project():
    kinds = [assignments.read(name).kind for name in NAMES]
    assert (kinds.count("assignment"), kinds.count("project")) == (5, 1)


@each
def test_an_assignment_says_what_it_takes_and_gives(name, student, grader):
    assignment = assignments.read(name)
    least, most, points = KINDS[assignment.kind]
    assert least <= assignment.minutes <= most
    assert f"about {duration(assignment.minutes)}" in student(name).cells[1].source
    assert assignment.points == points
    assert sum(question.manual for question in assignment.questions) >= 1
    tested = {q.name: float(q.points) for q in assignment.questions if not q.manual}
    assert grader(name).points == tested  # as its tests say
    for i, question in enumerate(assignment.questions, start=1):
        assert f"**Question {i}** ({question.points} points)**.** " in text_of(student(name))


@each
def test_students_see_public_tests_and_no_solution_and_no_hidden_test(
    name, student, solution, written
):
    text = nbformat.writes(student(name))
    for kept in ("hidden=True", "SOLUTION", "**Rubric.**", "**Usual mistakes.**"):
        assert kept not in text
    with zipfile.ZipFile(written(name) / "solution" / "grader.zip") as archive:
        names = [each for each in archive.namelist() if re.fullmatch(r"tests/\w+\.py", each)]
        tests = {each: archive.read(each).decode() for each in names}
    assert all("hidden=False" in text and "hidden=True" in text for text in tests.values())
    setup, *_ = code(student(name))
    checks = setup.split("r'''")[1:]
    assert len(checks) == len(tests) and all("hidden=False" in check for check in checks)
    hidden = hidden_lines(tests)
    assert len(hidden) > 5
    assert hidden & {line.strip() for line in setup.splitlines()} == set()
    solved = {
        line.strip()
        for cell in solution(name).cells
        if "otter_assign_solution_cell" in cell.metadata.get("tags", [])
        for line in cell.source.splitlines()
        if len(line.strip()) > 30 and "def " not in line and '"""' not in line
    }
    shown = "\n".join(cell.source for cell in student(name).cells if cell.source != setup)
    assert len(solved) > 10
    assert [line for line in solved if line in shown] == []


def hidden_lines(tests):
    """Return the lines of the hidden tests that no public one has."""
    public, hidden = set(), set()
    for text in tests.values():
        for case in re.split(r"^@test_case", text, flags=re.M)[1:]:
            lines = {line.strip() for line in case.splitlines() if len(line.strip()) > 40}
            (hidden if "hidden=True" in case.splitlines()[0] else public).update(lines)
    return hidden - public


@each
def test_the_notebook_is_plain_markdown_and_its_links_lead_to_pages(name, student):
    text = text_of(student(name))
    assert not re.search(r"\{(doc|ref|cite|eq|numref)[:}]|^:::|^```\{", text, re.M)
    assert "book:" not in text
    pages = re.findall(rf"\({re.escape(assignments.site())}([\w/-]+)\.html", text)
    assert pages
    for page in pages:
        assert (assignments.ROOT / f"{page}.md").is_file()


@each
def test_the_archive_asks_for_a_python_and_a_torch_that_we_know(name, written):
    with zipfile.ZipFile(written(name) / "solution" / "grader.zip") as archive:
        *packages, by_pip = yaml.safe_load(archive.read("environment.yml"))["dependencies"]
    assert "python=3.11" in packages
    assert any(each.startswith("pytorch-cpu") for each in packages)
    assert not any(each.startswith("jupyterlab") for each in packages)
    assert any(each.startswith("lop-utils @ ") for each in by_pip["pip"])
    assert any(each.startswith("otter-grader") for each in by_pip["pip"])


@each
def test_the_guide_says_what_an_instructor_needs(name, written):
    text = (written(name) / "solution" / "guide.md").read_text()
    for question in assignments.read(name).questions:
        assert f"## {question.name}: {question.title}" in text
        assert f"| {question.name} | {question.title} | {question.points} |" in text
        assert all(part in text for part in question.note.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  after: [parsimony/law, parsimony/proof]\n", "", "wanted assignment: {after, summary}"),
        ("# Whitening and invariant", "Whitening and invariant", "wanted a heading"),
        ('+++ {"tags": ["instructor"]}', "+++", "q1 has no instructor's note"),
        ("**Time.** 10 minutes.", "", "q1: wanted a note of"),
        ("**Time.** 10 minutes.", "**Time.** Ten minutes.", "wanted points and"),
        ("name: q1\npoints: 3", "name: q1", "wanted points and"),
        ("**Rubric.**", "**Grading.**", "q6: wanted a note of"),
    ],
)
def test_a_source_that_lacks_something_is_refused(old, new, message, tmp_path):
    text = (assignments.ROOT / SOURCES / "whitening.md").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / SOURCES).mkdir(parents=True)
    (tmp_path / SOURCES / "whitening.md").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        assignments.read("whitening", tmp_path)


def test_a_name_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        assignments.main(["unheard-of"])
    assert "no assignment unheard-of; there are" in capsys.readouterr().err


def test_students_alone_are_written_where_it_is_said(tmp_path):
    assignments.main(["--students", str(tmp_path / "a"), NAMES[0]])
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"{NAMES[0]}.ipynb"]
