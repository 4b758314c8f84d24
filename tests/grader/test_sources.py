"""The sources of the assignments, and what students get of them."""

import re

import assignments
import grade
import nbformat
import pytest
from lop_course import SOURCES, duration
from nbclient import NotebookClient

NAMES = assignments.names()
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def student(written):
    """Return a function that reads what students get."""
    return lambda name: nbformat.read(written(name) / "student" / f"{name}.ipynb", as_version=4)


# The least and the most minutes, and the points.
KINDS = {"assignment": (60, 120, 20), "project": (480, 1200, 40)}


@each
def test_an_assignment_takes_its_time_and_says_so(name, student):
    assignment = assignments.read(name)
    least, most, points = KINDS[assignment.kind]
    assert least <= assignment.minutes <= most
    assert f"about {duration(assignment.minutes)}" in student(name).cells[1].source
    assert assignment.points == points
    assert sum(question.manual for question in assignment.questions) >= 1


def test_there_are_four_assignments_and_a_project():
    kinds = [assignments.read(name).kind for name in NAMES]
    assert (kinds.count("assignment"), kinds.count("project")) == (4, 1)


@each
def test_the_points_of_a_question_are_those_of_its_tests(name, grader):
    tested = {q.name: float(q.points) for q in assignments.read(name).questions if not q.manual}
    assert grader(name).points == tested


@each
def test_students_see_the_points_of_each_question(name, student):
    text = "\n".join(cell.source for cell in student(name).cells)
    for i, question in enumerate(assignments.read(name).questions, start=1):
        assert f"**Question {i}** ({question.points} points)**.** " in text


@each
def test_every_question_that_is_tested_has_public_and_hidden_tests(name, written):
    for text in assignments.public_checks_of(written(name) / "student" / f"{name}.ipynb").values():
        assert "hidden=False" in text
    for text in grade.tests_of(written(name) / "solution" / "grader.zip").values():
        assert "hidden=False" in text and "hidden=True" in text


@each
def test_students_see_no_solution_and_no_hidden_test(name, student, solution, written):
    text = nbformat.writes(student(name))
    assert "hidden=True" not in text
    assert "SOLUTION" not in text
    assert "**Rubric.**" not in text
    assert "**Usual mistakes.**" not in text
    hidden = hidden_lines(written(name) / "solution" / "grader.zip")
    assert len(hidden) > 5
    setup = next(cell.source for cell in student(name).cells if "CHECKS = " in cell.source)
    assert hidden & {line.strip() for line in setup.splitlines()} == set()
    solved = {
        line.strip()
        for cell in solution(name).cells
        if "otter_assign_solution_cell" in cell.metadata.get("tags", [])
        for line in cell.source.splitlines()
        if len(line.strip()) > 30 and "def " not in line and '"""' not in line
    }
    shown = "\n".join(cell.source for cell in student(name).cells if "CHECKS" not in cell.source)
    assert len(solved) > 10
    assert [line for line in solved if line in shown] == []


def hidden_lines(archive):
    """Return the lines of the hidden tests that no public one has."""
    public, hidden = set(), set()
    for text in grade.tests_of(archive).values():
        for case in re.split(r"^@test_case", text, flags=re.M)[1:]:
            lines = {line.strip() for line in case.splitlines() if len(line.strip()) > 40}
            (hidden if "hidden=True" in case.splitlines()[0] else public).update(lines)
    return hidden - public


@each
def test_the_notebook_is_plain_markdown_and_its_links_lead_to_pages(name, student):
    for cell in student(name).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\{(doc|ref|cite|eq|numref)[:}]|^:::|^```\{", cell.source, re.M)
            assert "book:" not in cell.source
    text = "\n".join(c.source for c in student(name).cells if c.cell_type == "markdown")
    pages = re.findall(rf"\({re.escape(assignments.site())}([\w/-]+)\.html", text)
    assert pages
    for page in pages:
        assert (assignments.ROOT / f"{page}.md").is_file()


@each
def test_the_checks_in_the_notebook_pass_for_the_solution(name, solution, tmp_path):
    """As a student runs them: in an empty folder, with nothing but the notebook."""
    client = NotebookClient(
        solution(name), timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    executed = client.execute()
    checks = [cell for cell in executed.cells if cell.source.startswith("grader.check(")]
    questions = [q for q in assignments.read(name).questions if not q.manual]
    assert len(checks) == len(questions)
    for cell in checks:
        (output,) = cell.outputs
        assert "passed" in output.data["text/plain"], output.data["text/plain"]


@each
def test_the_archive_asks_for_a_python_and_a_torch_that_we_know(name, written):
    import yaml

    said = yaml.safe_load(
        grade.file_of(written(name) / "solution" / "grader.zip", "environment.yml")
    )
    *packages, by_pip = said["dependencies"]
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


@pytest.fixture
def source(tmp_path):
    """Return a function that reads a source of ours after a change."""
    text = (assignments.ROOT / SOURCES / "whitening.md").read_text(encoding="utf-8")
    folder = tmp_path / SOURCES
    folder.mkdir(parents=True)

    def source(old, new):
        assert old in text
        (folder / "whitening.md").write_text(text.replace(old, new, 1), encoding="utf-8")
        return assignments.read("whitening", tmp_path)

    return source


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
def test_a_source_that_lacks_something_is_refused(old, new, message, source):
    with pytest.raises(ValueError, match=message):
        source(old, new)


def test_a_name_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        assignments.main(["unheard-of"])
    assert "no assignment unheard-of; there are" in capsys.readouterr().err


def test_students_alone_are_written_where_it_is_said(tmp_path):
    assignments.main(["--students", str(tmp_path / "a"), NAMES[0]])
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"{NAMES[0]}.ipynb"]
