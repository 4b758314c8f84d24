"""The address, the dates, the cards, the citations and the symbols, on small books."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import lop_cite
import lop_symbols
import pytest
import yaml
from lop_site import site_address
from pybtex.database import parse_string
from small_book import CONF, ROOT, Book
from sphinx.errors import ConfigError

CITATION = """cff-version: 1.2.0
version: 1.5.0
authors:
  - {family-names: "Lovelace", given-names: "Ada"}
  - {name: "The authors of A & B"}
"""
INDEX = "# Index\n\n```{toctree}\npage\n```\n"
PAGE = """---
description: >-
  How the scale of a start decides what a network learns first, and how much
  of it.
---

# The scale & 100 % of it

| symbol | in code | meaning |
|---|---|---|
| $\\varepsilon$ | `eps` | scale |
| $W_{1:2}$ | | the *product* of $2r$ |
"""
SENTENCE = "How the scale of a start decides what a network learns first, and how much of it."


def config(baseurl="", **options):
    return SimpleNamespace(html_baseurl=baseurl, html_theme_options=options)


@pytest.mark.parametrize(
    ("base", "url", "address"),
    [
        ("", "https://github.com/Some-One/a-book", "https://some-one.github.io/a-book/"),
        ("", "https://github.com/someone/a.book/", "https://someone.github.io/a.book/"),
        ("", "https://github.com/someone/someone.github.io", "https://someone.github.io/"),
        ("https://book.example.org", "https://gitlab.com/some/one", "https://book.example.org/"),
        ("https://book.example.org/", None, "https://book.example.org/"),
        ("", None, ""),
    ],
)
def test_the_address_follows_from_the_repository_unless_it_is_said(base, url, address):
    assert site_address(config(base, repository_url=url)) == address


@pytest.mark.parametrize(
    ("base", "url", "message"),
    [
        ("", "", "OWNER/NAME, got ''"),
        ("", "github.com/a/b", "OWNER/NAME, got 'github.com/a/b'"),
        ("", "http://github.com/a/b", "OWNER/NAME, got 'http://github.com/a/b'"),
        ("", "https://github.com/a", "OWNER/NAME, got 'https://github.com/a'"),
        ("", "git@github.com:a/b", "OWNER/NAME, got 'git@github.com:a/b'"),
        ("", "https://gitlab.com/a/b", "is at gitlab.com, .*say it as html.baseurl"),
        ("book.example.org", None, "got 'book.example.org'"),
    ],
)
def test_an_address_that_is_none_is_refused(base, url, message):
    with pytest.raises(ConfigError, match=message):
        site_address(config(base, repository_url=url))


@pytest.mark.parametrize(
    ("symbols", "code", "names"),
    [
        ([r"\rho"], ["rho"], ["rho", "ρ"]),
        ([r"\lambda"], ["lam"], ["lambda", "λ", "lam"]),
        ([r"\varepsilon"], ["eps"], ["epsilon", "ε", "eps"]),
        ([r"\Phi"], [], ["Phi", "Φ"]),
        (["W_l"], ["Ws[l - 1]"], ["W_l", "W", "Ws"]),
        ([r"\Sigma_W"], [], ["Sigma_W", "Σ_W", "Sigma", "Σ"]),
        ([r"\mathrm{NC}_1"], [], ["NC_1", "NC"]),
        ([r"\theta,\ \delta"], ["theta"], ["theta", "θ", "delta", "δ"]),
        ([r"\hat r", r"\widetilde W_l", r"U_{l,1},\ V_{l,1}", "W_{L:1}"], [], []),  # not r, not W
    ],
)
def test_a_symbol_is_found_as_one_types_it(symbols, code, names):
    assert lop_symbols.names(symbols, code) == names


WORK = {
    "key": "a-book-page",
    "title": "The scale & 100 % of #1_",
    "book": "A & B",
    "authors": [{"family-names": "Lovelace", "given-names": "Ada"}, {"name": "The A&B, Ltd"}],
    "version": "1.5",
    "year": "2026",
    "changed": "",
    "address": "https://example.org/page.html",
}


def test_a_citation_keeps_persons_and_escapes_what_tex_and_html_would_read():
    (entry,) = parse_string(lop_cite.bibtex(WORK), "bibtex").entries.values()
    person, group = entry.persons["author"]
    assert (person.last_names, person.first_names) == (["Lovelace"], ["Ada"])
    assert str(group) == r"{The A\&B, Ltd}" and "note" not in entry.fields
    assert entry.fields["title"] == r"{The scale \& 100 \% of \#1\_}"
    words = lop_cite.plain(WORK)
    assert words.startswith("Ada Lovelace, The A&amp;B, Ltd: “The scale &amp; 100 %")
    tags = lop_cite.scholar(WORK)
    assert 'citation_author" content="Lovelace, Ada"' in tags
    assert 'citation_author" content="The A&amp;B, Ltd"' in tags
    assert 'citation_publication_date" content="2026"' in tags


# --- Pages, with and without git -----------------------------------------------------------


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    book = Book(tmp_path / "book", index=INDEX, page=PAGE)
    book.write("CITATION.cff", CITATION)
    return book


def entries(book):
    """Return the names that the search knows, and the places of each."""
    text = (book.html / "searchindex.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))["indexentries"]


def dated(book):
    """Return what the sitemap says of each page."""
    sitemap = (book.html / "sitemap.xml").read_text(encoding="utf-8")
    found = re.findall(r"a-book/(\w+)\.html</loc>(?:<lastmod>([\d-]+))?", sitemap)
    assert sitemap.count("<loc>") == len(found)
    return dict(found)


def test_what_is_derived_stands_in_every_page(book):
    book.git("init", "-q")
    book.commit("2025-03-01T12:00:00Z")
    book.built()
    page = book.page("page")
    assert '<link rel="canonical" href="https://some-one.github.io/a-book/page.html" />' in page
    assert f'<meta name="description" content="{SENTENCE}" />' in page
    assert f'og:description" content="{SENTENCE}" />' in page
    assert re.search('og:site_name" content="A &(amp;)? B"', page)
    assert re.search('og:title" content="The scale &(amp;)? 100 % of it"', page)
    (card,) = (book.html / "_images" / "social_previews").iterdir()  # the index has no sentence
    address = f"https://some-one.github.io/a-book/_images/social_previews/{card.name}"
    assert f'og:image" content="{address}"' in page
    assert "og:" not in book.page("index")

    # the date: footer, head, and both citations
    assert "Last updated on 2025-03-01." in page and "year = {2025}" in page
    assert 'modified_time" content="2025-03-01' in page
    assert len(re.findall("[Ll]ast changed 2025-03-01", page)) == 2
    assert dated(book) == {"index": "2025-03-01", "page": "2025-03-01"}

    assert '<tr class="row-even" id="symbol-epsilon">' in page
    before = entries(book)
    assert {name: anchor for name, [[_, anchor, main]] in before.items() if main} == {
        **dict.fromkeys(["ε", "epsilon", "eps"], "symbol-epsilon"),
        **dict.fromkeys(["2r", "product"], "symbol-2r"),
    }

    # one page is written: the sitemap and the search keep the other
    book.write("index.md", INDEX + "\nMore.\n")
    assert re.findall(r"writing output\.\.\. \[.*\] (\w+)", book.built()) == ["index"]
    assert {name: len(places) for name, places in entries(book).items()} == {
        name: len(places) for name, places in before.items()
    }
    assert dated(book) == {"index": "2025-03-01", "page": "2025-03-01"}

    # committed, it has another date without being read again
    book.commit("2025-04-02T12:00:00Z")
    book.built()
    assert "Last updated on 2025-04-02." in book.page("index")
    assert dated(book) == {"index": "2025-04-02", "page": "2025-03-01"}


@pytest.mark.parametrize("place", ["archive", "machine", "clone"])
def test_where_git_knows_nothing_a_page_has_no_date_and_builds(book, place, tmp_path, monkeypatch):
    if place == "machine":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    if place == "clone":  # one without history
        book.git("init", "-q")
        book.commit("2025-03-01T12:00:00Z")
        book.write("page.md", PAGE + "\nMore.\n")
        book.commit("2025-04-02T12:00:00Z")
        book.git("clone", "-q", "--depth=1", f"file://{book.folder}", str(tmp_path / "clone"))
        book.folder = tmp_path / "clone"
        book.html = book.folder / "_build" / "html"
    book.built()
    page = book.page("page")
    assert not re.search("Last updated|modified_time|[Ll]ast changed", page)
    assert "year = {2024}" in page and "Edit this page" in page
    assert "_sources/page.md" in page  # still to be downloaded
    assert dated(book) == {"index": "", "page": ""}


def test_a_wrong_repository_stops_the_build(book):
    book.write("conf.py", CONF.replace("https://github.com", "ssh://github.com"))
    with pytest.raises(ConfigError, match="/OWNER/NAME, got 'ssh:"):
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
