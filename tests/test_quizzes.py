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
OPTION = re.compile(r"^:::\{dropdown\} *([^\n]*)\n(.*?)^:::$", re.S | re.M)
VERDICTS = ("Yes.", "No.", "Nearly.")


class Quiz(NamedTuple):
    """A quiz: its title, what sets the question, its options, and what stands below it."""

    title: str
    text: str
    titles: list[str]
    answers: list[str]
    below: str

    def right(self):
        """Return the places of the options that are right."""
        return [i for i, answer in enumerate(self.answers) if answer.startswith("Yes.")]


def quizzes(text):
    """Return the quizzes of a chapter; every option must belong to one."""
    found = []
    for quiz in QUIZ.finditer(text):
        options = OPTION.findall(quiz["body"])
        setting = quiz["body"].partition("\n:::{dropdown}")[0].strip()
        below = text[quiz.end() :].lstrip().partition("\n")[0]
        titles, answers = [title for title, _ in options], [each.strip() for _, each in options]
        found.append(Quiz(quiz["title"], setting, titles, answers, below))
    assert text.count("class: quiz") == len(found)
    folded = text.count("{dropdown} Formally:")  # statements of formal/law.v
    assert text.count("{dropdown}") - folded == sum(len(quiz.titles) for quiz in found)
    return found


def faults(quiz):
    """List what is wrong with a quiz."""
    titles, answers = quiz.titles, quiz.answers
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
        ("a code cell directly below", quiz.below, quiz.below.startswith("```{code-cell}")),
    ]
    return [f"{quiz.title}: wanted {want}, got {got!r}" for want, got, holds in rules if not holds]


def verdict(answer):
    """Tell whether an answer begins with what it says of its option."""
    return answer.startswith(VERDICTS)


def predictable(found):
    """List by which habit, not by thought, a reader would be right too often."""
    rights = [quiz.right()[0] for quiz in found]
    habits = Counter(f"place {place}" for place in rights)
    for quiz, right in zip(found, rights, strict=True):
        others = [len(title) for i, title in enumerate(quiz.titles) if i != right]
        habits["the longest"] += len(quiz.titles[right]) > max(others)
    habits["the place of the one before"] = sum(a == b for a, b in pairwise(rights))
    return sorted(habit for habit, count in habits.items() if count > len(found) / 2)


@each_chapter
def test_a_chapter_has_one_or_two_quizzes_and_each_is_whole(path):
    found = quizzes(path.read_text(encoding="utf-8"))
    assert len(found) in (1, 2)
    assert [fault for quiz in found for fault in faults(quiz)] == []


def test_the_right_option_is_not_told_by_its_place_or_length():
    found = [quiz for path in CHAPTERS for quiz in quizzes(path.read_text(encoding="utf-8"))]
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
FIRST = ":::{dropdown} To one half.\nNo. This is what a single step would do.\n:::\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Predict: how far", "How far", "wanted 'Predict"),
        ("fall?", "fall.", "wanted 'Predict"),
        ("It begins at one, and there are a hundred steps.", "", "text that sets"),
        (FIRST, "", "3 or 4"),
        ("Yes. The", "No. The", "one answer"),
        ("Nearly. It", "Yes. It", "one answer"),
        ("Nearly. It", "It", "begin with one of"),
        ("No. This is what a single step would do.", "No.", "a reason"),
        ("To one half.", "To $1/2$.", "no formula"),
        ("To zero.", "To one half.", "differ"),
        ("{dropdown} To zero.", "{dropdown}", "differ"),
        ("To zero.", "To zero, " + "and further " * 5, "fit on a line"),
        ("```{code-cell}", "A sentence.\n\n```{code-cell}", "code cell"),
    ],
)
def test_a_broken_quiz_is_found(old, new, message):
    assert GOOD.count(old) == 1
    (quiz,) = quizzes(GOOD.replace(old, new))
    assert any(message in fault for fault in faults(quiz))


def test_a_good_quiz_passes_and_one_that_is_answered_by_habit_is_found():
    (quiz,) = quizzes(GOOD)
    assert faults(quiz) == [] and quiz.right() == [1]
    assert predictable([quiz] * 4) == ["place 1", "the place of the one before"]
    (long,) = quizzes(GOOD.replace("To a tenth.", "To a tenth of what it was."))
    assert "the longest" in predictable([long] * 4)
    with pytest.raises(AssertionError):
        quizzes(GOOD.replace("::::{admonition} Predict", ":::{admonition} Predict"))
