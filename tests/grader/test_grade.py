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
MESSAGES = {"q1": ["sum: it is the product"]}
WRITTEN = {"q2": "because", "q3": ""}
GRADE = grade.Grade("anna", "graded", {"q1": 1.0}, MESSAGES, [], WRITTEN, 5.2)


@pytest.fixture
def grader(tmp_path):
    return grade.Grader("adding", tmp_path / "grader.zip", QUESTIONS, POINTS, {"torch"})


def notebook(*cells):
    return new_notebook(cells=list(cells), metadata={"otter": {"assignment_name": "adding"}})


def content(notebook):
    return nbformat.writes(notebook).encode()


# --- What was handed in ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Return a folder as Canvas, Moodle and people make them."""
    folder = tmp_path / "submissions"
    (folder / "Bo Å_34_file" / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "empty_56_file").mkdir()
    (folder / "anna_12_adding.ipynb").write_bytes(content(notebook()))
    (folder / "Bo Å_34_file" / "adding-2.ipynb").write_bytes(content(notebook()))
    (folder / "Bo Å_34_file" / ".ipynb_checkpoints" / "adding.ipynb").write_text("old")
    with zipfile.ZipFile(folder / "cleo.zip", "w") as archive:
        archive.writestr("deep/adding.ipynb", content(notebook()))
        archive.writestr("__MACOSX/deep/._adding.ipynb", "rubbish")
    (folder / ".DS_Store").write_text("rubbish")
    (folder / "notes.txt").write_text("not a submission")
    return folder


def test_each_form_of_a_submission_is_found(folder):
    (folder / "cleo").mkdir()
    found = list(grade.submissions(folder, roster=["anna_12_adding", "z"]))
    there = content(notebook())
    assert [(each.student, each.content, each.trouble) for each in found] == [
        ("Bo Å_34_file", there, ""),
        ("anna_12_adding", there, ""),
        ("cleo", None, ""),
        ("cleo+", there, ""),  # the same name again
        ("empty_56_file", None, ""),
        ("z", None, ""),
    ]


def zipped(*names, size=10):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, bytes(size))

    return write


def two(path):
    path.mkdir()
    (path / "a.ipynb").touch()
    (path / "b.zip").touch()


@pytest.mark.parametrize(
    ("name", "write", "trouble"),
    [
        ("a.zip", lambda path: path.write_bytes(b"rubbish"), "not a zip file"),
        ("b.zip", zipped("a.ipynb", "b.ipynb"), "wanted one notebook in the zip file, got 2"),
        ("c.zip", zipped("a.txt"), "wanted one notebook in the zip file, got 0"),
        ("d.zip", zipped("a.ipynb", size=grade.LARGEST + 1), "more than 20 MiB"),
        ("e.ipynb", lambda path: path.write_bytes(bytes(grade.LARGEST + 1)), "more than 20 MiB"),
        ("f", two, "2 notebooks in one folder"),
    ],
)
def test_what_cannot_be_read_is_said(folder, name, write, trouble):
    write(folder / name)
    (found,) = [each for each in grade.submissions(folder) if each.student == name[0]]
    assert found.content is None
    assert trouble in found.trouble


RUBBISH = [b"", b"\xff\xfe", b"{}", b"[]", b'{"cells": 3}', b"null"]
OTHER = new_notebook(metadata={"otter": {"assignment_name": "whitening"}})


@pytest.mark.parametrize("given", [*RUBBISH, content(OTHER)])
def test_rubbish_and_another_assignment_are_not_run(given, grader):
    found = grade.graded(grade.Submission("anna", given), grader)
    assert found.status == ("unreadable" if given in RUBBISH else "other assignment")
    assert ("whitening" in found.said) == (given not in RUBBISH)


def test_what_colab_and_others_leave_in_a_notebook_does_not_matter():
    left = notebook(new_code_cell("1", execution_count=3, outputs=[]))
    left.metadata = {"kernelspec": {"name": "xeus", "display_name": "?"}, "colab": {}}
    ready = grade.prepared(left, "adding")
    assert ready.metadata["kernelspec"]["name"] == "python3"
    assert ready.metadata["otter"] == {"assignment_name": "adding"}
    assert ready.cells[0].execution_count is None


