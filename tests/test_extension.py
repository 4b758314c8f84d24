"""The local Sphinx extension and the notebooks' way into the cache, on a book of two pages.

The pages are real: a kernel runs them. Each test builds in a folder of its own.
"""

import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pytest
from lop_claims import CLAIM_MIME

from lop_utils import widgets

ROOT = Path(__file__).resolve().parent.parent

HEADER = """---
jupytext:
  text_representation: {{format_name: myst}}
kernelspec: {{name: python3, display_name: Python 3}}
---

# {title}

"""
CLAIM = """```{{code-cell}}
:tags: [claim]

from IPython.display import display
import sys; sys.path.insert(0, "..")
from lop_utils import VALUE
record = {{"id": "{id}", "statement": "it is $x^2$", "measured": VALUE,
          "bounds": {{"at_most": 9.0}}, "source": "arithmetic", "shown": f"{{VALUE}} ≤ 9"}}
display({{"application/vnd.lop.claim+json": record, "text/markdown": "it is $x^2$"}}, raw=True)
```
"""
CLAIMED = {
    "id": "one.square",
    "statement": "so",
    "measured": 1.0,
    "bounds": {"at_most": 2.0},
    "source": "x",
    "shown": "1 ≤ 2",
}
CONF = """
import sys
sys.path.insert(0, {extension!r})
extensions = ["myst_nb", "sphinx.ext.mathjax", "lop_book"]
source_suffix = {{".md": "myst-nb"}}
exclude_patterns = ["_build", "build"]
nb_execution_mode = "cache"
nb_execution_show_tb = True
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["mystnb.unknown_mime_type"]
"""


