"""The files of the built pages: links, images, weight, and nothing from another machine."""

import re

import page_rules as rules
import pytest
from page_rules import PAGES


@pytest.mark.parametrize("page", [*PAGES, "index.html", "genindex.html", "search.html"])
def test_a_page_is_whole_and_light(html, page):
    path = html / page
    assert rules.dead_links(path, html) == []
    assert page not in PAGES or rules.images_without_alt(path) == []
    assert rules.drawings(path) == []
    assert rules.launchers(path) == []
    assert rules.weight(path, html) <= rules.WEIGHT


def test_every_diagram_is_on_a_page_in_the_colours_of_the_live_figures(html):
    drawn = {
        svg.title["id"].removeprefix("diagram-").removesuffix("-title")
        for page in PAGES
        for svg in rules.soup(html / page).select("svg.lop-diagram")
    }
    assert drawn == {path.stem for path in (rules.ROOT / "book/_diagrams").glob("*.svg")}
    style = (rules.ROOT / "book/_static/lop.css").read_text(encoding="utf-8")
    live = (rules.ROOT / "book/_figures/kit.js").read_text(encoding="utf-8")
    for name in ("rises", "falls", "rest"):
        colours = re.findall(rf"--lop-{name}: (#\w+)", style)
        assert len(colours) == 2 and colours == re.findall(rf"--lop-live-{name}: (#\w+)", live)


def test_nothing_is_loaded_from_another_machine(html):
    pages = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    found = {str(path): rules.remote_loads(path) for path in pages}
    for path in html.rglob("*.css"):
        found[str(path)] = rules.remote_in_css(path.read_text(encoding="utf-8"))
    assert {path: loads for path, loads in found.items() if loads} == {}


def test_code_without_a_colour_of_its_own_bears_no_mark(html):
    sheet = (html / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        start = rf'data-theme="{theme}"\] \.highlight'
        (page,) = re.findall(start + r" \{[^}]*\bcolor: (#\w+)", sheet)
        for kind in ("n", "nn", "p", "w"):  # what _ext/lop_pages.py takes the marks off
            assert re.findall(start + rf" \.{kind} \{{ color: (#\w+) ", sheet) == [page]
    code = rules.soup(html / "book" / "parsimony" / "law.html").select(
        "div.highlight-ipython3 span"
    )
    kinds = {kind for span in code for kind in span.get("class", [])}
    assert kinds >= {"kn", "nf", "s2"} and not kinds & {"n", "nn", "p", "w"}
