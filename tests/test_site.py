"""The address, the dates, the cards, the citations and the symbols, on small books."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lop_card
import lop_cite
import lop_symbols
import pytest
import yaml
from docutils import nodes
from lop_site import site_address
from pybtex.database import parse_string
from sphinx.errors import ConfigError, ExtensionError

ROOT = Path(__file__).resolve().parent.parent
# What _config.yml says to Sphinx of dates.
SETTINGS = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
CHOSEN = {
    name: value
    for name, value in SETTINGS.items()
    if name.startswith(("git_", "html_last_updated"))
}
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "_ext")!r})
extensions = ["myst_nb", "lop_book"]
source_suffix = {{".md": "myst-nb"}}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
mathjax_path = "mathjax.js"  # asked of a browser only
copyright = "2024"
html_theme = "sphinx_book_theme"
html_title = "A & B"
html_theme_options = {{
    "repository_url": "https://github.com/Some-One/a-book",
    "repository_branch": "main",
    "use_issues_button": True,
    "use_edit_page_button": True,
}}
globals().update({CHOSEN!r})
"""
CITATION = """cff-version: 1.2.0
version: 1.5.0
authors:
  - {family-names: "Lovelace", given-names: "Ada"}
  - {name: "The authors of A & B"}
"""
PAGE = """---
description: >-
  How the scale of a start decides what a network learns first, and how much
  of it.
---

# The scale $\\varepsilon$ & 100 % of it

| symbol | in code | meaning |
|---|---|---|
| $\\varepsilon$ | `eps` | scale |
| $W_{1:2}$ | | the *product* of $2r$ |
"""


def config(baseurl="", **options):
    return SimpleNamespace(html_baseurl=baseurl, html_theme_options=options)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://github.com/Some-One/a-book", "https://some-one.github.io/a-book/"),
        ("https://github.com/someone/a.book/", "https://someone.github.io/a.book/"),
        ("https://github.com/someone/someone.github.io", "https://someone.github.io/"),
    ],
)
def test_the_address_follows_from_the_repository(url, address):
    assert site_address(config(repository_url=url)) == address


@pytest.mark.parametrize("base", ["https://book.example.org", "https://book.example.org/"])
def test_an_address_of_its_own_comes_first(base):
    url = "https://gitlab.com/some/one"
    assert site_address(config(base, repository_url=url)) == "https://book.example.org/"


def test_a_book_without_a_repository_has_no_address():
    assert site_address(config()) == ""


@pytest.mark.parametrize(
    "url",
    ["", "github.com/a/b", "http://github.com/a/b", "https://github.com/a", "git@github.com:a/b"],
)
def test_what_is_no_repository_is_refused(url):
    with pytest.raises(ConfigError, match=re.escape(f"OWNER/NAME, got {url!r}")):
        site_address(config(repository_url=url))


def test_another_host_must_name_its_pages():
    with pytest.raises(ConfigError, match=r"is at gitlab.com, .*say it as html.baseurl"):
        site_address(config(repository_url="https://gitlab.com/a/b"))


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"got 'book\.example\.org'"):
        site_address(config("book.example.org"))


# --- Symbols and titles ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "spelt"),
    [
        (r"\rho", ["rho", "ρ"]),
        (r"\lambda", ["lambda", "λ"]),
        (r"\varepsilon", ["epsilon", "ε"]),
        (r"\Phi", ["Phi", "Φ"]),
        ("W_l", ["W_l", "W"]),
        (r"\Sigma_W", ["Sigma_W", "Σ_W", "Sigma", "Σ"]),
        (r"\mathrm{NC}_1", ["NC_1", "NC"]),
        (r"\hat r", []),  # not r
        (r"\widetilde W_l", []),
        ("U_{l,1}", []),
        ("W_{L:1}", []),
    ],
)
def test_a_formula_is_spelt_as_one_types(formula, spelt):
    assert lop_symbols.spellings(formula) == spelt


def test_the_names_of_a_row_are_those_of_its_symbols_and_its_code():
    found = lop_symbols.names([r"\theta,\ \delta", "U_{l,1},\\ V_{l,1}"], ["theta", "Ws[l - 1]"])
    assert found == ["theta", "θ", "delta", "δ", "Ws"]


def title_of(*parts):
    title = nodes.title()
    for kind, text in parts:
        title += nodes.math(text, text) if kind == "math" else nodes.Text(text)
    return title


def test_a_formula_is_one_word_of_a_title():
    title = title_of(("text", "The scale "), ("math", r"\frac{a}{b} c"), ("text", " costs 5$"))
    assert lop_card.words_of(title) == ["The", "scale", r"$\frac{a}{b} c$", "costs", r"5\$"]


def test_a_formula_that_cannot_be_drawn_stands_as_it_is():
    assert lop_card.formula(r"\nosuchthing") == r"\nosuchthing"