class Book:
    """A book in a folder: write its pages, build it, look at the pages."""

    def __init__(self, folder):
        self.folder = folder
        files = {
            "conf.py": CONF.format(extension=str(ROOT / "_ext")),
            "constraints.txt": "",
            "lop_utils/__init__.py": "VALUE = 4.0\n",
            "_toc.yml": "format: jb-book\nroot: index\nchapters:\n- file: chapter/one\n",
            "index.md": "# Index\n\n```{toctree}\nchapter/one\n```\n\n```{claims}\n```\n",
            "chapter/one.md": HEADER.format(title="One") + CLAIM.format(id="one.square"),
        }
        for name, text in files.items():
            self.write(name, text)

    def write(self, name, text):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def build(self):
        """Build; return the exit code and what was printed."""
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "--no-color"]
        done = subprocess.run(
            [*command, ".", "_build/html"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def page(self, name):
        return (self.folder / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


def test_claims_are_collected_and_follow_the_library(book):
    code, log = book.build()
    assert code == 0, log
    table = book.page("index")
    for part in ("one.square", r"\(x^2\)", ">4<", "≤ 9", "arithmetic", "one.html#claim-one-square"):
        assert part in table
    assert 'id="claim-one-square"' in book.page("chapter/one")
    assert r'<span class="math notranslate nohighlight">\(x^2\)</span>' in book.page("chapter/one")
    assert "MathJax" in table or "mathjax" in table

    # nothing changed: nothing runs and nothing is written
    code, log = book.build()
    assert code == 0, log
    assert "no targets are out of date" in log

    # the library changed: the page is executed again and the table, elsewhere, is written again
    book.write("lop_utils/__init__.py", "VALUE = 5.0\n")
    code, log = book.build()
    assert code == 0, log
    assert "Executed notebook" in log
    assert ">5<" in book.page("index")
    assert ">4<" not in book.page("index")
    assert len(list((book.folder / "_build" / ".jupyter_cache").iterdir())) == 1

    # the download holds the outputs also where they came from the cache
    book.write("chapter/one.md", (book.folder / "chapter/one.md").read_text() + "\nMore prose.\n")
    code, log = book.build()
    assert "Using cached notebook" in log
    path = book.folder / "_build" / "jupyter_execute" / "chapter" / "one.ipynb"
    assert any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)

    # a chapter that goes takes its claims along
    shutil.rmtree(book.folder / "chapter")
    book.write("index.md", "# Index\n\n```{claims}\n```\n")
    code, log = book.build()
    assert code == 0, log
    assert "one.square" not in book.page("index")
    assert "No claim" in book.page("index")


def test_an_id_used_twice_fails_every_time(book):
    book.write("chapter/two.md", HEADER.format(title="Two") + CLAIM.format(id="one.square"))
    book.write("index.md", "# Index\n\n```{toctree}\nchapter/one\nchapter/two\n```\n")
    for _ in range(2):
        code, log = book.build()
        assert code != 0
        assert re.search(r"two\.md:\d+: WARNING: claim id 'one\.square' is taken already", log)


def test_a_claim_cell_without_a_claim_is_found(book):
    empty = "```{code-cell}\n:tags: [claim]\n\n1 + 1\n```\n"
    book.write("chapter/one.md", HEADER.format(title="One") + empty)
    code, log = book.build()
    assert code != 0
    assert re.search(r"one\.md:\d+: WARNING: this cell is tagged 'claim'", log)


def test_a_failing_notebook_fails_every_time_and_says_why(book):
    book.write("chapter/one.md", HEADER.format(title="One") + "```{code-cell}\n1 / 0\n```\n")
    for _ in range(2):
        code, log = book.build()
        assert code != 0
        assert "ZeroDivisionError" in log
        assert "division by zero" in log


def execute(path):
    """Stand in for nbmake: give each code cell an output."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
            cell.outputs = [nbformat.v4.new_output("stream", text="seen by nbmake\n")]
            cell.metadata["execution"] = {"shell.execute_reply": "2026-01-01T00:00:00Z"}
    nbformat.write(notebook, path)


def test_what_was_executed_is_shown_and_not_executed_again(book):
    book.write("chapter/one.md", HEADER.format(title="One") + "```{code-cell}\n1 / 0\n```\n")
    assert notebooks.write(book.folder) == ["chapter/one"]
    assert notebooks.store(book.folder) == []  # not executed yet
    execute(book.folder / "build" / "nb" / "chapter" / "one.ipynb")
    assert notebooks.store(book.folder) == ["chapter/one"]
    code, log = book.build()
    assert code == 0, log
    assert "Executing notebook" not in log
    assert "seen by nbmake" in book.page("chapter/one")


def test_what_has_changed_since_it_was_executed_is_not_stored(book):
    notebooks.write(book.folder)
    execute(book.folder / "build" / "nb" / "chapter" / "one.ipynb")
    book.write("lop_utils/__init__.py", "VALUE = 6.0\n")
    assert notebooks.store(book.folder) == []
    notebooks.write(book.folder)
    execute(book.folder / "build" / "nb" / "chapter" / "one.ipynb")
    book.write("chapter/one.md", HEADER.format(title="One") + "```{code-cell}\n2\n```\n")
    assert notebooks.store(book.folder) == []


STATUS = "# Index\n\n```{toctree}\nchapter/one\n```\n\n```{status}\n```\n"
RECORD = {"id": "wide", "seed": 3, "commit": "abc", "device": "a card", "seconds": 7.5}


def seconds_shown(book):
    """Return the seconds on the page with the tables, by title."""
    table = re.search(r"<table[^>]*lop-seconds.*?</table>", book.page("index"), flags=re.S)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table.group(), flags=re.S)
    cells = [re.findall(r"<p>(.*?)</p>", row, flags=re.S) for row in rows]
    texts = [[re.sub("<[^>]+>", "", cell) for cell in row] for row in cells]
    return {row[0]: row[1] for row in texts if len(row) == 2 and re.fullmatch(r"[\d.]+|–", row[1])}


def test_status_shows_seconds_versions_and_records(book):
    book.write("index.md", STATUS)
    record = {**RECORD, "torch": "2.0", "values": {"secret": 1}}
    book.write("book/_recorded/wide.json", json.dumps(record))
    book.write("book/_recorded/bench-x.json", json.dumps({**record, "id": "bench-x"}))
    code, log = book.build()
    assert code == 0, log
    shown = seconds_shown(book)
    assert float(shown["One"]) > 0
    assert shown["all of them"] == shown["One"]
    page = book.page("index")
    for part in (platform.python_version(), importlib.metadata.version("torch"), "jupyter-book"):
        assert part in page
    assert "scale (LOP_SCALE)" in page
    for part in ("wide", "abc", "a card", "7.5"):
        assert f"<p>{part}</p>" in page
    assert "secret" not in page and "bench-x" not in page  # benchmarks have a page of their own

    # nothing changed: the page is not written again
    code, log = book.build()
    assert code == 0, log
    assert "no targets are out of date" in log
    assert seconds_shown(book) == shown

    # another chapter was executed: the page, itself unchanged, is written again
    book.write("chapter/one.md", HEADER.format(title="Uno") + "```{code-cell}\n1 + 1\n```\n")
    code, log = book.build()
    assert code == 0, log
    assert seconds_shown(book).keys() == {"Uno", "all of them"}

    # a new record
    book.write("book/_recorded/deep.json", json.dumps({**record, "id": "deep"}))
    code, log = book.build()
    assert code == 0, log
    assert "<p>deep</p>" in book.page("index")


def image_sets_shown(book):
    """Return what the last table says of each set."""
    table = re.search(r"<table[^>]*lop-images.*?</table>", book.page("index"), flags=re.S)
    return dict(re.findall(r"<td><p>(.*?)</p></td>\s*<td><p>(.*?)</p></td>", table.group(), re.S))


def test_status_shows_which_sets_of_images_were_run(book):
    book.write("index.md", STATUS)
    book.write("lop_utils/images.py", 'NAMES = ("digits", "mnist", "usps", "cifar10")\n')
    values = {
        "wide": {"data": "usps"},
        "bench-x": {"data": "mnist"},  # no result
        "a": {"data": "imagenet"},  # not of the loader
        "b": {"data": ["mnist"]},
        "c": {"of": "mnist"},
        "d": {"data": "digits"},
    }
    for id, found in values.items():
        record = {**RECORD, "id": id, "torch": "2.0", "values": found}
        book.write(f"book/_recorded/{id}.json", json.dumps(record))
    code, log = book.build()
    assert code == 0, log
    never = "never run"
    shown = {"digits": "in every build", "mnist": never, "usps": "wide", "cifar10": never}
    assert image_sets_shown(book) == shown

    # a record, otherwise the same, is of another set: the page is written again
    record = {**RECORD, "id": "c", "torch": "2.0", "values": {"data": "usps"}}
    book.write("book/_recorded/c.json", json.dumps(record))
    code, log = book.build()
    assert code == 0, log
    assert image_sets_shown(book) == shown | {"usps": "c, wide"}


def test_status_shows_the_seconds_of_nbmake(book):
    book.write("index.md", STATUS)
    notebooks.write(book.folder)
    path = book.folder / "build" / "nb" / "chapter" / "one.ipynb"
    execute(path)
    notebook = nbformat.read(path, as_version=4)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code_cells:
        cell.outputs = [
            nbformat.v4.new_output("display_data", data={CLAIM_MIME: CLAIMED, "text/plain": "so"})
        ]
        cell.metadata["execution"] = {
            "iopub.execute_input": "2026-01-01T00:00:01.250000Z",
            "shell.execute_reply": "2026-01-01T00:00:43.750000Z",
        }
    nbformat.write(notebook, path)
    assert notebooks.store(book.folder) == ["chapter/one"]
    code, log = book.build()
    assert code == 0, log
    assert "Executing notebook" not in log
    assert seconds_shown(book) == {"One": "42.5", "all of them": "42.5"}


def test_a_notebook_that_nobody_timed_has_a_dash(book):
    book.write("index.md", STATUS)
    book.write("chapter/one.md", HEADER.format(title="One") + "```{code-cell}\n1\n```\n")
    notebooks.write(book.folder)
    path = book.folder / "build" / "nb" / "chapter" / "one.ipynb"
    execute(path)
    path.write_text(path.read_text().replace("shell.execute_reply", "something.else"))
    assert notebooks.store(book.folder) == ["chapter/one"]
    code, log = book.build()
    assert code == 0, log
    assert seconds_shown(book) == {"One": "–", "all of them": "–"}


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


def test_docstrings_keep_their_fields_and_find_their_names(book):
    options = 'autodoc_default_options = {"members": True, "undoc-members": True}\n'
    options += "nitpicky = True\nnapoleon_use_param = False\n"
    rest = 'default_role = "py:obj"\nautodoc_typehints = "none"\n'
    conf = (book.folder / "conf.py").read_text() + 'sys.path.insert(0, ".")\n'
    book.write("conf.py", conf + options + rest)
    book.write("lop_utils/pairs.py", DOCUMENTED)
    again = 'from lop_utils.pairs import twice\n__all__ = ["twice"]\n'
    book.write("lop_utils/again.py", f'"""Pass it on."""\n{again}')
    module = "```{{eval-rst}}\n.. automodule:: lop_utils.{}\n```\n"
    book.write("index.md", "# Index\n\n" + module.format("pairs") + module.format("again"))
    shutil.rmtree(book.folder / "chapter")
    code, log = book.build()
    assert code == 0, log
    page = re.sub("<[^>]+>", "", book.page("index"))
    assert "Shape (k, d): left = what." in page
    assert "Alias for field" not in page
    assert "The same as lop_utils.pairs.twice" in page
    assert 'href="#lop_utils.pairs.Pair"' in book.page("index")


LIVE = """```{{code-cell}}
---
mystnb:
  figure: {{name: fig-live, caption: More.}}
  image: {{alt: {alt}}}
---
from IPython.display import display
import ipywidgets
slider = ipywidgets.IntSlider()
display({{"application/vnd.jupyter.widget-view+json": {{"model_id": slider.model_id}},
         "text/plain": "live", "image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>",
         {mime!r}: {{"name": {name!r}, "settings": {{"d": 500}}}}}}, raw=True)
```
"""


def with_live(book, name="law", alt="A picture", mime=widgets.LIVE_MIME):
    book.write("book/_figures/law.svg", widgets.still("law"))
    cell = LIVE.format(name=name, alt=alt, mime=mime)
    book.write("chapter/one.md", HEADER.format(title="One") + cell)


def test_a_live_figure_is_in_the_page_with_a_picture_in_its_stead(book):
    with_live(book)
    status, log = book.build()
    assert status == 0, log
    page = book.page("chapter/one")
    assert 'data-lop-figure="law" data-lop-settings="{&quot;d&quot;: 500}"' in page
    assert " ".join(widgets.module("law").split()) in " ".join(page.split())
    assert '<noscript><img src="../_static/live/law.svg" alt="A picture"></noscript>' in page
    assert (book.folder / "_build" / "html" / "_static" / "live" / "law.svg").is_file()
    assert "More." in page[page.index("<figcaption") :]
    assert "widget-state" not in page and "jupyter-widgets" not in page


def test_of_another_widget_the_page_has_the_picture(book):
    with_live(book, mime="application/x-unheard-of+json")
    status, log = book.build()
    assert status == 0, log
    page = book.page("chapter/one")
    assert 'alt="A picture"' in page and ".svg" in page
    assert "widget-state" not in page and "lop-live" not in page


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"name": "nothing"}, "name: wanted one of "),
        ({"alt": '""'}, "live figure law: wanted image: alt:"),
    ],
)
def test_a_live_figure_that_cannot_be(book, change, wanted):
    with_live(book, **change)
    status, log = book.build()
    assert status
    assert wanted in log
