"""Write the assignments: for students, for instructors, for graders.

usage: assignments.py [--students FOLDER] [NAME ...]

The source of each is one MyST notebook, book/teaching/assignments/NAME.md, with its solutions,
tests and notes for the instructor. Otter-Grader takes it apart; what it leaves lies in
build/assignments/NAME:

student/NAME.ipynb    what students get: one file, with the public checks in its first cell
solution/NAME.ipynb   with the solutions and the instructor's notes
solution/guide.md     points, minutes, what each question tests, usual mistakes, rubrics
solution/grader.zip   all tests, hidden ones too: for Gradescope, and for tools/grade.py

--students FOLDER writes only NAME.ipynb for each, into FOLDER: what is published, and what Binder
and Codespaces offer.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_course import duration, names, read  # noqa: E402
from lop_site import address_said  # noqa: E402

FOLDER = "build/assignments"
OTTER = "otter-grader>=7,<8"
# What students' notebooks need beyond what the package brings, and what graders do not need.
NOT_GRADED = ("jupyterlab", "jupyterlab-myst")

SETUP = """\
# @title Setup: run this cell first
try:
    import lop_utils  # the book's package
    import otter  # runs the checks
except ModuleNotFoundError:
    %pip install -q "{source}" "{otter}"
    import otter

from pathlib import Path

import torch

torch.set_num_threads(1)  # the matrices are small: threads would only wait for one another

CHECKS = {checks}  # what grader.check asks

folder = Path("checks", "{name}")  # another assignment may lie beside this one
folder.mkdir(parents=True, exist_ok=True)
for question, check in CHECKS.items():
    (folder / f"{{question}}.py").write_text(check, encoding="utf-8")
grader = otter.Notebook(tests_dir=str(folder))\
"""
GUIDE = """\
{points} points, {by_hand} of them for written answers; about {time}. After {after}.

Run the first cell; it brings what is missing. Replace the dots `...` by your answers, and run the \
cell `grader.check(...)` below each question: a failed check says what is likely wrong. Further \
checks run after you have handed in. **Hand in this one file**: in Colab *File → Download → \
Download .ipynb*, elsewhere *File → Download*.\
"""
END = "<!-- END QUESTION -->"


def linked(text, site):
    """Let links to chapters, written book:PART/NAME, lead to the published pages."""
    return re.sub(r"\]\(book:([\w/-]+)(#[\w-]+)?\)", rf"]({site}book/\1.html\2)", text)


def settings(root=ROOT):
    """Return _config.yml."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def package(root=ROOT):
    """Return what pip installs as the package: what LOP_SOURCE names, or the book's branch."""
    repository = settings(root)["repository"]
    return os.environ.get("LOP_SOURCE") or f"git+{repository['url']}@{repository['branch']}"


def site(root=ROOT):
    """Return where the book is published."""
    return address_said(settings(root))


def environment(root=ROOT):
    """Return the book's conda environment for a grader: no JupyterLab, Otter and the package."""
    said = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    conda = [each for each in said["dependencies"] if isinstance(each, str)]
    needed = [each for each in conda if re.split("[>=<]", each)[0] not in NOT_GRADED]
    by_pip = {"pip": [f"lop-utils @ {package(root)}"]}  # Otter adds itself
    return {"channels": said["channels"], "dependencies": [*needed, by_pip]}


def master(assignment, root=ROOT):
    """Return the notebook that Otter takes apart: with its settings in front, links resolved."""
    notebook = nbformat.from_dict(assignment.notebook)
    said = {
        "name": assignment.name,
        "init_cell": False,
        "export_cell": False,
        "run_tests": False,  # the grader does, before it grades anyone
        "tests": {"files": True, "ok_format": False},
        "environment": "environment.yml",
        "python_version": "3.11",
        "generate": {"show_stdout": False, "show_hidden": False, "pdf": False},
    }
    head = new_raw_cell("# ASSIGNMENT CONFIG\n" + yaml.safe_dump(said, sort_keys=False))
    cells = [
        nbformat.from_dict({**cell, "source": linked(cell.source, site(root))})
        for cell in notebook.cells
    ]
    notebook.cells = [head, *cells]
    notebook.metadata.pop("assignment", None)
    return notebook


def take_apart(assignment, folder, root=ROOT):
    """Let Otter write dist/student and dist/autograder below a folder."""
    from otter.assign import main as assign  # imports pandas: not for --help

    path = folder / f"{assignment.name}.ipynb"
    nbformat.write(master(assignment, root), path)
    (folder / "environment.yml").write_text(yaml.safe_dump(environment(root), sort_keys=False))
    with redirect_stdout(StringIO()):
        assign(master=str(path), result=str(folder / "dist"), no_pdfs=True)
    return folder / "dist"