@pytest.fixture(scope="module")
def card():
    with lop_card.rc_context(lop_card.STYLE):
        yield lop_card.Card("A book", "https://example.org/book/", {})


def test_a_long_title_gets_smaller_letters(card):
    short, one = card.fit(["Short"], lop_card.TITLE, "bold")
    long, lines = card.fit(
        "How gradient descent learns one direction after another".split(), lop_card.TITLE
    )
    assert (len(one), short) == (1, lop_card.TITLE[0][0])
    assert len(lines) <= 3 and long < short
    assert all(card.width(line, long) <= lop_card.COLUMN for line in lines)


@pytest.mark.parametrize("title", ["word " * 60, "Donaudampfschifffahrtsgesellschaftskapitän"])
def test_a_title_without_room_is_refused(card, title):
    with pytest.raises(ExtensionError, match="no room on a social card for"):
        card.fit(title.split(), lop_card.TITLE, "bold")


WORK = lop_cite.Work(
    key="a-book-page",
    title=["The scale ", r"\varepsilon", r" & 100 % of #1_{\}"],
    book="A & B",
    authors=[{"family-names": "Lovelace", "given-names": "Ada"}, {"name": "The A&B"}],
    version="1.5",
    year="2026",
    changed="",
    address="https://example.org/page.html",
)


def test_bibtex_keeps_persons_and_escapes_what_tex_would_read():
    (entry,) = parse_string(lop_cite.bibtex(WORK), "bibtex").entries.values()
    person, group = entry.persons["author"]
    assert (person.last_names, person.first_names) == (["Lovelace"], ["Ada"])
    assert str(group) == r"{The A\&B}"
    assert entry.fields["title"].startswith(r"{The scale $\varepsilon$ \& 100 \% of \#1\_\{")
    assert "note" not in entry.fields


def test_words_keep_formulas_for_mathjax():
    words = lop_cite.plain(WORK)
    assert r'<span class="math notranslate nohighlight">\(\varepsilon\)</span> &amp; 100 %' in words
    assert words.startswith("Ada Lovelace, The A&amp;B: “The scale ")


def test_scholar_hears_each_author_with_the_last_name_first():
    tags = lop_cite.scholar(WORK)
    assert 'citation_author" content="Lovelace, Ada"' in tags
    assert 'citation_author" content="The A&amp;B"' in tags
    assert 'citation_publication_date" content="2026"' in tags


# --- Dates, with and without git ---------------------------------------------------------


class Book:
    """A book of two pages in a folder: build it, look at the pages."""

    def __init__(self, folder):
        self.folder = folder
        self.write("conf.py", CONF)
        self.write("CITATION.cff", CITATION)
        self.write("constraints.txt", "")
        self.write(".gitignore", "_build\n")
        self.write("index.md", "# Index\n\n```{toctree}\npage\n```\n")
        self.write("page.md", PAGE)

    def write(self, name, text):
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def git(self, *arguments, date="2025-03-01T12:00:00Z"):
        names = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(
            ["git", *names, *arguments],
            cwd=self.folder,
            env={**os.environ, **dates, **settings},
            capture_output=True,
            check=True,
        )

    def commit(self, date):
        self.git("add", "-A", date=date)
        self.git("commit", "-qm", "x", date=date)

    def build(self, **environment):
        """Build as strictly as `make book`; return the page."""
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-nW", "--keep-going", "-q"]
        done = subprocess.run(
            [*command, ".", "_build/html"],
            cwd=self.folder,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(self.folder.parent), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return (self.folder / "_build/html/page.html").read_text(encoding="utf-8")


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path / "book")


def dates(page):
    """Return every place where a page says when it was changed."""
    return re.findall(r"Last updated on (\S+)\.", page) + re.findall(
        r"modified_time\" content=\"(.{10})|[Ll]ast changed (.{10})", page
    )


def test_the_date_is_that_of_the_last_commit(book):
    book.git("init", "-q")
    book.commit("2025-03-01T12:00:00Z")
    page = book.build()
    assert page.count("2025-03-01") >= 4  # footer, head, and both citations
    assert "Last updated on 2025-03-01." in page and "year = {2025}" in page
    # an edit is not dated before it is committed, and then without the page being read again
    book.write("page.md", PAGE + "\nMore.\n")
    assert "Last updated on 2025-03-01." in book.build()
    book.commit("2025-04-02T12:00:00Z")
    page = book.build()
    assert "2025-03-01" not in page and "Last updated on 2025-04-02." in page
    sitemap = (book.folder / "_build/html/sitemap.xml").read_text(encoding="utf-8")
    assert re.findall(r"a-book/(\w+)\.html</loc>\s*<lastmod>([\d-]+)", sitemap) == [
        ("index", "2025-03-01"),
        ("page", "2025-04-02"),
    ]


