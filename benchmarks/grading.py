"""Grade a hundred generated submissions, and compare with Otter alone.

A submission is a student's notebook in which each answer is, with even chances, the reference's or
missing. Timed is the grader as an instructor calls it, with as many submissions at once as there
are processors; then ten of the same submissions one after the other, in turn by the grader and by
`otter run`, which shuts in nothing and stops nothing.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, interleaved, record, show

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import assignments
import grade
import nbformat
import sandbox


def generated(folder, seed):
    """Return a notebook of the assignment in a folder, half solved."""
    chance = random.Random(seed)
    name = folder.name
    notebook = nbformat.read(folder / "student" / f"{name}.ipynb", as_version=4)
    solved = nbformat.read(folder / "solution" / f"{name}.ipynb", as_version=4)

    def answers(cells, tag):
        return [c for c in cells if c.cell_type == "code" and tag in c.metadata.get("tags", [])]

    blank = answers(notebook.cells, "otter_answer_cell")
    right = answers(solved.cells, "otter_assign_solution_cell")
    for cell, answer in zip(blank, right, strict=True):
        if chance.random() < 0.5:
            cell.source = answer.source
    return notebook


def class_of(name, count, folder):
    """Write an assignment and a class that hands it in; return (assignment, submissions)."""
    made = assignments.make(name, out=folder / name)
    handed_in = folder / f"{name}-submissions"
    handed_in.mkdir()
    for i in range(count):
        nbformat.write(generated(made, i), handed_in / f"student-{i:03d}.ipynb")
    return made, handed_in


def in_turn(name, made, handed_in, folder, count):
    """Return the seconds of one submission, by the grader and by Otter alone."""
    files = sorted(handed_in.iterdir())[:count]
    known = grade.grader(name, made / "solution" / "grader.zip")
    turns = {"grader": iter(files * 2), "otter run": iter(files * 2)}

    def by_grader():
        file = next(turns["grader"])
        found = grade.graded(grade.opened(file.stem, file), known)
        assert found.status == "graded", found

    def by_otter():
        out = Path(tempfile.mkdtemp(dir=folder))
        command = [sys.executable, "-m", "otter", "run", "--no-logo", "-a", str(known.archive)]
        file = next(turns["otter run"])
        subprocess.run([*command, "-o", str(out), str(file)], check=True, capture_output=True)

    contenders = {"grader": by_grader, "otter run": by_otter}
    return interleaved(contenders, seconds=0.0, warm=0, at_least=count)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    names = assignments.names()[:1] if options.quick else assignments.names()
    count, turns = (2, 1) if options.quick else (100 // len(names), 10)
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        rows, total = [], 0.0
        for name in names:
            made, handed_in = class_of(name, count, folder)
            known = grade.grader(name, made / "solution" / "grader.zip")
            started = time.perf_counter()
            grades = grade.grade_folder(
                known, handed_in, folder / f"{name}-grades", jobs=jobs, show=lambda text: None
            )
            taken = time.perf_counter() - started
            assert all(each.status == "graded" for each in grades)
            points = [sum(each.points.values()) for each in grades]
            total += taken
            rows.append([name, count, taken, 60 * count / taken, sum(points) / count])
        one = in_turn(
            names[0], folder / names[0], folder / f"{names[0]}-submissions", folder, turns
        )
    columns = ["assignment", "submissions", "seconds", "a minute", "mean points"]
    show(columns, rows)
    print(f"{sum(row[1] for row in rows)} submissions in {total:.0f} s, {jobs} at once")
    print(sandbox.protection())
    step_columns = ["one after the other", "seconds each", "of Otter's"]
    bare = one["otter run"].median
    steps = [[each, timing.median, timing.median / bare] for each, timing in one.items()]
    show(step_columns, steps)
    if not options.quick:
        values = {"jobs": jobs, "shut in": sandbox.bubblewrap() is not None}
        values |= {"columns": columns, "rows": rows}
        record("grading", {**values, "step_columns": step_columns, "steps": steps})


if __name__ == "__main__":
    main()