# --- What a person should see ------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        ("import os", ["imports os"]),
        ("from os import path", ["imports os.path"]),
        ("from lop_utils import law", ["imports lop_utils.law"]),
        ("open('tests/q1.py')", ["uses open"]),
        ("!ls", ["runs a magic or a shell command"]),
        ("  %run other.py", ["runs a magic or a shell command"]),
        ("# @title Setup: run this cell first\nimport os", []),
        ("import torch\nx = torch.eye(3)", []),
        ("this is no Python", []),
    ],
)
def test_what_no_answer_needs_is_pointed_out(code, flags):
    handed_in = notebook(new_code_cell(code), new_markdown_cell("import os"))
    assert grade.flags(handed_in, {"torch"}) == flags


def test_written_answers_are_found_below_their_questions():
    """With what code printed, and whatever a student adds."""
    cell = new_code_cell("table")
    cell.outputs = [
        new_output("stream", text="0.1\n0.2\n"),
        new_output("execute_result", data={"text/plain": "tensor(1.)"}),
        new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"}),
        new_output("error", ename="E", evalue="failed", traceback=[]),
    ]
    begin, end = "<!-- BEGIN QUESTION -->\n\n**Question.**", "<!-- END QUESTION -->"
    texts = [begin, "because", cell, end, "no answer", begin, "so", begin, "one more"]
    cells = [new_markdown_cell(each) if isinstance(each, str) else each for each in texts]
    shown = "-> 0.1\n-> 0.2\n\n-> tensor(1.)\n\n-> (a figure: see the notebook)\n\n-> failed"
    found = grade.written_answers(notebook(*cells), QUESTIONS)
    assert found == {"q2": f"because\n\ntable\n\n{shown}", "q3": "so"}
    assert grade.written_answers(notebook(), QUESTIONS) == {"q2": "", "q3": ""}


# --- Results -----------------------------------------------------------------------------


def result(tmp_path, tests):
    path = tmp_path / "results.json"
    path.write_text(tests if isinstance(tests, str) else json.dumps({"tests": tests}))
    return grade.result(path, POINTS)


FAILED = """
    q1 - {case} result:
        ❌ Test case failed
        Error at line {case} in test q1:
              answers.compare("sum", got, wanted)
        {error}
"""
ERRORS = [
    "AssertionError: sum: it is the product",
    "TypeError: add() takes 1 argument",
    "AssertionError: sum: it is the product",
]


def test_reasons_are_taken_out_of_otters_report(tmp_path):
    summary = {"name": "Public Tests", "output": "not a question"}
    failed = [FAILED.format(case=i, error=error) for i, error in enumerate(ERRORS)]
    output = "\n".join(["q1 results:", *failed])
    test = {"name": "q1", "score": 1, "max_score": 2, "output": output}
    points, messages = result(tmp_path, [summary, test])
    assert points == {"q1": 1.0}
    assert messages == {"q1": ["sum: it is the product", "TypeError: add() takes 1 argument"]}


MISFITS = [("q1", 2, 1), ("q1", 3, 2), ("q1", -1, 2), ("q1", float("nan"), 2), ("q2", 1, 2)]


@pytest.mark.parametrize("misfit", [*MISFITS, [], "no json"])
def test_a_result_that_does_not_fit_the_tests_is_refused(misfit, tmp_path):
    keys = ("name", "score", "max_score")
    tests = [dict(zip(keys, misfit, strict=True), output="")] if misfit in MISFITS else misfit
    with pytest.raises(ValueError, match=r"wanted|Expecting"):
        result(tmp_path, tests)


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/etc/hostname")])
def test_a_pipe_or_a_link_in_the_place_of_the_result_is_refused(put, tmp_path):
    put(tmp_path / "results.json")
    with pytest.raises(ValueError, match="wanted a small file"):
        grade.result(tmp_path / "results.json", POINTS)


