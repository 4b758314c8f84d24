"""The course: assignments as their sources say them, and chapters as an instructor asks of them.

``tools/assignments.py`` makes notebooks of the same sources. The list of assignments says of each
what it takes and where it opens; the addresses follow from the repository's. The table of goals is
made of what every chapter says at its beginning.
"""

import posixpath
import re
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import jupytext
import nbformat
import yaml
from lop_lists import add_listing
from lop_site import site_address

ROOT = Path(__file__).resolve().parent.parent
SOURCES = "book/teaching/assignments"
BRANCH = "notebooks"  # where the students' notebooks are published, in a folder of their own
NOTE_PARTS = ("Tests", "Usual mistakes", "Rubric", "Time")


class Question(NamedTuple):
    """A question, as the instructor plans it."""

    name: str
    title: str
    points: float
    manual: bool
    minutes: int
    note: dict[str, str]


class Assignment(NamedTuple):
    """An assignment as its source says it."""

    name: str
    title: str
    kind: str
    summary: str
    after: list[str]
    questions: list[Question]
    notebook: nbformat.NotebookNode

    @property
    def points(self):
        """All points, of written answers too."""
        return sum(question.points for question in self.questions)

    @property
    def by_hand(self):
        """The points that no test gives."""
        return sum(question.points for question in self.questions if question.manual)

    @property
    def minutes(self):
        """How long a student is expected to need."""
        return sum(question.minutes for question in self.questions)


def names(root=ROOT):
    """Return the names of all assignments."""
    return sorted(path.stem for path in (root / SOURCES).glob("*.md"))


def read(name, root=ROOT):
    """Read one source; raise a ValueError that says what it lacks."""
    path = root / SOURCES / f"{name}.md"
    notebook = jupytext.read(path, fmt="md:myst")
    said = notebook.metadata.get("assignment") or {}
    if missing := {"after", "summary"} - said.keys():
        raise ValueError(f"{path.name}: wanted assignment: {{after, summary}}, got no {missing}")
    title = re.match(r"# (.+)", notebook.cells[0].source)
    if title is None:
        raise ValueError(f"{path.name}: wanted a heading in the first cell")
    return Assignment(
        name=name,
        title=title[1],
        kind=said.get("kind", "assignment"),
        summary=" ".join(said["summary"].split()),
        after=said["after"],
        questions=list(questions(path.name, notebook.cells)),
        notebook=notebook,
    )


def questions(file, cells):
    """Yield the questions in order, each with the note that follows it."""
    heading, config = "", None
    for cell in cells:
        source = cell.source
        if cell.cell_type == "markdown" and (found := re.findall(r"^## (.+)$", source, re.M)):
            heading = found[-1]
        if cell.cell_type == "raw" and source.startswith("# BEGIN QUESTION"):
            if config:
                raise ValueError(f"{file}: {config['name']} has no instructor's note after it")
            config = yaml.safe_load(source.partition("\n")[2])
        if "instructor" in cell.metadata.get("tags", []):
            if config is None:
                raise ValueError(f"{file}: an instructor's note without a question: {source[:60]}")
            yield question(file, heading, config, source)
            config = None
    if config:
        raise ValueError(f"{file}: {config['name']} has no instructor's note after it")


def question(file, heading, config, source):
    """Return one question from what is said of it and from its note."""
    parts = re.split(r"^\*\*([\w ]+)\.\*\* ", source, flags=re.M)[1:]
    note = {key: text.strip() for key, text in zip(parts[::2], parts[1::2], strict=True)}
    manual = bool(config.get("manual"))
    wanted = [part for part in NOTE_PARTS if manual or part != "Rubric"]
    if list(note) != wanted:
        raise ValueError(f"{file}, {config['name']}: wanted a note of {wanted}, got {list(note)}")
    minutes = re.match(r"(\d+) minutes\.", note["Time"])
    if minutes is None or "points" not in config:
        raise ValueError(f"{file}, {config['name']}: wanted points and '**Time.** N minutes.'")
    return Question(config["name"], heading, config["points"], manual, int(minutes[1]), note)


