"""What an instructor hands to the grader, and what comes back: names, files, the table."""

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import grade
import nbformat
import psutil
import pytest
from adding import ADD, HONEST, Q1, Q2, SETUP, TOTAL, notebook
from fuzz import write_class
from grading import handed_in, judge, report, walls
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

LIMITS = walls.LIMITS._replace(seconds=5)

# --- What was handed in ------------------------------------------------------------------


def zipped(path, *files, **more):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files:
            archive.writestr(name, notebook(*HONEST), **more)


@pytest.fixture
def folder(tmp_path):
    """Return a folder as Canvas, Moodle and people make them."""
    folder = tmp_path / "submissions"
    (folder / "Bo Å_34_file" / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "empty_56_file").mkdir()
    (folder / "anna_12_adding.IPYNB").write_bytes(notebook(*HONEST))
    (folder / "Bo Å_34_file" / "adding-2.ipynb").write_bytes(notebook(*HONEST))
    (folder / "Bo Å_34_file" / ".ipynb_checkpoints" / "adding.ipynb").write_text("old")
    (folder / "cleo").mkdir()
    zipped(folder / "cleo.zip", "deep/adding.ipynb", "__MACOSX/deep/._adding.ipynb")
    (folder / ".DS_Store").write_text("rubbish")
    return folder


def test_each_form_of_a_submission_is_found(folder):
    found = list(handed_in.submissions(folder, roster=["anna_12_adding", "z"]))
    there = notebook(*HONEST)
    assert [(each.student, each.content and each.content[:2], each.zipped) for each in found] == [
        ("Bo Å_34_file", there[:2], False),
        ("anna_12_adding", there[:2], False),
        ("cleo", None, False),
        ("cleo+", b"PK", True),  # the same name again
        ("empty_56_file", None, False),
        ("z", None, False),
    ]
    assert not any(each.trouble for each in found)


def deep(path, levels):
    path.mkdir()
    number = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("a", dir_fd=number)
        number, old = os.open("a", os.O_RDONLY, dir_fd=number), number
        os.close(old)
    os.close(number)


def with_two(path):
    path.mkdir()
    (path / "a.ipynb").touch()
    (path / "b.ZIP").touch()


def with_a_link(path):
    path.mkdir()
    (path / "a.ipynb").symlink_to("/etc/hostname")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("name", "write", "trouble"),
    [
        ("z.txt", lambda path: path.touch(), "wanted a notebook (.ipynb) or a zip file"),
        ("b", with_two, "2 notebooks in one folder"),
        ("x.ipynb", lambda path: path.write_bytes(bytes(20 * 2**20 + 1)), "more than 20 MiB"),
        ("d.ipynb", os.mkfifo, "wanted a file, got a pipe or a device"),
        ("y.ipynb", lambda path: path.symlink_to("anna_12_adding.IPYNB"), "symbolic links"),
        ("f", lambda path: path.symlink_to("Bo Å_34_file"), "wanted a notebook"),
        ("g", with_a_link, "symbolic links"),
        ("h", lambda path: deep(path, 1500), "more than 20 folders within folders"),
        ("i.ipynb", a_socket, "No such device"),
    ],
)
def test_what_is_no_file_is_not_read_and_has_its_row(folder, name, write, trouble):
    write(folder / name)
    (found,) = [each for each in handed_in.submissions(folder) if each.student.startswith(name[0])]
    assert found.content is None
    assert trouble in found.trouble
    if name == "h":
        subprocess.run(["rm", "-rf", folder / name], check=True)