def without_dates(page):
    return dates(page) == [] and "year = {2024}" in page and "Edit this page" in page


def test_an_archive_without_git_has_no_dates_and_builds(book):
    page = book.build()
    assert without_dates(page)
    assert "page.md" in page  # still to be downloaded
    assert "lastmod" not in (book.folder / "_build/html/sitemap.xml").read_text(encoding="utf-8")


def test_a_machine_without_git_has_no_dates_and_builds(book, tmp_path):
    nothing = tmp_path / "bin"
    nothing.mkdir()
    assert without_dates(book.build(PATH=str(nothing)))


def test_a_clone_without_history_has_no_dates_and_builds(book, tmp_path):
    book.git("init", "-q")
    book.commit("2025-03-01T12:00:00Z")
    book.write("page.md", PAGE + "\nMore.\n")
    book.commit("2025-04-02T12:00:00Z")
    book.git("clone", "-q", "--depth=1", f"file://{book.folder}", str(tmp_path / "shallow"))
    shallow = Book.__new__(Book)
    shallow.folder = tmp_path / "shallow"
    assert without_dates(shallow.build())


def test_what_is_derived_stands_in_every_page(book):
    page = book.build()
    assert '<link rel="canonical" href="https://some-one.github.io/a-book/page.html" />' in page
    sentence = "How the scale of a start decides what a network learns first, and how much of it."
    assert f'<meta name="description" content="{sentence}" />' in page
    assert 'og:site_name" content="A & B"' in page or 'og:site_name" content="A &amp; B"' in page
    assert re.search(
        r'og:image" content="https://some-one.github.io/a-book/_images/cards/page', page
    )
    cards = list((book.folder / "_build/html/_images/cards").iterdir())
    assert len(cards) == 1  # the index has no sentence, and so no card
    before = cards[0].stat().st_mtime_ns
    book.write("index.md", "# Index\n\nMore.\n\n```{toctree}\npage\n```\n")
    book.build()
    assert cards[0].stat().st_mtime_ns == before  # drawn once
    book.write("page.md", PAGE.replace("first", "last"))
    book.build()
    (other,) = (book.folder / "_build/html/_images/cards").iterdir()
    assert other != cards[0]


def test_a_symbol_is_an_entry_of_the_index(book):
    page = book.build()
    assert '<tr class="row-even" id="symbol-epsilon">' in page
    index = (book.folder / "_build/html/searchindex.js").read_text(encoding="utf-8")
    entries = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))["indexentries"]
    anchors = {name: anchor for name, [[_, anchor, main]] in entries.items() if main}
    assert anchors == {
        **dict.fromkeys(["ε", "epsilon", "eps"], "symbol-epsilon"),
        **dict.fromkeys(["2r", "product"], "symbol-2r"),
    }


def test_entries_are_kept_when_another_page_is_written(book):
    def entries():
        book.build()
        index = (book.folder / "_build/html/searchindex.js").read_text(encoding="utf-8")
        return json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))["indexentries"]

    before = entries()
    for text in ("More.", "More again."):
        book.write("index.md", (book.folder / "index.md").read_text() + f"\n{text}\n")
        assert {name: len(places) for name, places in entries().items()} == {
            name: len(places) for name, places in before.items()
        }
    assert "ε" in before


def test_the_sitemap_is_whole_when_one_page_is_written(book):
    book.build()
    book.write("page.md", PAGE + "\nMore.\n")
    book.build()
    sitemap = (book.folder / "_build/html/sitemap.xml").read_text(encoding="utf-8")
    assert sitemap.count("<loc>") == 2


def test_a_wrong_repository_stops_the_build(book):
    book.write("conf.py", CONF.replace("https://github.com", "ssh://github.com"))
    shutil.rmtree(book.folder / "_build", ignore_errors=True)
    with pytest.raises(AssertionError, match="/OWNER/NAME, got 'ssh:"):
        book.build()


def test_a_chapter_that_is_saved_as_a_notebook_keeps_its_sentence(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # where jupytext is told so
    shutil.copy(ROOT / "book/parsimony/law.md", tmp_path / "there.md")
    jupytext = [sys.executable, "-m", "jupytext", "--quiet"]
    for step in (
        ["--to", "ipynb", "there.md"],
        ["--to", "md:myst", "there.ipynb", "-o", "back.md"],
    ):
        subprocess.run([*jupytext, *step], cwd=tmp_path, check=True)
    there, back = ((tmp_path / f"{name}.md").read_text("utf-8") for name in ("there", "back"))
    heads = [yaml.safe_load(text.split("\n---\n")[0]) for text in (there, back)]
    assert heads[0]["description"] == heads[1]["description"]
