"""Grade a folder of submissions, each in a process of its own, into one table.

usage: grade.py NAME SUBMISSIONS [--out FOLDER] [--roster FILE] [--jobs N]
                [--seconds S] [--memory GIB]

NAME         an assignment: `make assignments` has written it
SUBMISSIONS  a folder of notebooks or zip files, one a student, or of folders, one a student
--out        where the results go (build/grades/NAME); a folder that has some already is refused
--roster     a text file with one student a line, as the submissions are named: who is missing?
--jobs       submissions graded at once (one a processor)
--seconds    time for one submission (300);  --memory  its memory in GiB (4)

grades.csv     a line a student: status, points, each question; written questions are left empty
feedback/      for each student what was lost and why
written.md     the written answers, question by question, to grade by hand
"""

import argparse
import ast
import csv
import io
import json
import os
import re
import shutil
import stat
import sys
import warnings
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import nbformat
from assignments import FOLDER, ROOT
from lop_course import Question, names, read
from nbformat.warnings import DuplicateCellId, MissingIDFieldWarning
from sandbox import LIMITS, fresh_folder, protection, run

ENDINGS = (".ipynb", ".zip")
RUBBISH = r"^__MACOSX|\.ipynb_checkpoints"  # what systems put into archives beside the notebook
LARGEST = 20 * 2**20  # bytes of a submission
LONGEST = 20_000  # characters of a written answer
SUSPECT = {"open", "exec", "eval", "compile", "__import__", "globals", "otter"}
# What no submission needs to see: sources with solutions, hidden tests, what others got.
PRIVATE = ("book/teaching", "build", ".git")
# Says in one sentence what a status means for the instructor.
SENTENCES = {
    "graded": "",
    "missing": "nothing was handed in",
    "unreadable": "the file cannot be read as one notebook: hand it in again",
    "other assignment": "the notebook belongs to another assignment",
    "time": "stopped: it ran longer than allowed; nothing is graded",
    "memory": "stopped: it took more memory than allowed; nothing is graded",
    "processes": "stopped: it started too many processes; nothing is graded",
    "disk": "stopped: it wrote more than allowed; nothing is graded",
    "no result": "it ended without a result, as a notebook does that ends its own process",
    "doubtful": "the result does not fit the tests: read the notebook",
}


class Submission(NamedTuple):
    """What one student handed in: the bytes of a notebook, or why there are none."""

    student: str
    content: bytes | None
    trouble: str = ""


class Grade(NamedTuple):
    """What became of it."""

    student: str
    status: str
    points: dict[str, float]
    messages: dict[str, list[str]]
    flags: list[str]
    written: dict[str, str]
    seconds: float
    said: str = ""


class Grader(NamedTuple):
    """An assignment as the grader needs it."""

    name: str
    archive: Path
    questions: list[Question]
    points: dict[str, float]
    allowed: set[str]


# --- What was handed in ------------------------------------------------------------------


def submissions(folder, roster=()):
    """Yield one submission for each student, in the order of their names."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir() or path.suffix.lower() in ENDINGS:
            name = path.name if path.is_dir() else path.stem
            student = name.encode("utf-8", "replace").decode()  # a name may be any bytes
            while student in found:  # the same name as a file and as a folder
                student += "+"
            found[student] = path
    for student in sorted(found.keys() | set(roster)):
        yield opened(student, found[student]) if student in found else Submission(student, None)


def opened(student, path):
    """Read what one student handed in, without trusting it."""
    try:
        if path.is_dir() and not path.is_symlink():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in ENDINGS]
            inside = [p for p in inside if ".ipynb_checkpoints" not in p.parts and not p.is_dir()]
            if not inside:
                return Submission(student, None)
            if len(inside) > 1:
                return Submission(student, None, f"{len(inside)} notebooks in one folder")
            path = inside[0]
        if not stat.S_ISREG(path.lstat().st_mode):  # what a pipe or a link leads to is not theirs
            raise ValueError("wanted a file, got a link, a pipe or a device")
        if path.suffix.lower() == ".zip":
            return Submission(student, unpacked(path))
        check_size(path.stat().st_size)
        return Submission(student, path.read_bytes())
    except Exception as error:  # a broken file may make a library raise anything
        return Submission(student, None, str(error) or type(error).__name__)


def check_size(size):
    """Raise where a file is larger than a notebook can be."""
    if size > LARGEST:
        raise ValueError(f"more than {LARGEST // 2**20} MiB")


def unpacked(path):
    """Return the one notebook in a zip file, without writing anything."""
    with zipfile.ZipFile(path) as archive:
        inside = [each for each in archive.infolist() if each.filename.lower().endswith(".ipynb")]
        inside = [each for each in inside if not re.search(RUBBISH, each.filename)]
        if len(inside) != 1:
            raise ValueError(f"wanted one notebook in the zip file, got {len(inside)}")
        check_size(inside[0].file_size)
        return archive.read(inside[0])


def prepared(notebook, name):
    """Return it as it is to be run: by our Python, without outputs, under its assignment's name."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["otter"] = {"assignment_name": name}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def written_answers(notebook, questions):
    """Return what stands below each question graded by hand, and what its code printed at home."""
    manual = [question.name for question in questions if question.manual]
    found, waiting, name = {each: [] for each in manual}, iter(manual), None
    for cell in notebook.cells:
        if "<!-- BEGIN QUESTION -->" in cell.source:
            name = next(waiting, None)
        elif "<!-- END QUESTION -->" in cell.source:
            name = None
        elif name:
            found[name] += [cell.source, *outputs(cell)]
    return {name: "\n\n".join(texts)[:LONGEST] for name, texts in found.items()}