NAMES = {
    b"Andr\xe9.ipynb": "Andr?",
    b"two\nlines.ipynb": "two lines",
    b"\x1b[31mred.ipynb": "?[31mred",
    b"long" * 60 + b".ipynb": ("long" * 60)[:99] + "…",
    b" .ipynb": "?",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_cleaned_once(folder, name):
    (folder / os.fsdecode(name)).write_bytes(notebook())
    assert NAMES[name] in [each.student for each in handed_in.submissions(folder)]


# --- What an instructor gets -------------------------------------------------------------

VERDICTS = {
    "q1": judge.Verdict(1.0, ["add: not the sum"], ["add: not the sum of tensors 3"]),
    "q2": judge.Verdict(0.0, ["add raised ValueError in a hidden test"], ["add raised: x"]),
}
GRADED = judge.Graded("graded", VERDICTS, {"q3": "because"}, [], [[4, "KeyError", "'x'"]])


def row(student="anna", look=(), **changed):
    return report.Row(student, GRADED._replace(**changed), list(look), 5.2)


def lines(rows, known):
    return list(csv.DictReader(io.StringIO(report.table(rows, known))))


def test_the_table_leaves_what_is_graded_by_hand_empty(known):
    assert report.table([row()], known).splitlines() == [
        "student,status,points,of,q1,q2,q3,look,seconds,why",
        "anna,graded,1.0,3.0,1.0,0.0,,,5,"
        "q1: add: not the sum of tensors 3; q2: add raised: x; cell 4: KeyError: 'x'",
    ]


def test_every_status_has_its_sentence(known):
    for status, sentence in report.SENTENCES.items():
        found = row(status=status)
        assert lines([found], known)[0]["why"].startswith(sentence)
        text = report.feedback(found, known)
        assert (sentence or "Graded.") in text
        reached = status in report.REACHED
        assert ("## q1: Add\n\n1 of 2.\n\n- add: not the sum\n" in text) == reached
        assert ("## q3: Say why\n\nGraded by hand: of 3." in text) == reached
        assert "add raised: x" not in text
        assert "Cells that failed: cell 4: KeyError." in text


EVIL = "=1+1\n# Graded: 16 of 16 \x1b[31m![x](http://x) <b>\ud83d"


def test_no_text_of_a_student_is_a_formula_a_heading_or_an_escape(known):
    evil = judge.Verdict(0.0, [EVIL], [EVIL])
    found = row(
        student=handed_in.clean(EVIL),
        verdicts={"q1": evil, "q2": evil},
        trouble=EVIL,
        failed=[[3, EVIL, EVIL]],
        written={"q3": EVIL + "\n~~~\n# not a heading"},
        look=[EVIL],
    )
    (line,) = lines([found], known)
    assert all(not value.startswith(("=", "+", "-", "@")) for value in line.values() if value)
    texts = [report.table([found], known), report.feedback(found, known)]
    texts.append(report.collected([found], known))
    for text in texts:
        text.encode("utf-8")
        assert "\x1b" not in text
    assert "\n# Graded" not in texts[1] and "<b>" not in texts[1].replace("\\<", "")
    assert "~~~~text\n=1+1\n# Graded" in texts[2] and texts[2].endswith("# not a heading\n~~~~\n")
    assert "### =1+1 \\# Graded" in texts[2]


def test_answers_that_are_the_same_word_for_word_are_pointed_out(known):
    same, other = "because " * 20, "since " * 20
    wrote = {"anna": same, "bo": f"\n{same} ", "cleo": other, "d": "yes", "e": "yes"}
    rows = [row(student=name, written={"q3": text}) for name, text in wrote.items()]
    look = [line["look"] for line in lines(rows, known)]
    assert look == ["q3 as bo", "q3 as anna", "", "", ""]


def test_written_answers_stand_below_their_rubric(known):
    text = report.collected([row("bo", written={}), row()], known)
    assert "(3 points)\n\n**Rubric.** One point for each reason.\n\n### anna" in text
    assert "### anna\n\n~~~text\nbecause\n~~~" in text
    assert "### bo\n\n~~~text\n(nothing)\n~~~" in text


def test_each_student_has_a_file_that_leads_nowhere_else():
    students = ["../../etc/passwd", "Bo Å", "..", "a/b", "a_b", "A_B", "x" * 200]
    assert list(report.file_names(students).values()) == [
        "______etc_passwd",
        "Bo Å",
        "__",
        "a_b",
        "a_b (2)",
        "A_B (3)",
        "x" * 60,
    ]


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    report.replace(tmp_path / "grades.csv", "before")
    monkeypatch.setattr(report.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.replace(tmp_path / "grades.csv", "after")
    assert (tmp_path / "grades.csv").read_text() == "before"


# --- A class -----------------------------------------------------------------------------


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
    submissions, message, folder, known, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "grades.csv").write_text("mine")
    if submissions == "out":
        submissions = "none"
        (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=message):
        grade.grade_folder(known, tmp_path / submissions, out)
    assert [path.read_text() for path in out.iterdir()] == ["mine"]


def test_a_forgotten_folder_is_asked_for(capsys):
    """`make grade NAME=whitening` hands an empty word on, which would be the present folder."""
    with pytest.raises(SystemExit):
        grade.main(["whitening", ""])
    assert "make grade NAME=... FROM=..." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        grade.main(["whitening", ".", "--jobs", "0"])
    assert "above zero" in capsys.readouterr().err


def lying(path):
    """Write a zip file that says of a notebook without end that it is small."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.ipynb", bytes(100 * 2**20))
    content = path.read_bytes()
    path.write_bytes(content.replace((100 * 2**20).to_bytes(4, "little"), b"\x10\0\0\0"))


def broken(path):
    """Write a zip file whose stream breaks off in the middle."""
    zipped(path, "a.ipynb")
    content = bytearray(path.read_bytes())
    content[50:70] = b"\xff" * 20
    path.write_bytes(content)


def packed_otherwise(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.ipynb", notebook(*HONEST))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)


OTHER = new_notebook(metadata={"otter": {"assignment_name": "whitening"}})
HANDED_IN = {
    "anna.ipynb": (notebook(*HONEST), "graded", "3.0"),
    "bo.ipynb": (notebook(SETUP, "def add(a, b):\n    return 3", Q1), "graded", "1.0"),
    "both.zip": (lambda path: zipped(path, "a.ipynb", "b.ipynb"), "unreadable", "0.0"),
    "broken.zip": (broken, "unreadable", "0.0"),
    "CARL.ZIP": (lambda path: zipped(path, "deep/ADDING.IPYNB"), "graded", "3.0"),
    "ends.ipynb": (notebook(SETUP, ADD, Q1, "import os\nos._exit(0)"), "ended", "2.0"),
    "lies.zip": (lying, "unreadable", "0.0"),
    "link.ipynb": (lambda path: path.symlink_to("anna.ipynb"), "unreadable", "0.0"),
    "lzma.zip": (packed_otherwise, "unreadable", "0.0"),
    "nested.ipynb": (b"[" * 100_000, "unreadable", "0.0"),
    "no.txt": (b"my answer is 42", "unreadable", "0.0"),
    "other.ipynb": (nbformat.writes(OTHER).encode(), "other assignment", "0.0"),
    "pipe.ipynb": (os.mkfifo, "unreadable", "0.0"),
    "rubbish.ipynb": (bytes(range(256)) * 100, "unreadable", "0.0"),
    "surrogate.ipynb": (
        notebook(SETUP, ADD + "  # X", Q1, TOTAL, Q2).replace(b"X", b"\\ud83d"), "graded", "3.0",
    ),
    "text.ipynb": (b'{"cells": 3}', "unreadable", "0.0"),
}  # fmt: skip


def test_every_student_has_a_row(known, tmp_path):
    folder, out, said = tmp_path / "submissions", tmp_path / "out", []
    folder.mkdir()
    for name, (content, *_) in HANDED_IN.items():
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content)
    roster = [handed_in.student_of(name) for name in HANDED_IN if name != "bo.ipynb"] + ["late"]
    rows = grade.grade_folder(
        known, folder, out, roster=roster, jobs=2, limits=LIMITS, show=said.append
    )
    assert said[1].startswith("the reference gets 3 points")
    with (out / "grades.csv").open(encoding="utf-8-sig") as table:
        found = {line["student"]: line for line in csv.DictReader(table)}
    wanted = {handed_in.student_of(name): (s, p) for name, (_, s, p) in HANDED_IN.items()}
    wanted["late"] = ("missing", "0.0")
    assert {name: (line["status"], line["points"]) for name, line in found.items()} == wanted
    assert found["bo"]["look"] == "not on the list"
    assert len(list((out / "feedback").iterdir())) == len(wanted)
    assert len(rows) == len(wanted)


def test_in_a_class_of_whatever_who_is_honest_has_the_exact_grade(known, tmp_path):
    """Sixty of what ``make bench`` hands in two thousand of."""
    folder, out = tmp_path / "submissions", tmp_path / "out"
    folder.mkdir()
    honest = {handed_in.student_of(name) for name in write_class(folder, range(60))}
    limits = LIMITS._replace(seconds=2, memory=2.0)
    rows = grade.grade_folder(known, folder, out, jobs=2, limits=limits, show=lambda text: None)
    assert len(rows) == 60
    assert len(honest) > 10
    for row in rows:
        if row.student in honest:
            assert report.points(row) == {"q1": 2, "q2": 1}, row
            assert row.graded.status == "graded"


def test_a_test_without_end_costs_that_student_alone(known, tmp_path, monkeypatch):
    """As where an answer makes a test compute for ever: its process is killed, another begins."""
    slot = grade.Slot(known, LIMITS)
    slot.start()
    slot.protection()
    try:
        honest = handed_in.Submission("anna", notebook(*HONEST))
        os.kill(slot.process.pid, signal.SIGSTOP)
        monkeypatch.setattr(slot, "limits", SimpleNamespace(total=-59.0))
        assert slot.grade(honest).graded.status == "time"
        monkeypatch.undo()
        assert report.points(slot.grade(honest)) == {"q1": 2, "q2": 1}
        for host in psutil.Process(slot.process.pid).children():
            host.kill()
        assert report.points(slot.grade(honest)) == {"q1": 2, "q2": 1}
        os.kill(slot.process.pid, signal.SIGKILL)
        assert slot.grade(honest).graded.status == "doubtful"
        assert report.points(slot.grade(honest)) == {"q1": 2, "q2": 1}
    finally:
        slot.stop()


def test_who_interrupts_has_a_table_of_what_was_graded(tmp_path):
    folder, out = tmp_path / "submissions", tmp_path / "out"
    folder.mkdir()
    content = judge.reference(grade.read("project")).content
    for name in "abcdefgh":
        (folder / f"{name}.ipynb").write_bytes(content)
    command = [sys.executable, grade.__file__, "project", folder, "--out", out, "--jobs", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        for line in process.stdout:
            if line.startswith("1 of 8"):
                break
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert "interrupted; what was graded is in the table" in process.stderr.read()
    with (out / "grades.csv").open(encoding="utf-8-sig") as table:
        status = [line["status"] for line in csv.DictReader(table)]
    assert len(status) == 8
    assert 1 <= status.count("graded") < 8
    assert set(status) == {"graded", "not graded"}


LEFT = {
    "a mark in front": lambda text: "\ufeff" + text,
    "no metadata": lambda text: json.dumps({"cells": json.loads(text)["cells"]}),
    "cells alone": lambda text: json.dumps(
        {"cells": [{"cell_type": "code", "source": "".join(c["source"]), "id": "x" * 99}
                   for c in json.loads(text)["cells"]] + [None, 3, {}], "nbformat_minor": 0}
    ),
    "an old format": lambda text: json.dumps(
        {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": [
            {"cell_type": "code", "input": c["source"], "language": "python", "outputs": []}
            for c in json.loads(text)["cells"]]}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_notebook_is_not_held_to_the_format(left, encoding, known, host):
    content = LEFT[left](notebook(*HONEST).decode()).encode(encoding)
    found = judge.grade(content, False, known.assignment, known.tests, host)
    assert [verdict.points for verdict in found.verdicts.values()] == [2, 1], found


def test_nobody_takes_a_name_by_a_space_more(folder):
    (folder / "anna_12_adding .ipynb").write_bytes(b"evil")
    found = {each.student: each.content for each in handed_in.submissions(folder)}
    assert found["anna_12_adding"] != b"evil"
    assert found["anna_12_adding+"] == b"evil"


def test_written_answers_and_what_colab_leaves(known, host):
    cells = [
        new_markdown_cell("<!-- BEGIN QUESTION -->\n**Question 3.**"),
        new_markdown_cell("My answer."),
        new_code_cell(
            "1 + 1",
            execution_count=3,
            outputs=[
                new_output("execute_result", {"text/plain": "2"}),
                new_output("display_data", {"image/png": "AAAA"}),
            ],
        ),
        new_markdown_cell("<!-- END QUESTION -->"),
        new_markdown_cell("Not mine."),
    ]
    left = new_notebook(cells=cells, metadata={"kernelspec": {"name": "x", "display_name": "?"}})
    content = nbformat.writes(left).encode()
    found = judge.grade(content, False, known.assignment, known.tests, host)
    parts = ["My answer.", "1 + 1", "-> 2", "-> (a figure: see the notebook)"]
    assert found.written == {"q3": "\n\n".join(parts)}


def test_what_is_imported_beyond_the_notebook_is_said(known, host):
    cell = "from lop_utils import law\nimport lop_utils.losses as loss"
    submission = handed_in.Submission("anna", notebook(cell, *HONEST))
    found = grade.graded(submission, known, host)
    assert found.look == ["imports lop_utils.law, lop_utils.losses"]
