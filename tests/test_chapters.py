"""What every chapter must have, read from its source."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("parsimony", "compression", "representations", "noise-and-scale")
CHAPTERS = sorted(path for part in PARTS for path in (ROOT / "book" / part).glob("*.md"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", flags=re.S | re.M)
HEAD = re.compile(r"\A(?:---\n.*?\n---\n|(?::[^\n]*\n)*)", flags=re.S)


def cells(text):
    """Return the tags and the code of each cell."""
    split = [(HEAD.match(cell).group(), cell) for cell in CELL.findall(text)]
    tags = [re.findall(r"[\w-]+", "".join(re.findall(r"tags: \[(.*?)\]", h))) for h, _ in split]
    return [(each, cell[len(head) :]) for each, (head, cell) in zip(tags, split, strict=True)]


@each_chapter
def test_a_chapter_has_its_parts(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^# .*ends$|^## .*\bfails\b", text, flags=re.M)  # where it fails
    assert "When you have worked through this chapter you can" in text
    assert re.search(r"Reading takes about \d+ minutes", text)
    assert "**What the literature says.**" in text
    exercises = re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", text)
    assert 4 <= len(exercises) <= 8
    assert exercises == re.findall(r"\{solution-start\} (\S+)", text)
    assert text.count("*Hint.*") == len(exercises)
    assert sum("solution" in tags for tags, _ in cells(text)) >= len(exercises)  # they run
    claims = re.findall(r'claim\(\s*"([\w.-]+)"', text)
    assert 3 <= len(claims) <= 12 and len({name.split(".")[0] for name in claims}) == 1


@each_chapter
def test_code_can_be_read_in_one_look_and_figures_by_those_who_cannot_see(path):
    text = path.read_text(encoding="utf-8")
    for tags, code in cells(text):
        if "remove-input" not in tags:
            assert max(map(len, code.splitlines())) <= 84, code  # the column
            if not {"hide-input", "solution"} & set(tags):
                assert len(code.splitlines()) <= 40, code
        assert "plt.show" not in code
    drawing = ("plt.subplots", "live.live(")
    folded = [code for tags, code in cells(text) if "hide-input" in tags]
    drawn = sum(any(each in code for each in drawing) for code in folded)
    assert text.count(" name: fig-") == text.count("alt: >-") == drawn
