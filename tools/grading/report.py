"""What an instructor gets: a table, the feedback of each student, and the written answers."""

import csv
import io
import os
import re
from collections import defaultdict
from typing import NamedTuple

from grading.handed_in import clean
from grading.judge import Graded

# Says in one sentence what a status means.
SENTENCES = {
    "graded": "",
    "missing": "nothing was handed in",
    "unreadable": "the file cannot be read as one notebook: hand it in again",
    "other assignment": "the notebook belongs to another assignment",
    "time": "stopped: it ran longer than allowed; what it had reached counts",
    "memory": "stopped: it took more memory than allowed; what it had reached counts",
    "processes": "stopped: it started too many processes; what it had reached counts",
    "ended": "it ended by itself or for want of memory; what it had reached counts",
    "doubtful": "the notebook answered in a way that makes no sense: read it",
    "not graded": "grading was interrupted before its turn",
}
REACHED = ("graded", "time", "memory", "processes", "ended", "doubtful")


class Row(NamedTuple):
    """A student, what became of the submission, what to look at, and how long it took."""

    student: str
    graded: Graded
    look: list[str]
    seconds: float


def points(row):
    """Return the points of each question."""
    return {name: verdict.points for name, verdict in row.graded.verdicts.items()}


def failed(cells):
    """Say which cells failed, without what they said."""
    return [f"cell {number}: {clean(kind)}" for number, kind, _ in cells]


def safe(text):
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if str(text).startswith(("=", "+", "-", "@")) else text


def line(row, known):
    """Return the line of one student."""
    graded, got = row.graded, points(row)
    why = [SENTENCES[graded.status], graded.trouble]
    if graded.status in REACHED:
        why += [f"{name}: {text}" for name, v in graded.verdicts.items() for text in v.details]
        why += [f"cell {number}: {kind}: {text}" for number, kind, text in graded.failed]
    return {
        "student": safe(row.student),
        "status": graded.status,
        "points": sum(got.values()),
        "of": sum(known.points.values()),
        **{q.name: "" if q.manual else got[q.name] for q in known.assignment.questions},
        "look": safe("; ".join(clean(each, 300) for each in row.look)),
        "seconds": f"{row.seconds:.0f}",
        "why": safe("; ".join(clean(each, 300) for each in why if each)[:2000]),
    }


def pointed_out(rows):
    """Return the rows with a word where two students wrote the same answer, word for word."""
    wrote = defaultdict(list)  # of answers long enough to be somebody's own
    for row in rows:
        for name, answer in row.graded.written.items():
            if len(words := " ".join(answer.split())) > 80:
                wrote[name, words].append(row.student)
    same = defaultdict(list)
    for (name, _), students in wrote.items():
        for student in students if len(students) > 1 else ():
            others = [other for other in students if other != student]
            same[student].append(f"{name} as {', '.join(others[:5])}")
    return [row._replace(look=row.look + same[row.student]) for row in rows]


def table(rows, known):
    """Return grades.csv."""
    lines = [line(row, known) for row in pointed_out(sorted(rows, key=lambda row: row.student))]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def marked(text):
    """Return a text on one line in which no markup means anything."""
    return re.sub(r"([\\`*_\[\]<>#|~!])", r"\\\1", clean(text, 500))


def feedback(row, known):
    """Return what one student may be told."""
    graded = row.graded
    lines = [f"# {known.name}", SENTENCES[graded.status] or "Graded."]
    if graded.trouble:
        lines.append(marked(graded.trouble))
    for q in known.assignment.questions if graded.status in REACHED else ():
        lines.append(f"## {q.name}: {q.title}")
        if q.manual:
            lines.append(f"Graded by hand: of {q.points}.")
            continue
        verdict = graded.verdicts[q.name]
        lines.append(f"{verdict.points:g} of {known.points[q.name]:g}.")
        if verdict.said:
            lines.append("\n".join(f"- {marked(text)}" for text in verdict.said))
    if graded.failed:
        lines.append("Cells that failed: " + marked("; ".join(failed(graded.failed))) + ".")
    return "\n\n".join(lines) + "\n"


def collected(rows, known):
    """Return written.md: the answers to each question one after the other."""
    lines = [f"# {known.name}: written answers"]
    for q in known.assignment.questions:
        if not q.manual:
            continue
        lines.append(f"## {q.name}: {q.title} ({q.points} points)")
        lines.append(f"**Rubric.** {q.note['Rubric']}")
        for row in sorted(rows, key=lambda row: row.student):
            answer = fit_to_print(row.graded.written.get(q.name, "")).strip() or "(nothing)"
            fence = "~" * (1 + max([2, *map(len, re.findall("~+", answer))]))
            lines.append(f"### {marked(row.student)}\n\n{fence}text\n{answer}\n{fence}")
    return "\n\n".join(lines) + "\n"


def fit_to_print(text):
    """Return a text of several lines, each without what terminals and files cannot bear."""
    return "\n".join(re.match(" *", each)[0] + clean(each, 2000) for each in text.split("\n"))


def file_names(students):
    """Return for each student a name for a file, unlike all others, that leads nowhere else."""
    found, taken = {}, set()
    for student in students:
        name = re.sub(r"[^\w @+-]", "_", student).strip(" ")[:60] or "_"
        stem, number = name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem} ({number})"
        taken.add(name.casefold())
        found[student] = name
    return found


def replace(path, text):
    """Write a file at once or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)


def write(rows, known, out):
    """Write all that the instructor gets; what is not graded yet has no feedback."""
    # Excel takes a table without the mark in front for one in an encoding of its own.
    replace(out / "grades.csv", "\ufeff" + table(rows, known))
    replace(out / "written.md", collected(rows, known))
