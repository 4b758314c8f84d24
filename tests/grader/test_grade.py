"""What an instructor hands to the grader, and what comes back: names, files, the table."""

import csv
import io
import json
import os
import zipfile

import grade
import nbformat
import pytest
from lop_course import Question
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTE = {"Tests": "a", "Usual mistakes": "b", "Rubric": "one point for each", "Time": "5 minutes."}
QUESTIONS = [
    Question("q1", "Add", 2, False, 5, NOTE),
    Question("q2", "Say why", 3, True, 5, NOTE),
    Question("q3", "Say how", 1, True, 5, NOTE),
]
POINTS = {"q1": 2.0}


@pytest.fixture
def grader(tmp_path):
    return grade.Grader("adding", tmp_path / "grader.zip", QUESTIONS, POINTS, {"torch"})


def notebook(*cells):
    return new_notebook(cells=list(cells), metadata={"otter": {"assignment_name": "adding"}})


def text_of(notebook):
    return nbformat.writes(notebook)


def graded(student="anna", status="graded", **more):
    known = {
        "points": {"q1": 1.0},
        "messages": {"q1": ["sum: it is the product"]},
        "flags": [],
        "written": {"q2": "because", "q3": ""},
        "seconds": 5.2,
    }
    return grade.Grade(student, status, **(known | more))


# --- What was handed in ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Return a folder as Canvas, Moodle and people make them."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    content = text_of(notebook())
    (folder / "anna_12_adding.ipynb").write_text(content)
    for student in ("Bo Å_34_file", "empty_56_file"):
        (folder / student).mkdir()
    (folder / "Bo Å_34_file" / "adding-2.ipynb").write_text(content)
    (folder / "Bo Å_34_file" / ".ipynb_checkpoints").mkdir()
    (folder / "Bo Å_34_file" / ".ipynb_checkpoints" / "adding.ipynb").write_text("old")
    with zipfile.ZipFile(folder / "cleo.zip", "w") as archive:
        archive.writestr("deep/adding.ipynb", content)
        archive.writestr("__MACOSX/deep/._adding.ipynb", "rubbish")
    (folder / ".DS_Store").write_text("rubbish")
    (folder / "notes.txt").write_text("not a submission")
    return folder


def test_each_form_of_a_submission_is_found(folder):
    found = {
        each.student: each for each in grade.submissions(folder, roster=["anna_12_adding", "z"])
    }
    assert list(found) == ["Bo Å_34_file", "anna_12_adding", "cleo", "empty_56_file", "z"]
    content = text_of(notebook()).encode()
    for student in ("anna_12_adding", "Bo Å_34_file", "cleo"):
        assert found[student] == grade.Submission(student, content)
    for student in ("empty_56_file", "z"):
        assert found[student] == grade.Submission(student, None)


def test_two_of_one_name_are_two(folder):
    (folder / "cleo").mkdir()
    assert {"cleo", "cleo+"} <= {each.student for each in grade.submissions(folder)}


def broken(folder, name, write):
    path = folder / name
    write(path)
    (found,) = [each for each in grade.submissions(folder) if each.student == path.stem]
    assert found.content is None
    return found.trouble


def zipped(*names, size=10):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, bytes(size))

    return write


@pytest.mark.parametrize(
    ("name", "write", "trouble"),
    [
        ("a.zip", lambda path: path.write_bytes(b"rubbish"), "not a zip file"),
        ("b.zip", zipped("a.ipynb", "b.ipynb"), "wanted one notebook in the zip file, got 2"),
        ("c.zip", zipped("a.txt"), "wanted one notebook in the zip file, got 0"),
        ("d.zip", zipped("a.ipynb", size=grade.LARGEST + 1), "more than 20 MiB"),
        ("e.ipynb", lambda path: path.write_bytes(bytes(grade.LARGEST + 1)), "more than 20 MiB"),
    ],
)
def test_what_cannot_be_read_is_said(folder, name, write, trouble):
    assert trouble in broken(folder, name, write)


def test_a_student_hands_in_one_notebook(folder):
    for name in ("a", "b"):
        (folder / "empty_56_file" / f"{name}.ipynb").write_text("{}")
    found = {each.student: each for each in grade.submissions(folder)}
    assert found["empty_56_file"].trouble == "2 notebooks in one folder"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b"[]", b'{"cells": 3}', b"null"])
def test_rubbish_is_no_notebook(content, grader):
    assert grade.graded(grade.Submission("anna", content), grader).status == "unreadable"


def test_another_assignment_is_not_graded(grader):
    other = notebook()
    other.metadata["otter"]["assignment_name"] = "whitening"
    found = grade.graded(grade.Submission("anna", text_of(other).encode()), grader)
    assert (found.status, found.said) == ("other assignment", "whitening")


