"""What every quiz must be, read from the sources of the chapters; and the rules bite."""

import re
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import pytest
from test_chapters import CHAPTERS, each_chapter

QUIZ = re.compile(
    r"^::::\{admonition\} (?P<title>[^\n]*)\n:class: quiz\n(?P<body>.*?)^::::$", re.S | re.M
)
OPTION = re.compile(r"^:::\{dropdown\} *(?P<title>[^\n]*)\n(?P<answer>.*?)^:::$", re.S | re.M)
VERDICTS = ("Yes.", "No.", "Nearly.")


class Quiz(NamedTuple):
    """A quiz: its title, what sets the question, its options, and what stands below it."""

    title: str
    text: str
    options: list[tuple[str, str]]
    below: str

    def right(self):
        """Return the places of the options that are right."""
        return [i for i, (_, answer) in enumerate(self.options) if answer.startswith("Yes.")]


def quizzes(text):
    """Read the quizzes of a chapter."""
    for found in QUIZ.finditer(text):
        options = [(o["title"], o["answer"].strip()) for o in OPTION.finditer(found["body"])]
        setting = found["body"].partition("\n:::{dropdown}")[0].strip()
        yield Quiz(found["title"], setting, options, text[found.end() :].lstrip())


def faults(quiz):
    """List what is wrong with a quiz."""
    titles = [title for title, _ in quiz.options]
    answers = [answer for _, answer in quiz.options]
    below = quiz.below.partition("\n")[0]
    rules = [  # what is wanted, what came, and whether it holds
        ("'Predict: ...?'", quiz.title, re.fullmatch(r"Predict: .{8,100}\?", quiz.title)),
        ("text that sets the question", quiz.text, len(quiz.text) > 20),
        ("3 or 4 options", titles, len(titles) in (3, 4)),
        ("one answer that begins with 'Yes.'", answers, len(quiz.right()) == 1),
        (f"each to begin with one of {VERDICTS}", answers, all(map(verdict, answers))),
        ("a reason in each", answers, all(len(a.partition(" ")[2]) > 15 for a in answers)),
        # a notebook shows no formula in the line that opens an option
        ("no formula or markup in options", titles, not re.search(r"[$`*{]", " ".join(titles))),
        ("options that differ", titles, len(set(titles)) == len(titles) and all(titles)),
        ("options that fit on a line", titles, max(map(len, titles), default=0) <= 60),
        ("a code cell directly below", below, below.startswith("```{code-cell}")),
    ]
    return [f"{quiz.title}: wanted {want}, got {got!r}" for want, got, holds in rules if not holds]


def verdict(answer):
    """Tell whether an answer begins with what it says of its option."""
    return answer.startswith(VERDICTS)


@each_chapter
def test_a_chapter_has_one_or_two_quizzes_and_each_is_whole(path):
    found = list(quizzes(path.read_text(encoding="utf-8")))
    assert len(found) in (1, 2)
    assert [fault for quiz in found for fault in faults(quiz)] == []


@each_chapter
def test_every_quiz_and_every_option_is_read_by_these_rules(path):
    text = path.read_text(encoding="utf-8")
    found = list(quizzes(text))
    assert text.count("class: quiz") == len(found)
    assert text.count("{dropdown}") == sum(len(quiz.options) for quiz in found)


def everywhere():
    """Return the quizzes of all chapters in the order of their files."""
    return [quiz for path in CHAPTERS for quiz in quizzes(path.read_text(encoding="utf-8"))]


def predictable(found):
    """List by which habit, not by thought, a reader would be right too often."""
    places = Counter(quiz.right()[0] for quiz in found)
    longest = sum(
        len(quiz.options[quiz.right()[0]][0])
        > max(len(t) for i, (t, _) in enumerate(quiz.options) if i not in quiz.right())
        for quiz in found
    )
    same = [a.title for a, b in pairwise(found) if a.right() == b.right()]
    return [
        *(f"place {place}: {count}" for place, count in places.items() if count > len(found) / 2),
        *([f"the longest: {longest}"] if longest > len(found) / 2 else []),
        *(["the place of the one before"] if len(same) > len(found) / 2 else []),
    ]


def test_the_right_option_is_not_told_by_its_place_or_length():
    found = everywhere()
    assert predictable(found) == []
    assert {quiz.right()[0] for quiz in found} == {0, 1, 2, 3}


# --- The rules bite ------------------------------------------------------------------------

GOOD = """\
::::{admonition} Predict: how far does it fall?
:class: quiz
It begins at one, and there are a hundred steps.

:::{dropdown} To one half.
No. This is what a single step would do.
:::
:::{dropdown} To a tenth.
Yes. The steps multiply, and each takes a little.
:::
:::{dropdown} To zero.
Nearly. It gets close, but the rest never goes.
:::
::::

```{code-cell} ipython3
```
"""


def test_a_good_quiz_passes():
    (quiz,) = quizzes(GOOD)
    assert faults(quiz) == [] and quiz.right() == [1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Predict: how far", "How far", "wanted 'Predict"),
        ("fall?", "fall.", "wanted 'Predict"),
        ("It begins at one, and there are a hundred steps.", "", "text that sets"),
        (
            ":::{dropdown} To one half.\nNo. This is what a single step would do.\n:::\n",
            "",
            "3 or 4",
        ),
        ("Yes. The", "No. The", "one answer"),
        ("Nearly. It", "Yes. It", "one answer"),
        ("Nearly. It", "It", "begin with one of"),
        ("No. This is what a single step would do.", "No.", "a reason"),
        ("To one half.", "To $1/2$.", "no formula"),
        ("To one half.", "To *half*.", "no formula"),
        ("To zero.", "To one half.", "differ"),
        ("{dropdown} To zero.", "{dropdown}", "differ"),
        ("To zero.", "To zero, " + "and further " * 5, "fit on a line"),
        ("```{code-cell}", "## A heading\n\n```{code-cell}", "code cell"),
        ("```{code-cell}", "A sentence.\n\n```{code-cell}", "code cell"),
    ],
)
def test_a_broken_quiz_is_found(old, new, message):
    assert GOOD.count(old) == 1
    (quiz,) = quizzes(GOOD.replace(old, new))
    assert any(message in fault for fault in faults(quiz))


def test_quizzes_that_can_be_answered_by_habit_are_found():
    (quiz,) = quizzes(GOOD)
    assert predictable([quiz] * 4) == ["place 1: 4", "the place of the one before"]
    (long,) = quizzes(GOOD.replace("To a tenth.", "To a tenth of what it was."))
    assert "the longest: 4" in predictable([long] * 4)


@pytest.mark.parametrize("number", [0, 3])
def test_a_chapter_without_quizzes_or_with_too_many_is_found(tmp_path, number):
    path = tmp_path / "chapter.md"
    path.write_text(GOOD * number, encoding="utf-8")
    with pytest.raises(AssertionError):
        test_a_chapter_has_one_or_two_quizzes_and_each_is_whole(path)
