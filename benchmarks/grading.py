"""Grade a hundred generated submissions, compare with Otter alone, and grade 2,000 odd files.

A submission is a student's notebook in which each answer is, with even chances, the reference's or
missing. Timed is the grader as an instructor calls it, with as many submissions at once as there
are processors; then ten of the same submissions one after the other, in turn by the grader and by
`otter run`, which shuts in nothing and stops nothing. Last comes a class of broken, mutated and
hostile files, in which every honest student must get the exact grade.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, interleaved, record, show

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "grader"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import adding
import assignments
import fuzz
import grade
import nbformat
from grading import handed_in as handed_in_file
from grading import report, walls


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
    turns = {"grader": iter(files * 2), "otter run": iter(files * 2)}
    known, archive = grade.grader(name), made / "solution" / "grader.zip"

    def by_otter():
        out = Path(tempfile.mkdtemp(dir=folder))
        command = [sys.executable, "-m", "otter", "run", "--no-logo", "-a", str(archive)]
        file = next(turns["otter run"])
        subprocess.run([*command, "-o", str(out), str(file)], check=True, capture_output=True)

    with walls.Host() as host:

        def by_grader():
            file = next(turns["grader"])
            found = grade.graded(handed_in_file.opened(file.stem, file), known, host)
            assert found.graded.status == "graded", found

        contenders = {"grader": by_grader, "otter run": by_otter}
        return interleaved(contenders, seconds=0.0, warm=0, at_least=count)


def whatever(count, folder):
    """Grade a class of broken, mutated and hostile files; return a row of what became of it."""
    known = adding.adding(folder / "adding")
    handed_in = folder / "whatever"
    handed_in.mkdir()
    honest = fuzz.write_class(handed_in, range(count))
    honest = {handed_in_file.student_of(name) for name in honest}
    limits = walls.LIMITS._replace(seconds=2, memory=2.0)
    started = time.perf_counter()
    rows = grade.grade_folder(
        known, handed_in, folder / "whatever-grades", jobs=os.cpu_count(), limits=limits, show=len
    )
    taken = time.perf_counter() - started
    wrong = [
        row.student
        for row in rows
        if row.student in honest and list(report.points(row).values()) != [2, 1]
    ]
    assert len(rows) == count and not wrong, wrong
    return [count, len(honest), len(wrong), taken]


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    names = assignments.names()[-1:] if options.quick else assignments.names()
    count, turns, odd = (2, 1, 10) if options.quick else (100 // len(names), 10, 2000)
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        rows, total = [], 0.0
        for name in names:
            _, handed_in = class_of(name, count, folder)
            started = time.perf_counter()
            graded = grade.grade_folder(
                grade.grader(name), handed_in, folder / f"{name}-grades", jobs=jobs, show=len
            )
            taken = time.perf_counter() - started
            assert all(row.graded.status == "graded" for row in graded)
            points = [sum(report.points(row).values()) for row in graded]
            total += taken
            rows.append([name, count, taken, 60 * count / taken, sum(points) / count])
        name = names[0]
        one = in_turn(name, folder / name, folder / f"{name}-submissions", folder, turns)
        strange = whatever(odd, folder)
    columns = ["assignment", "submissions", "seconds", "a minute", "mean points"]
    show(columns, rows)
    print(f"{sum(row[1] for row in rows)} submissions in {total:.0f} s, {jobs} at once")
    print(walls.protection())
    step_columns = ["one after the other", "seconds each", "of Otter's"]
    bare = one["otter run"].median
    steps = [[each, timing.median, timing.median / bare] for each, timing in one.items()]
    show(step_columns, steps)
    odd_columns = ["files of any kind", "honest", "of these graded wrongly", "seconds"]
    show(odd_columns, [strange])
    if not options.quick:
        values = {"jobs": jobs, "shut in": walls.bubblewrap(), "columns": columns, "rows": rows}
        values |= {"step_columns": step_columns, "steps": steps}
        record("grading", values | {"odd_columns": odd_columns, "odd": [strange]})


if __name__ == "__main__":
    main()