def test_what_colab_and_others_leave_in_a_notebook_does_not_matter():
    left = notebook(new_code_cell("1", execution_count=3, outputs=[]))
    left.metadata = {"kernelspec": {"name": "xeus", "display_name": "?"}, "colab": {}}
    ready = grade.prepared(left, "adding")
    assert ready.metadata["kernelspec"]["name"] == "python3"
    assert ready.metadata["otter"] == {"assignment_name": "adding"}
    assert ready.cells[0].execution_count is None


# --- What a person should see ------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "flag"),
    [
        ("import os", "imports os"),
        ("from os import path", "imports os.path"),
        ("from lop_utils import parsimony", "imports lop_utils.parsimony"),
        ("open('tests/q1.py')", "uses open"),
        ("eval('1')", "uses eval"),
        ("!ls", "runs a magic or a shell command"),
        ("  %run other.py", "runs a magic or a shell command"),
    ],
)
def test_what_no_answer_needs_is_pointed_out(code, flag):
    assert grade.flags(notebook(new_code_cell(code)), {"torch"}) == [flag]


def test_what_answers_need_is_not_pointed_out():
    fine = notebook(
        new_code_cell("# @title Setup: run this cell first\nimport os"),
        new_code_cell("import torch\nx = torch.eye(3)"),
        new_code_cell("this is no Python"),
        new_markdown_cell("import os"),
    )
    assert grade.flags(fine, {"torch"}) == []


def test_written_answers_are_found_below_their_questions():
    handed_in = notebook(
        new_markdown_cell("<!-- BEGIN QUESTION -->\n\n**Question 2.** Why?"),
        new_markdown_cell("because"),
        new_code_cell("1 + 1"),
        new_markdown_cell("<!-- END QUESTION -->"),
        new_markdown_cell("no answer"),
        new_markdown_cell("<!-- BEGIN QUESTION -->\n\n**Question 3.** How?"),
        new_markdown_cell("so"),
    )
    assert grade.written_answers(handed_in, QUESTIONS) == {"q2": "because\n\n1 + 1", "q3": "so"}
    assert grade.written_answers(notebook(), QUESTIONS) == {"q2": "", "q3": ""}


def test_more_questions_than_there_are_do_no_harm():
    texts = ["<!-- BEGIN QUESTION -->", "so"] * 4
    cells = [new_markdown_cell(text) for text in texts]
    assert grade.written_answers(notebook(*cells), QUESTIONS) == {"q2": "so", "q3": "so"}


# --- Results -----------------------------------------------------------------------------


def result(tmp_path, tests):
    path = tmp_path / "results.json"
    path.write_text(tests if isinstance(tests, str) else json.dumps({"tests": tests}))
    return grade.result(path, POINTS)


OUTPUT = """q1 results:
    q1 - 1 result:
        ❌ Test case failed
        Error at line 3 in test q1:
              answers.compare("sum", got, wanted)
        AssertionError: sum: it is the product

    q1 - 2 result:
        ❌ Test case failed
        Error at line 9 in test q1:
                  got = answers.call(add, 1, 2)
        TypeError: add() takes 1 argument

    q1 - 3 result:
        ❌ Test case failed
        Error at line 12 in test q1:
              answers.compare("sum", got, wanted)
        AssertionError: sum: it is the product"""


def test_reasons_are_taken_out_of_otters_report(tmp_path):
    summary = {"name": "Public Tests", "output": "not a question"}
    test = {"name": "q1", "score": 1, "max_score": 2, "output": OUTPUT}
    points, messages = result(tmp_path, [summary, test])
    assert points == {"q1": 1.0}
    assert messages == {"q1": ["sum: it is the product", "TypeError: add() takes 1 argument"]}


@pytest.mark.parametrize(
    "tests",
    [
        [],
        [{"name": "q1", "score": 2, "max_score": 1, "output": ""}],
        [{"name": "q1", "score": 3, "max_score": 2, "output": ""}],
        [{"name": "q1", "score": -1, "max_score": 2, "output": ""}],
        [{"name": "q1", "score": float("nan"), "max_score": 2, "output": ""}],
        [{"name": "q2", "score": 1, "max_score": 2, "output": ""}],
        "no json",
    ],
)
def test_a_result_that_does_not_fit_the_tests_is_refused(tests, tmp_path):
    with pytest.raises(ValueError, match=r"wanted|Expecting"):
        result(tmp_path, tests)


def test_a_result_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "results.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="wanted a small file"):
        grade.result(tmp_path / "results.json", POINTS)


def test_a_pipe_in_the_place_of_the_result_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(ValueError, match="wanted a small file"):
        grade.result(tmp_path / "results.json", POINTS)


def lines(grades, grader):
    return list(csv.DictReader(io.StringIO(grade.table(grades, grader))))


def test_the_table_leaves_what_is_graded_by_hand_empty(grader):
    (line,) = lines([graded()], grader)
    assert line == {
        "student": "anna",
        "status": "graded",
        "points": "1.0",
        "of": "2.0",
        "q1": "1.0",
        "q2": "",
        "q3": "",
        "look": "",
        "seconds": "5",
        "why": "q1: sum: it is the product",
    }