def outputs(cell):
    """Return what a cell of code showed, as text, a figure as a word."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain") or output.get("evalue", "")
        if "image/png" in data or "image/svg+xml" in data:
            yield "-> (a figure: see the notebook)"
        elif isinstance(text, str) and text.strip():
            yield "\n".join(f"-> {line}" for line in text.strip().splitlines())


def flags(notebook, allowed):
    """Return what a person should look at: imports and calls that no answer needs."""
    found = set()
    for cell in notebook.cells:
        if cell.cell_type != "code" or cell.source.startswith("# @title Setup"):
            continue
        code = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M)
        if code != cell.source:
            found.add("runs a magic or a shell command")
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # otter reports what cannot run
        found |= {f"imports {name}" for name in imported(tree) - allowed}
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found |= {f"uses {name}" for name in named & SUSPECT}
    return sorted(found)


def imported(tree):
    """Return the dotted names of what a tree imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# --- Grading -----------------------------------------------------------------------------


def grader(name, archive=None):
    """Return what grades an assignment; raise where `make assignments` has not written it."""
    archive = archive or ROOT / FOLDER / name / "solution" / "grader.zip"
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: not there; run `make assignments` first")
    assignment = read(name)
    code = [cell.source for cell in assignment.notebook.cells if cell.cell_type == "code"]
    allowed = [imported(ast.parse(source)) for source in code if "BEGIN TEST" not in source]
    return Grader(name, archive, assignment.questions, possible(archive), set().union(*allowed))


def tests_of(archive):
    """Return the text of the tests of each question."""
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if re.fullmatch(r"tests/\w+\.py", name)]
        return {Path(name).stem: files.read(name).decode("utf-8") for name in sorted(names)}


def possible(archive):
    """Return the points of each question, as its tests say them."""
    from otter.test_files import ExceptionTestFile  # imports much: not for --help

    texts = tests_of(archive).items()
    return {name: float(ExceptionTestFile.from_string(text).possible) for name, text in texts}


def graded(submission, grader, limits=LIMITS, hidden=()):
    """Grade one submission, whatever it is."""
    student, content, trouble = submission
    found = Grade(student, "missing", dict.fromkeys(grader.points, 0.0), {}, [], {}, 0.0, trouble)
    if content is None:
        return found._replace(status="unreadable" if trouble else "missing")
    try:
        notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
        nbformat.validate(notebook)
        otter = notebook.metadata.get("otter") or {}  # Colab may have dropped it
        belongs = otter.get("assignment_name") or grader.name
        look = flags(notebook, grader.allowed)
        written = written_answers(notebook, grader.questions)
    except Exception as error:  # whatever rubbish makes a library raise: the others go on
        return found._replace(status="unreadable", said=f"no notebook: {type(error).__name__}")
    if belongs != grader.name:
        return found._replace(status="other assignment", said=str(belongs)[:100])
    found = found._replace(flags=look, written=written)
    try:
        with fresh_folder() as folder:
            nbformat.write(prepared(notebook, grader.name), folder / "submission.ipynb")
            shutil.copy(grader.archive, folder / "grader.zip")
            (folder / "out").mkdir()
            command = [sys.executable, "-m", "otter", "run", "--no-logo", "-a", "grader.zip"]
            private = [*(ROOT / part for part in PRIVATE), *hidden]
            outcome = run([*command, "-o", "out", "submission.ipynb"], folder, limits, private)
            found = found._replace(status=outcome.status, seconds=outcome.seconds)
            if outcome.status != "done":
                return found
            results = folder / "out" / "results.json"
            if not os.path.lexists(results):
                return found._replace(status="no result", said=outcome.said)
            points, messages = result(results, grader.points)
    except Exception as error:  # here, too
        return found._replace(status="doubtful", said=f"{type(error).__name__}: {error}")
    return found._replace(status="graded", points=points, messages=messages)