def lines(grades, grader):
    return list(csv.DictReader(io.StringIO(grade.table(grades, grader))))


def test_the_table_leaves_what_is_graded_by_hand_empty(grader):
    assert grade.table([GRADE], grader).splitlines() == [
        "student,status,points,of,q1,q2,q3,look,seconds,why",
        "anna,graded,1.0,2.0,1.0,,,,5,q1: sum: it is the product",
    ]


@pytest.mark.parametrize("student", ["=1+1", "+a", "-a", "@a"])
def test_no_name_is_a_formula(student, grader):
    (line,) = lines([GRADE._replace(student=student)], grader)
    assert line["student"] == f"'{student}"


def test_every_status_has_its_sentence_and_only_who_was_graded_has_points(grader):
    for status, sentence in grade.SENTENCES.items():
        found = GRADE._replace(status=status)
        assert lines([found], grader)[0]["why"].startswith(sentence)
        text = grade.feedback(found, grader)
        assert (sentence or "Graded.") in text
        assert ("## q1: Add\n\n1 of 2.\n\n- sum: it is the product" in text) == (not sentence)
        assert ("## q2: Say why\n\nGraded by hand: of 3." in text) == (not sentence)


def test_answers_that_are_the_same_word_for_word_are_pointed_out(grader):
    same, other = "because " * 20, "since " * 20
    wrote = {"anna": same, "bo": f"\n{same} ", "cleo": other, "d": "yes", "e": "yes"}
    grades = [GRADE._replace(student=name, written={"q2": text}) for name, text in wrote.items()]
    assert [line["look"] for line in lines(grades, grader)] == [
        "q2 as bo",
        "q2 as anna",
        "",
        "",
        "",
    ]


def test_written_answers_stand_below_their_rubric_and_cannot_leave_their_place(grader):
    answer = "# not a heading\n~~~\n<script>"
    grades = [GRADE._replace(student="bo"), GRADE._replace(written={"q2": answer})]
    text = grade.collected(grades, grader)
    assert "## q2: Say why (3 points)\n\n**Rubric.** one point for each\n\n### anna" in text
    assert f"~~~~text\n{answer}\n~~~~" in text
    assert "### bo\n\n~~~text\nbecause\n~~~" in text
    assert "### bo\n\n~~~text\n(nothing)\n~~~" in text


NAMES = {"../../etc/passwd": "_.._etc_passwd", "Bo Å": "Bo Å", "..": "_", "a/b": "a_b"}


def test_a_name_leads_to_no_other_folder_and_may_have_an_ending():
    assert {name: grade.file_name(name) for name in NAMES} == NAMES
    given = ("anna", "anna.ipynb", "anna.ZIP ")
    assert {grade.without_ending(name) for name in given} == {"anna"}


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    grade.replace(tmp_path / "grades.csv", "before\ud800")  # which no file can hold
    monkeypatch.setattr(grade.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        grade.replace(tmp_path / "grades.csv", "after")
    assert (tmp_path / "grades.csv").read_text() == "before?"


@pytest.mark.parametrize(
    ("submissions", "message"),
    [
        ("submissions", r"has grades\.csv already; name another folder"),
        ("out", "wanted notebooks, zip files or folders of students"),
        ("nowhere", "wanted a folder of submissions; unpack an archive first"),
        ("submissions/cleo.zip", "wanted a folder of submissions; unpack an archive first"),
    ],
)
def test_what_is_no_class_is_refused_and_nothing_overwritten(
    submissions, message, folder, grader, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "grades.csv").write_text("mine")
    with pytest.raises(ValueError, match=message):
        grade.grade_folder(grader, tmp_path / submissions, out)
    assert [path.read_text() for path in out.iterdir()] == ["mine"]


def test_a_forgotten_folder_is_asked_for(capsys):
    """`make grade NAME=whitening` hands an empty word on, which would be the present folder."""
    with pytest.raises(SystemExit):
        grade.main(["whitening", ""])
    assert "make grade NAME=... FROM=..." in capsys.readouterr().err


def test_what_is_not_made_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="run `make assignments` first"):
        grade.grader("whitening")
