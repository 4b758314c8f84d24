"""What the pages show of notebooks and docstrings, on small books: claims, status, API, figures."""

import base64
import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
from xml.etree import ElementTree

import lop_live
import lop_status
import nbformat
import pytest
from lop_claims import CLAIM_MIME
from small_book import CLAIM, CLAIM_CELL, HEADER, Book

from lop_utils.book import live as widgets

INDEX = "# Index\n\n```{toctree}\nlists\nchapter/one\n```\n"
LISTS = "# Lists\n\n```{claims}\n```\n\n```{status}\n```\n"
CELL = "```{code-cell}\n1 / 0\n```\n"
RECORD = {"id": "wide", "seed": 3, "commit": "abc", "device": "a card", "seconds": 7.5}
RECORD |= {"torch": "2.0", "values": {"secret": 1}}


def shown(data):
    return {"output_type": "display_data", "data": data}


def cells(book, kind):
    """Return the texts of a table of the page with lists, row by row."""
    table = re.search(rf"<table[^>]*{kind}.*?</table>", book.page("lists"), flags=re.S)
    rows = re.findall(r"<tr.*?</tr>", table.group(), flags=re.S)
    texts = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.S) for row in rows]
    return [[re.sub("<[^>]+>|\n", "", text) for text in row] for row in texts]


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path, **{"index": INDEX, "lists": LISTS})


def test_the_lists_follow_the_library_the_records_and_the_chapters(book):
    book.write("lop_utils/__init__.py", "VALUE = 4.0\n")
    book.write("chapter/one.md", HEADER.format("One") + CLAIM_CELL)
    book.write("book/_recorded/wide.json", json.dumps(RECORD))
    book.write("book/_recorded/bench-x.json", json.dumps(RECORD | {"id": "bench-x"}))
    book.built()
    row = ["it is \\(|x^2|\\)", "4", "≤ 9", "arithmetic", "one.square"]
    assert cells(book, "lop-claims")[1:] == [row]
    page = book.page("chapter/one")
    assert 'href="chapter/one.html#claim-one-square"' in book.page("lists")
    assert 'id="claim-one-square"' in page and page.count('class="lop-claim"') == 1
    assert r'<span class="math notranslate nohighlight">\(|x^2|\)</span>' in page
    assert "mathjax.js" in book.page("lists")

    seconds = dict(cells(book, "lop-seconds")[1:])
    assert float(seconds["One"]) > 0 and seconds["all of them"] == seconds["One"]
    versions = dict(cells(book, "lop-versions")[1:])
    assert versions["Python"] == platform.python_version()
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["scale (LOP_SCALE)"] == "book"
    assert cells(book, "lop-records")[1:] == [["wide", "3", "abc", "a card", "7.5", "2.0"]]

    # nothing changed: nothing runs and nothing is written
    assert "no targets are out of date" in book.built()

    # the library and the records changed: the page is executed again, and both tables follow
    book.write("lop_utils/__init__.py", "VALUE = 5.0\n")
    book.write("book/_recorded/deep.json", json.dumps(RECORD | {"id": "deep"}))
    assert "Executed notebook" in book.built()
    assert cells(book, "lop-claims")[1][1] == "5"
    assert [row[0] for row in cells(book, "lop-records")[1:]] == ["deep", "wide"]
    assert len(list((book.folder / "_build" / ".jupyter_cache").iterdir())) == 1

    # the download holds the outputs also where they came from the cache; a new title is listed
    text = (book.folder / "chapter/one.md").read_text(encoding="utf-8")
    book.write("chapter/one.md", text.replace("# One", "# Uno"))
    assert "Using cached notebook" in book.built()
    assert cells(book, "lop-seconds")[1][0] == "Uno"
    path = book.folder / "_build" / "jupyter_execute" / "chapter" / "one.ipynb"
    assert any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)

    # a chapter that goes takes its claims along
    (book.folder / "chapter/one.md").unlink()
    book.write("index.md", INDEX.replace("chapter/one\n", ""))
    book.built()
    assert "one.square" not in book.page("lists") and "No claim" in book.page("lists")


def test_a_failing_notebook_fails_every_time_and_says_why(book):
    book.write("chapter/one.md", HEADER.format("One") + CELL)
    for _ in range(2):
        warned, _ = book.build()
        assert "ZeroDivisionError" in warned and "division by zero" in warned


def test_what_the_cache_holds_is_shown_and_not_executed(book):
    book.write("chapter/one.md", HEADER.format("One") + CELL)
    book.cached("chapter/one", {"output_type": "stream", "text": "seen before\n"}, seconds=42.54)
    assert "Executing notebook" not in book.built()
    assert "seen before" in book.page("chapter/one")
    assert cells(book, "lop-seconds")[1:] == [["One", "42.5"], ["all of them", "42.5"]]


def test_a_notebook_that_nobody_timed_has_a_dash(book):
    book.write("chapter/one.md", HEADER.format("One") + CELL)
    book.cached("chapter/one", {"output_type": "stream", "text": "x"})
    book.built()
    assert cells(book, "lop-seconds")[1:] == [["One", "–"], ["all of them", "–"]]


def test_status_says_which_sets_of_images_were_run():
    of = {"a": "usps", "b": "imagenet", "c": ["mnist"], "d": "digits", "e": "usps"}
    records = [{"id": id, "values": {"data": data}} for id, data in of.items()]
    records.append({"id": "f", "values": {"of": "mnist"}})
    found = dict(lop_status.image_sets(records, ("digits", "mnist", "usps")))
    assert found == {"digits": "in every build", "mnist": "never run", "usps": "a, e"}


