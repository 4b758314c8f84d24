"""The files of the built pages: links, images, weight, and nothing from another machine."""

import re

import page_rules as rules
import pytest
from page_rules import PAGES


@pytest.mark.parametrize("page", [*PAGES, "index.html", "genindex.html", "search.html"])
def test_internal_links_resolve(html, page):
    assert rules.dead_links(html / page, html) == []


@pytest.mark.parametrize("page", PAGES)
def test_images_have_alt_text(html, page):
    assert rules.images_without_alt(html / page) == []


@pytest.mark.parametrize("page", PAGES)
def test_page_is_light(html, page):
    assert rules.weight(html / page, html) <= rules.WEIGHT


@pytest.mark.parametrize("page", PAGES)
def test_no_page_runs_itself_elsewhere(html, page):
    assert rules.launchers(html / page) == []


def test_no_page_loads_from_another_machine(html):
    pages = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    assert {str(page): found for page in pages if (found := rules.remote_loads(page))} == {}


def test_no_style_sheet_loads_from_another_machine(html):
    sheets = {path: path.read_text(encoding="utf-8") for path in html.rglob("*.css")}
    assert {
        str(path): found for path, text in sheets.items() if (found := rules.remote_in_css(text))
    } == {}


def test_code_without_a_colour_of_its_own_bears_no_mark(html):
    sheet = (html / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        start = rf'data-theme="{theme}"\] \.highlight'
        (page,) = re.findall(start + r" \{[^}]*\bcolor: (#\w+)", sheet)
        for kind in ("n", "nn", "p", "w"):  # what _ext/lop_book.py takes the marks off
            assert re.findall(start + rf" \.{kind} \{{ color: (#\w+) ", sheet) == [page]
    code = rules.soup(html / "book" / "parsimony" / "law.html").select(
        "div.highlight-ipython3 span"
    )
    kinds = {kind for span in code for kind in span.get("class", [])}
    assert kinds >= {"kn", "nf", "s2"} and not kinds & {"n", "nn", "p", "w"}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_carries_the_padding_of_its_templates(html, page):
    parts = re.split(r"(<pre\b.*?</pre>)", (html / page).read_text(encoding="utf-8"), flags=re.S)
    assert not re.search(r"\n\s|<!--", "".join(parts[::2]))


def test_code_keeps_its_indentation_and_its_blank_lines(html):
    code = [pre.get_text() for pre in rules.soup(html / "book" / "parsimony" / "law.html")("pre")]
    assert any("\n    " in text for text in code) and any("\n\n" in text for text in code)