def result(path, possible):
    """Return (points, messages) of each question; raise where they do not fit the tests."""
    found = path.lstat()  # a submission may have put anything there: a link, a pipe without end
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        raise ValueError("results.json: wanted a small file")
    tests = json.loads(path.read_text(encoding="utf-8"))["tests"]
    tests = {test["name"]: test for test in tests if "max_score" in test}
    if {name: float(test["max_score"]) for name, test in tests.items()} != possible:
        raise ValueError(f"wanted the questions {possible}, got {sorted(tests)}")
    points = {name: float(test["score"]) for name, test in tests.items()}
    for name, got in points.items():
        if not 0 <= got <= possible[name]:  # not a number fails as well
            raise ValueError(f"{name}: wanted 0 to {possible[name]} points, got {got}")
    return points, {name: reasons(str(test["output"])) for name, test in tests.items()}


def reasons(output):
    """Return why tests failed, without the line of the test that Otter shows."""
    found = re.findall(r"^\s+Error at line \d+ in test \w+:\n.*\n\s*(\w+): (.+)$", output, re.M)
    said = [text if kind == "AssertionError" else f"{kind}: {text}" for kind, text in found]
    return list(dict.fromkeys(said))  # a cause that fails two tests is said once


# --- What the instructor gets ------------------------------------------------------------


def safe(text):
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if str(text).startswith(("=", "+", "-", "@", "\t", "\r")) else text


def row(grade, grader):
    """Return the line of one student."""
    lost = [f"{name}: {text}" for name, texts in grade.messages.items() for text in texts]
    why = [SENTENCES[grade.status], *lost, "" if grade.status == "graded" else grade.said]
    return {
        "student": safe(grade.student),
        "status": grade.status,
        "points": sum(grade.points.values()),
        "of": sum(grader.points.values()),
        **{q.name: "" if q.manual else grade.points[q.name] for q in grader.questions},
        "look": "; ".join(grade.flags),
        "seconds": f"{grade.seconds:.0f}",
        "why": safe("; ".join(filter(None, why)).strip()[:1000]),
    }