def duration(minutes):
    """Say how long something takes."""
    return f"{minutes} minutes" if minutes <= 180 else f"{round(minutes / 60)} hours"


def described(name, config, root=ROOT):
    """Return the paragraph that tells students of one assignment."""
    assignment = read(name, root)
    theme = config.html_theme_options
    repository, launch = urlsplit(theme["repository_url"]).path, theme["launch_buttons"]
    file = f"assignments/{name}.ipynb"
    binder = f"{launch['binderhub_url']}/v2/gh{repository}/{theme['repository_branch']}"
    opened = {
        "Colab": f"{launch['colab_url']}/github{repository}/blob/{BRANCH}/{file}",
        "Binder": f"{binder}?urlpath=lab/tree/{quote(file)}",
        "download": f"{site_address(config)}{file}",
    }
    chapters = " and ".join(f"{{doc}}`/book/{chapter}`" for chapter in assignment.after)
    links = ", ".join(f"[{text}]({address})" for text, address in opened.items())
    return (
        f"**{assignment.title}.** {assignment.summary} After {chapters}; "
        f"{duration(assignment.minutes)}, {assignment.points} points, {assignment.by_hand} of "
        f"them for written answers. Open it: {links}."
    )


def assignments(env):
    """Return what there is, projects last, else in the order of the chapters; depend on it."""
    places = list(env.collect_relations())

    def place(name):
        assignment = read(name)
        last = max(places.index(f"book/{chapter}") for chapter in assignment.after)
        return assignment.kind == "project", last

    ordered = sorted(sources(env), key=place)
    return [line for name in ordered for line in (described(name, env.config), "")]


def sources(env):
    """Return the names of all assignments, and have the page read anew when one changes."""
    for name in names():
        env.note_dependency(str(ROOT / SOURCES / f"{name}.md"))
    return names()


# What an instructor asks of a chapter before setting it.
Chapter = namedtuple("Chapter", "minutes exercises goals")


def chapter(name, text):
    """Return what the source of a chapter says of itself; None where it states no goals."""
    goals = re.search(r"^When you have worked .*\bcan$\n+((?:- .+(?:\n|$))+)", text, re.M)
    if goals is None:
        return None
    minutes = re.search(r"Reading takes about (\d+) minutes", text)
    if minutes is None:
        raise ValueError(f"{name}: wanted 'Reading takes about N minutes' below the goals")
    found = [line.removeprefix("- ").rstrip(";.") for line in goals[1].strip().splitlines()]
    return Chapter(int(minutes[1]), text.count("{exercise-start}"), found)


def goals(env):
    """Return for each chapter the time, exercises, the assignment, and what it teaches."""
    sets = {}
    for name in sources(env):
        assignment = read(name)
        for after in assignment.after:
            sets.setdefault(f"book/{after}", []).append(assignment.title)
    lines = []
    for docname in env.collect_relations():
        if found := chapter(docname, Path(env.doc2path(docname)).read_text(encoding="utf-8")):
            takes = f"{found.minutes} minutes, {found.exercises} exercises"
            takes += "".join(f", *{title}*" for title in sets.get(docname, []))
            said = "; ".join(relative(goal, docname) for goal in found.goals)
            lines += [f"**{{doc}}`/{docname}`** ({takes}): {said}.", ""]
    return lines


def relative(goal, docname):
    """Let a reference that is meant from a chapter work from any page."""
    folder = docname.rpartition("/")[0]
    return re.sub(
        r"\{doc\}`(?!/)([^`]+)`",
        lambda found: f"{{doc}}`/{posixpath.normpath(posixpath.join(folder, found[1]))}`",
        goal,
    )


def setup(app):
    """Make ``{assignments}`` and ``{goals}`` known."""
    add_listing(app, "assignments", assignments)
    add_listing(app, "goals", goals)
