"""What every chapter must have, read from its source."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("parsimony", "compression", "representations")
CHAPTERS = sorted(path for part in PARTS for path in (ROOT / "book" / part).glob("*.md"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", flags=re.S | re.M)
HEAD = re.compile(r"\A(?:---\n.*?\n---\n|(?::[^\n]*\n)*)", flags=re.S)


def cells(path):
    """Yield the tags and the code of each cell."""
    for cell in CELL.findall(path.read_text(encoding="utf-8")):
        head = HEAD.match(cell).group()
        yield (
            re.findall(r"[\w-]+", "".join(re.findall(r"tags: \[(.*?)\]", head))),
            cell[len(head) :],
        )


@each_chapter
def test_a_chapter_says_where_it_fails_and_what_it_needs(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^# .*ends$|^## .*\bfails\b", text, flags=re.M)
    assert "When you have worked through this chapter you can" in text
    assert re.search(r"Reading takes about \d+ minutes", text)
    assert "**What the literature says.**" in text


@each_chapter
def test_a_chapter_has_four_to_eight_exercises_each_with_hint_and_running_solution(path):
    text = path.read_text(encoding="utf-8")
    labels = re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", text)
    assert 4 <= len(labels) <= 8
    assert labels == re.findall(r"\{solution-start\} (\S+)", text)
    assert text.count("*Hint.*") == len(labels)
    assert sum("solution" in tags for tags, _ in cells(path)) >= len(labels)


@each_chapter
def test_the_code_fits_its_column(path):
    for tags, code in cells(path):
        if "remove-input" not in tags:
            assert max(map(len, code.splitlines())) <= 84, code


@each_chapter
def test_a_cell_can_be_read_in_one_look(path):
    for tags, code in cells(path):
        if not {"remove-input", "hide-input", "solution"} & set(tags):
            assert len(code.splitlines()) <= 40, code


@each_chapter
def test_a_chapter_makes_three_to_twelve_claims(path):
    ids = re.findall(r'claim\(\s*"([\w.-]+)"', path.read_text(encoding="utf-8"))
    assert 3 <= len(ids) <= 12
    assert len({name.split(".")[0] for name in ids}) == 1


@each_chapter
def test_no_output_is_drawn_without_a_name_and_words_for_those_who_cannot_see_it(path):
    for _, code in cells(path):
        assert "plt.show" not in code
    text = path.read_text(encoding="utf-8")
    drawing = ("plt.subplots", "widgets.live(")
    folded = [code for tags, code in cells(path) if "hide-input" in tags]
    drawn = sum(any(each in code for each in drawing) for code in folded)
    assert text.count("name: fig-") == text.count("alt: >-") == drawn