def introduced(assignment, root=ROOT):
    """Return the cell that tells students how it works, in front of the assignment's own text."""
    chapters = []
    for name in assignment.after:
        text = (root / "book" / f"{name}.md").read_text(encoding="utf-8")
        chapters.append(f"[{re.search(r'^# (.+)$', text, re.M)[1]}](book:{name})")
    text = GUIDE.format(
        points=assignment.points,
        by_hand=assignment.by_hand,
        time=duration(assignment.minutes),
        after=" and ".join(chapters),
    )
    return new_markdown_cell(linked(text, site(root)))


def finished(notebook, assignment, checks, root=ROOT):
    """Add the introduction, the points, and the setup with the public checks after the title."""
    literal = "".join(f'    "{name}": {quoted(text)},\n' for name, text in checks.items())
    setup = SETUP.format(
        source=package(root), otter=OTTER, name=assignment.name, checks=f"{{\n{literal}}}"
    )
    title, *rest = notebook.cells
    first, _, text = title.source.partition("\n\n")
    notebook.cells = [
        new_markdown_cell(first),
        introduced(assignment, root),
        new_code_cell(setup, metadata={"jupyter": {"source_hidden": True}, "cellView": "form"}),
        *([new_markdown_cell(text)] if text else []),
        *rest,
    ]
    worth = {question.name: question.points for question in assignment.questions}

    def with_points(found):
        return f"**Question {found[1]}** ({worth['q' + found[1]]} points)**.**"

    for i, cell in enumerate(notebook.cells):
        cell.id = f"{assignment.name}-{i}"
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"^\*\*Question (\d+)\.\*\*", with_points, cell.source, flags=re.M)
    return notebook


def quoted(text):
    """Return a text as Python writes it over several lines."""
    if "'''" in text or text.endswith("\\"):
        raise ValueError(f"a test cannot be quoted: {text[:80]!r}")
    return f"r'''{text}'''"


def without_notes(notebook):
    """Leave out the instructor's notes."""
    kept = []
    for cell in notebook.cells:
        if "instructor" not in cell.metadata.get("tags", []):
            kept.append(cell)
        elif cell.source.startswith(END):  # Otter closes a written question at the next text
            kept.append(new_markdown_cell(END, metadata={"deletable": False, "editable": False}))
    notebook.cells = kept
    return notebook


def made(assignment, root=ROOT):
    """Return the notebook for students, the one with solutions, and the graders' archive."""
    with tempfile.TemporaryDirectory() as folder:
        dist = take_apart(assignment, Path(folder).resolve(), root)
        tests = sorted((dist / "student" / "tests").glob("*.py"))
        checks = {path.stem: path.read_text(encoding="utf-8") for path in tests}
        student, solved = (
            nbformat.read(dist / part / f"{assignment.name}.ipynb", as_version=4)
            for part in ("student", "autograder")
        )
        (archive,) = (dist / "autograder").glob("*.zip")
        return (
            finished(without_notes(student), assignment, checks, root),
            finished(solved, assignment, checks, root),
            archive.read_bytes(),
        )


def guide(assignment):
    """Return the instructor's guide: a table, then a note for each question."""
    rows = [
        f"| {q.name} | {q.title} | {q.points} | {q.minutes} | "
        f"{'by hand' if q.manual else 'by tests'} |"
        for q in assignment.questions
    ]
    lines = [
        f"# {assignment.title}: the instructor's guide",
        assignment.summary,
        f"{assignment.points} points, {assignment.by_hand} of them by hand; about "
        f"{duration(assignment.minutes)}. After: {', '.join(assignment.after)}.",
        "\n".join(
            ["| question | about | points | minutes | graded |", "|---|---|---|---|---|", *rows]
        ),
    ]
    for q in assignment.questions:
        lines.append(f"## {q.name}: {q.title}")
        lines += [f"**{part}.** {text}" for part, text in q.note.items()]
    return "\n\n".join(lines) + "\n"


def make(name, root=ROOT, out=None):
    """Write all that there is of one assignment; return its folder."""
    assignment = read(name, root)
    student, solved, archive = made(assignment, root)
    out = out or root / FOLDER / name
    shutil.rmtree(out, ignore_errors=True)
    for part, notebook in (("student", student), ("solution", solved)):
        (out / part).mkdir(parents=True)
        nbformat.write(notebook, out / part / f"{name}.ipynb")
    (out / "solution" / "grader.zip").write_bytes(archive)
    (out / "solution" / "guide.md").write_text(guide(assignment), encoding="utf-8")
    return out


def write_students(name, folder, root=ROOT):
    """Write what students get of one assignment into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(made(read(name, root), root)[0], folder / f"{name}.ipynb")


def main(arguments):
    """Write what is asked for."""
    parser = argparse.ArgumentParser(
        usage=__doc__.split("\n\n")[1].removeprefix("usage: "), add_help=False
    )
    parser.add_argument("--students", type=Path)
    parser.add_argument("names", nargs="*")
    said = parser.parse_args(arguments)
    if unknown := set(said.names) - set(names()):
        parser.error(f"no assignment {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    for name in said.names or names():
        if said.students:
            write_students(name, said.students)
        else:
            print(make(name).relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