@pytest.mark.parametrize("student", ["=1+1", "+a", "-a", "@a"])
def test_no_name_is_a_formula(student, grader):
    (line,) = lines([graded(student, messages={"q1": []}, status="time", said="=2")], grader)
    assert line["student"] == f"'{student}"
    assert line["why"].startswith("stopped: ")


def test_every_status_has_its_sentence(grader):
    for status, sentence in grade.SENTENCES.items():
        (line,) = lines([graded(status=status)], grader)
        assert line["why"].startswith(sentence)
        assert (sentence or "Graded.") in grade.feedback(graded(status=status), grader)


def test_students_are_told_what_they_lost_and_why(grader):
    text = grade.feedback(graded(), grader)
    assert "## q1: Add\n\n1 of 2.\n\n- sum: it is the product" in text
    assert "## q2: Say why\n\nGraded by hand: of 3." in text


def test_who_was_not_graded_is_told_why_and_no_points(grader):
    text = grade.feedback(graded(status="time"), grader)
    assert grade.SENTENCES["time"] in text
    assert "## q1" not in text


def test_what_code_printed_stands_below_it():
    cell = new_code_cell("table")
    cell.outputs = [
        new_output("stream", text="0.1\n0.2\n"),
        new_output("execute_result", data={"text/plain": "tensor(1.)"}),
        new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"}),
        new_output("error", ename="E", evalue="failed", traceback=[]),
    ]
    below = [new_markdown_cell("<!-- BEGIN QUESTION -->"), cell]
    assert grade.written_answers(notebook(*below), QUESTIONS)["q2"] == (
        "table\n\n-> 0.1\n-> 0.2\n\n-> tensor(1.)\n\n-> (a figure: see the notebook)\n\n-> failed"
    )


def test_answers_that_are_the_same_word_for_word_are_pointed_out(grader):
    same, other = "because " * 20, "since " * 20
    wrote = [("anna", same), ("bo", f"\n{same} "), ("cleo", other), ("d", "yes"), ("e", "yes")]
    found = lines([graded(student, written={"q2": text}) for student, text in wrote], grader)
    assert [line["look"] for line in found] == ["q2 as bo", "q2 as anna", "", "", ""]


def test_written_answers_stand_below_their_rubric_and_cannot_leave_their_place(grader):
    answer = "# not a heading\n~~~\n<script>"
    text = grade.collected([graded("bo"), graded(written={"q2": answer})], grader)
    assert "## q2: Say why (3 points)\n\n**Rubric.** one point for each\n\n### anna" in text
    assert f"~~~~text\n{answer}\n~~~~" in text
    assert "### bo\n\n~~~text\nbecause\n~~~" in text
    assert "### bo\n\n~~~text\n(nothing)\n~~~" in text


@pytest.mark.parametrize(
    ("student", "file"),
    [("../../etc/passwd", "_.._etc_passwd"), ("Bo Å", "Bo Å"), ("..", "_"), ("a/b", "a_b")],
)
def test_a_name_leads_to_no_other_folder(student, file):
    assert grade.file_name(student) == file


def test_results_are_written_whole_or_not_at_all(grader, tmp_path, monkeypatch):
    grade.write([graded()], grader, tmp_path)
    before = (tmp_path / "grades.csv").read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(grade.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        grade.write([graded("bo")], grader, tmp_path)
    assert (tmp_path / "grades.csv").read_text() == before


def test_grades_that_are_there_are_not_overwritten(folder, written, tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "grader_of", lambda name: written(name) / "solution" / "grader.zip")
    out = tmp_path / "out"
    out.mkdir()
    (out / "grades.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"has grades\.csv already; name another folder"):
        grade.grade_folder("whitening", folder, out)
    assert (out / "grades.csv").read_text() == "mine"


def test_an_empty_folder_is_no_class(written, tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "grader_of", lambda name: written(name) / "solution" / "grader.zip")
    with pytest.raises(ValueError, match="wanted notebooks, zip files or folders of students"):
        grade.grade_folder("whitening", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["nowhere", "class.zip"])
def test_what_is_no_folder_is_refused_before_anything_is_written(
    name, written, tmp_path, monkeypatch
):
    monkeypatch.setattr(grade, "grader_of", lambda name: written(name) / "solution" / "grader.zip")
    (tmp_path / "class.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="wanted a folder of submissions; unpack an archive first"):
        grade.grade_folder("whitening", tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_forgotten_folder_is_asked_for(capsys):
    """`make grade NAME=whitening` hands an empty word on, which would be the present folder."""
    with pytest.raises(SystemExit):
        grade.main(["whitening", ""])
    assert "make grade NAME=... FROM=..." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["anna", "anna.ipynb", "anna.zip"])
def test_a_list_of_names_may_have_the_endings(name):
    assert grade.without_ending(name) == "anna"


def test_what_is_not_made_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="run `make assignments` first"):
        grade.grader("whitening")