# --- Figures, and what is refused ----------------------------------------------------------

FIGURE = """```{{code-cell}}
---
mystnb:
  figure: {{name: {name}, caption: More.}}
  image: {{alt: {alt}}}
---
1
```
"""


def live(mime=widgets.LIVE_MIME):
    """Return what a cell with a live figure shows."""
    of = {"name": "law", "settings": {"d": 500}}
    data = {mime: of, widgets.VIEW_MIME: {"model_id": "x"}, "text/plain": "live"}
    return shown(data | {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"})


def test_a_live_figure_is_in_the_page_with_a_picture_in_its_stead(book):
    book.write("book/_figures/law.svg", widgets.still("law"))
    figures = FIGURE.format(name="fig-live", alt="A picture") * 2
    text = HEADER.format("One") + figures.replace("fig-live", "fig-other", 1)
    book.write("chapter/one.md", text)
    book.cached("chapter/one", live("application/x-unheard-of+json"), live())
    warned, _ = book.build()
    (line,) = re.findall("WARNING: (.*)", warned)
    assert line.startswith("skipping unknown output mime type: application/x-unheard-of+json")
    page = book.page("chapter/one")
    assert page.count('class="lop-live"') == 1 and re.search(r'img alt="A picture"[^>]*\.svg', page)
    assert 'data-lop-figure="law" data-lop-settings="{&quot;d&quot;: 500}"' in page
    assert f'<script src="../_static/live/{lop_live.SCRIPT}"></script>' in page
    assert " ".join(lop_live.module("law").split()) in " ".join(page.split())
    assert (book.html / "_static" / "live" / lop_live.SCRIPT).is_file()
    assert '<noscript><img src="../_static/live/law.svg" alt="A picture"></noscript>' in page
    assert (book.html / "_static" / "live" / "law.svg").is_file()
    assert page.count("More.") == 2 and "widget-state" not in page


DIAGRAM = """```{{figure}} ../_diagrams/{}.svg
:name: fig-drawn

A *small* one.
```
"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">
  <title>A chain</title>
  <desc>Of two.</desc>
  <text>v</text>
</svg>
"""


def test_a_diagram_is_in_the_page_and_an_image_in_the_notebook(book):
    book.write("_diagrams/chain.svg", SVG)
    book.write("chapter/one.md", HEADER.format("One") + DIAGRAM.format("chain"))
    book.built()
    page = book.page("chapter/one")
    labels = 'role="img" aria-labelledby="diagram-chain-title diagram-chain-desc"'
    assert f'<svg class="lop-diagram" {labels} xmlns' in page and "chain.svg" not in page
    assert '<title id="diagram-chain-title">' in page and '<desc id="diagram-chain-desc">' in page
    notebook = nbformat.read(book.folder / "_build/colab/chapter/one.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    (data,) = re.findall(r"!\[A chain\]\(data:image/svg\+xml;base64,(\S+)\)", text)
    assert text.endswith("A *small* one.")
    image = ElementTree.fromstring(base64.b64decode(data))  # an image must be well formed
    assert ".lop-diagram text" in image.find("{*}style").text
    book.write("_diagrams/chain.svg", SVG.replace("Of two", "Of three"))
    book.built()
    assert "Of three" in book.page("chapter/one")
    book.write("chapter/one.md", HEADER.format("One") + DIAGRAM.format("chian"))
    warned, _ = book.build()
    assert "image file not readable: _diagrams/chian.svg" in warned


def test_what_is_wrong_in_a_page_is_said_every_time(book):
    claim = "```{code-cell}\n:tags: [claim]\n1\n```\n"
    wrong = HEADER.format("One") + claim * 3 + FIGURE.format(name="fig-live", alt='""')
    book.write("chapter/one.md", wrong)
    claimed = shown({CLAIM_MIME: CLAIM, "text/plain": "so"})
    nothing = shown({"text/plain": "2"})
    book.cached("chapter/one", claimed, claimed, nothing, live())
    for _ in range(2):
        warned, _ = book.build()
        assert re.search(r"one\.md:\d+: WARNING: claim id 'one\.square' is taken already", warned)
        assert re.search(r"one\.md:\d+: WARNING: this cell is tagged 'claim'", warned)
        assert "live figure law: wanted image: alt:" in warned


# --- Docstrings ----------------------------------------------------------------------------

DOCUMENTED = '''"""A module, its `twice` and its `x`."""

from typing import NamedTuple

__all__ = ["Pair", "twice"]


class Pair(NamedTuple):
    """Two numbers."""

    left: int
    """Shape (k, d): ``left = what``."""
    right: int


def twice(x):
    """Return `x` twice, as `pairs.Pair`.

    Parameters
    ----------
    x : Tensor, shape (d, k)
        A number.
    """
'''


def test_docstrings_keep_their_fields_and_find_their_names(book, monkeypatch):
    book.write("lop_utils/pairs.py", DOCUMENTED)
    path = book.folder / "lop_utils" / "pairs.py"
    spec = importlib.util.spec_from_file_location("lop_utils.pairs", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    asked = "\n```{eval-rst}\n.. automodule:: lop_utils.pairs\n```\n"
    text = INDEX.replace("chapter/one\n", "") + asked
    book.write("index.md", text)
    book.built()
    page = re.sub("<[^>]+>", "", book.page("index"))
    assert "Shape (k, d): left = what." in page and "Alias for field" not in page
    assert 'href="#lop_utils.pairs.Pair"' in book.page("index")
