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
import ast
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

CHECKS = {checks}  # what grader.check asks

Path("checks").mkdir(exist_ok=True)
for question, check in CHECKS.items():
    Path("checks", f"{{question}}.py").write_text(check, encoding="utf-8")
grader = otter.Notebook(tests_dir="checks")\
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


def package(root=ROOT):
    """Return what pip installs as the package: what LOP_SOURCE names, or the book's branch."""
    repository = settings(root)["repository"]
    return os.environ.get("LOP_SOURCE") or f"git+{repository['url']}@{repository['branch']}"


def settings(root=ROOT):
    """Return _config.yml."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def site(root=ROOT):
    """Return where the book is published."""
    return address_said(settings(root))


def environment(root=ROOT):
    """Return the book's conda environment for a grader: no JupyterLab, Otter and the package."""
    said = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    return {
        "channels": said["channels"],
        "dependencies": [
            *(
                each
                for each in said["dependencies"]  # Otter adds itself to what pip brings
                if isinstance(each, str) and re.split("[>=<]", each)[0] not in NOT_GRADED
            ),
            {"pip": [f"lop-utils @ {package(root)}"]},
        ],
    }


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


def heading(path):
    """Return the title of a chapter."""
    return re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)[1]


def introduced(assignment, root=ROOT):
    """Return the cell that tells students how it works, in front of the assignment's own text."""
    chapters = " and ".join(
        f"[{heading(root / 'book' / f'{name}.md')}](book:{name})" for name in assignment.after
    )
    text = GUIDE.format(
        points=assignment.points,
        by_hand=assignment.by_hand,
        time=duration(assignment.minutes),
        after=chapters,
    )
    return new_markdown_cell(linked(text, site(root)))


def finished(notebook, assignment, checks, root=ROOT):
    """Add the introduction and the setup with the public checks after the title."""
    title, *rest = notebook.cells
    literal = "{\n" + "".join(f'    "{name}": {quoted(text)},\n' for name, text in checks.items())
    literal += "}"
    setup = SETUP.format(source=package(root), otter=OTTER, checks=literal)
    folded = {"jupyter": {"source_hidden": True}, "cellView": "form"}
    first, _, text = title.source.partition("\n\n")
    notebook.cells = [
        new_markdown_cell(first),
        introduced(assignment, root),
        new_code_cell(setup, metadata=folded),
        *([new_markdown_cell(text)] if text else []),
        *rest,
    ]
    worth = {question.name: question.points for question in assignment.questions}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(
                r"^\*\*Question (\d+)\.\*\*",
                lambda found: f"**Question {found[1]}** ({worth['q' + found[1]]} points)**.**",
                cell.source,
                flags=re.M,
            )
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{assignment.name}-{i}"
    return notebook


def quoted(text):
    """Return a text as Python writes it over several lines."""
    if "'''" in text or text.endswith("\\"):
        raise ValueError(f"a test cannot be quoted: {text[:80]!r}")
    return f"r'''{text}'''"


def student_notebook(assignment, dist, root=ROOT):
    """Return what students get, without the instructor's notes."""
    notebook = nbformat.read(dist / "student" / f"{assignment.name}.ipynb", as_version=4)
    kept = []
    for cell in notebook.cells:
        if "instructor" not in cell.metadata.get("tags", []):
            kept.append(cell)
        elif cell.source.startswith(END):  # Otter closes a written question at the next text
            kept.append(new_markdown_cell(END, metadata={"deletable": False, "editable": False}))
    notebook.cells = kept
    return finished(notebook, assignment, public_checks(dist), root)


def public_checks(dist):
    """Return the files of the public tests."""
    folder = dist / "student" / "tests"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}


def public_checks_of(path):
    """Return the checks that a student's notebook carries, by question."""
    (setup,) = [
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.source.startswith(SETUP.partition("\n")[0])
    ]
    tree = ast.parse(re.sub(r"^ *%pip.*$", "    pass", setup, flags=re.M))
    (value,) = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.targets[0].id == "CHECKS"
    ]
    return ast.literal_eval(value)


def guide(assignment):
    """Return the instructor's guide: a table, then a note for each question."""
    lines = [
        f"# {assignment.title}: the instructor's guide",
        f"{assignment.summary}",
        f"{assignment.points} points, {assignment.by_hand} of them by hand; about "
        f"{duration(assignment.minutes)}. After: {', '.join(assignment.after)}.",
        "| question | about | points | minutes | graded |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {q.name} | {q.title} | {q.points} | {q.minutes} | "
            f"{'by hand' if q.manual else 'by tests'} |"
            for q in assignment.questions
        ),
    ]
    for q in assignment.questions:
        lines.append(f"## {q.name}: {q.title}")
        lines += [f"**{part}.** {text}" for part, text in q.note.items()]
    return "\n\n".join(lines) + "\n"


def make(name, root=ROOT, out=None):
    """Write all that there is of one assignment; return its folder."""
    assignment = read(name, root)
    out = out or root / FOLDER / name
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        dist = take_apart(assignment, Path(folder).resolve(), root)
        for part in ("student", "solution"):
            (out / part).mkdir(parents=True)
        nbformat.write(student_notebook(assignment, dist, root), out / "student" / f"{name}.ipynb")
        solved = nbformat.read(dist / "autograder" / f"{name}.ipynb", as_version=4)
        solved = finished(solved, assignment, public_checks(dist), root)
        nbformat.write(solved, out / "solution" / f"{name}.ipynb")
        (archive,) = (dist / "autograder").glob("*.zip")
        shutil.copy(archive, out / "solution" / "grader.zip")
    (out / "solution" / "guide.md").write_text(guide(assignment), encoding="utf-8")
    return out


def write_students(name, folder, root=ROOT):
    """Write what students get of one assignment into a folder."""
    assignment = read(name, root)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        dist = take_apart(assignment, Path(work).resolve(), root)
        nbformat.write(student_notebook(assignment, dist, root), folder / f"{name}.ipynb")


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
