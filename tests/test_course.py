"""The pages for students and instructors say what the sources say, and their commands are there."""

import re
from pathlib import Path
from types import SimpleNamespace

import grade
import lop_course
import pytest
import yaml
from grading import report, walls

ROOT = Path(__file__).resolve().parent.parent

CONFIG = SimpleNamespace(
    html_baseurl="",
    html_theme_options={
        "repository_url": "https://github.com/owner/book",
        "repository_branch": "main",
        "launch_buttons": {
            "binderhub_url": "https://binder.example.org",
            "colab_url": "https://colab.example.org",
        },
    },
)
TEXT = (ROOT / "book" / "teaching" / "instructors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", lop_course.names())
def test_students_are_told_what_an_assignment_takes_and_where_it_opens(name):
    line, assignment = lop_course.described(name, CONFIG), lop_course.read(name)
    assert line.startswith(f"**{assignment.title}.** {assignment.summary} After ")
    assert f"{assignment.points} points, {assignment.by_hand} of them" in line
    assert f"https://colab.example.org/github/owner/book/blob/notebooks/assignments/{name}" in line
    assert "https://binder.example.org/v2/gh/owner/book/main?urlpath=lab/tree/assignments/" in line
    assert f"(https://owner.github.io/book/assignments/{name}.ipynb)" in line
    assert f"`{name}`" in TEXT  # instructors name it so in their commands
    assert assignment.kind == "project" or f"*{assignment.title}*" in TEXT  # of the plan


def test_durations_are_said_as_people_say_them():
    said = [lop_course.duration(minutes) for minutes in (60, 180, 960)]
    assert said == ["60 minutes", "180 minutes", "16 hours"]


CHAPTER = """# Title

When you have worked through this chapter you can

- prove one thing, with $x$;
- see {doc}`other` and {doc}`../part/third`.

You need {doc}`other`. Reading takes about 25 minutes, running less than one.

```{exercise-start} One
```
"""


def test_a_chapter_is_asked_for_its_goals_and_how_long_it_takes():
    found = lop_course.chapter("book/part/one", CHAPTER)
    assert (found.minutes, found.exercises) == (25, 1)
    assert found.goals[0] == "prove one thing, with $x$"
    # a reference works from another page
    said = lop_course.relative(found.goals[1] + ", {doc}`/book/intro`", "book/part/one")
    assert said == "see {doc}`/book/part/other` and {doc}`/book/part/third`, {doc}`/book/intro`"
    with pytest.raises(ValueError, match="book/part/one: wanted 'Reading takes about N minutes'"):
        lop_course.chapter("book/part/one", CHAPTER.replace("25 minutes", "long"))
    assert lop_course.chapter("book/intro", "# Title\n\nText.") is None


def test_every_chapter_states_goals_that_are_found_and_is_in_a_plan():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [part for part in toc["parts"] if part.get("numbered")]
    names = [entry["file"] for part in parts for entry in part["chapters"]]
    assert len(names) >= 12
    for name in names:
        found = lop_course.chapter(name, (ROOT / f"{name}.md").read_text(encoding="utf-8"))
        assert 3 <= len(found.goals) <= 6 and 4 <= found.exercises <= 8, name
        assert f"{{doc}}`../{name.removeprefix('book/')}`" in TEXT, name


def test_the_commands_of_the_page_are_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\w+)$", makefile, re.M))
    named = set(re.findall(r"(?:^|`)make (\w+)", TEXT, re.M))
    assert {"env", "assignments", "grade"} <= named <= targets
    assert "$(NAME)" in makefile and "$(FROM)" in makefile and "$(MORE)" in makefile


def test_the_page_says_what_the_grader_does():
    limits = walls.LIMITS
    assert (limits.seconds, limits.total, limits.memory, limits.processes) == (60, 600, 4, 64)
    assert limits.disk == 0.25
    assert "takes more than a minute of the processor (`--seconds`)" in TEXT
    assert "took more than ten minutes" in TEXT
    assert "limited to 4 GiB for each (`--memory`)" in TEXT
    assert "Processes and threads are limited to 64" in TEXT
    assert "an empty folder in memory (a quarter of a gigabyte)" in TEXT
    for status in report.SENTENCES:
        assert f"`{status}`" in TEXT, status
    for option in ("--seconds", "--memory", "--out", "--roster"):
        assert option in grade.__doc__ and option in TEXT
    for file in ("grades.csv", "written.md", "feedback/"):
        assert file in grade.__doc__ and f"`{file}`" in TEXT