def replace(path, text):
    """Write a file at once or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="replace", newline="")
    os.replace(part, path)


def pointed_out(grades):
    """Return the grades with a flag where two students wrote the same answer, word for word."""
    wrote = defaultdict(list)  # of answers long enough to be somebody's own
    for grade in grades:
        for name, answer in grade.written.items():
            if len(words := " ".join(answer.split())) > 80:
                wrote[name, words].append(grade.student)
    same = defaultdict(list)
    for (name, _), students in wrote.items():
        for student in students if len(students) > 1 else ():
            others = ", ".join(other for other in students if other != student)
            same[student].append(f"{name} as {others}")
    return [grade._replace(flags=grade.flags + same[grade.student]) for grade in grades]


def table(grades, grader):
    """Return grades.csv."""
    grades = pointed_out(sorted(grades, key=lambda grade: grade.student))
    rows = [row(grade, grader) for grade in grades]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def feedback(grade, grader):
    """Return what one student may be told."""
    lines = [f"# {grader.name}", SENTENCES[grade.status] or "Graded."]
    for q in grader.questions if grade.status == "graded" else ():
        lines.append(f"## {q.name}: {q.title}")
        if q.manual:
            lines.append(f"Graded by hand: of {q.points}.")
            continue
        lines.append(f"{grade.points[q.name]:g} of {grader.points[q.name]:g}.")
        if reasons := grade.messages.get(q.name):
            lines.append("\n".join(f"- {text}" for text in reasons))
    return "\n\n".join(lines) + "\n"


def collected(grades, grader):
    """Return written.md: the answers to each question one after the other."""
    lines = [f"# {grader.name}: written answers"]
    for q in grader.questions:
        if not q.manual:
            continue
        lines.append(f"## {q.name}: {q.title} ({q.points} points)")
        lines.append(f"**Rubric.** {q.note['Rubric']}")
        for grade in sorted(grades, key=lambda grade: grade.student):
            answer = grade.written.get(q.name, "").strip() or "(nothing)"
            fence = "~" * (1 + max([2, *map(len, re.findall("~+", answer))]))
            lines.append(f"### {grade.student}\n\n{fence}text\n{answer}\n{fence}")
    return "\n\n".join(lines) + "\n"


def file_name(student):
    """Return a name for a file of one student that leads nowhere else."""
    return re.sub(r"[^\w .@+-]", "_", student).strip(". ") or "_"


def grade_folder(known, folder, out, *, roster=(), jobs=1, limits=LIMITS, show=print):
    """Grade all submissions of a folder with what grades an assignment; return the grades."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: wanted a folder of submissions; unpack an archive first")
    waiting = list(submissions(folder, roster))
    if not any(each.content or each.trouble for each in waiting):
        raise ValueError(f"{folder}: wanted notebooks, zip files or folders of students, got none")
    if (out / "grades.csv").exists():
        raise ValueError(f"{out}: has grades.csv already; name another folder with --out")
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    show(protection())
    solution = known.archive.with_name(f"{known.name}.ipynb")
    hidden = [Path(folder).resolve(), out.resolve()]
    reference = graded(Submission("reference", solution.read_bytes()), known, limits, hidden)
    if reference.points != known.points:
        raise ValueError(
            f"the reference solution does not get full marks here: {reference.status}, "
            f"{reference.points}, {reference.messages or reference.said}"
        )
    show(f"the reference gets {sum(known.points.values()):g} points in {reference.seconds:.0f} s")
    grades = []
    with ThreadPoolExecutor(jobs) as pool:
        at_work = [pool.submit(graded, each, known, limits, hidden) for each in waiting]
        for done in as_completed(at_work):
            grade = done.result()
            if roster and grade.student not in roster:
                grade = grade._replace(flags=[*grade.flags, "not on the list"])
            grades.append(grade)
            show(f"{len(grades)} of {len(at_work)}: {grade.student}: {grade.status}")
            replace(out / "feedback" / f"{file_name(grade.student)}.md", feedback(grade, known))
            # Excel takes a table without the mark in front for one in an encoding of its own.
            replace(out / "grades.csv", "\ufeff" + table(grades, known))
            replace(out / "written.md", collected(grades, known))
    return grades


def without_ending(name):
    """Return a name as a submission is called."""
    return re.sub(r"\.(ipynb|zip)$", "", name.strip(), flags=re.I)


def main(arguments):
    """Read the command line, grade, and say where the results are."""
    _, usage, more = __doc__.replace("usage: ", "").split("\n\n", 2)
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(usage=usage, epilog=more, formatter_class=raw)
    for known in (MissingIDFieldWarning, DuplicateCellId):  # old and hand-made notebooks
        warnings.simplefilter("ignore", known)
    parser.add_argument("name", choices=names(), metavar="NAME")
    parser.add_argument("submissions", metavar="SUBMISSIONS")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--roster", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=LIMITS.seconds)
    parser.add_argument("--memory", type=float, default=LIMITS.memory)
    said = parser.parse_args(arguments)
    if not said.submissions.strip():
        parser.error("wanted a folder of submissions: make grade NAME=... FROM=...")
    roster = said.roster.read_text(encoding="utf-8-sig").splitlines() if said.roster else []
    roster = [without_ending(line) for line in roster if line.strip()]
    out = said.out or ROOT / "build" / "grades" / said.name
    limits = LIMITS._replace(seconds=said.seconds, memory=said.memory)
    known, folder = grader(said.name), Path(said.submissions)
    grades = grade_folder(known, folder, out, roster=roster, jobs=said.jobs, limits=limits)
    count = sum(grade.status == "graded" for grade in grades)
    print(f"{count} of {len(grades)} graded: {out / 'grades.csv'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"grade.py: {error}")
