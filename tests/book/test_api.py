"""The API pages hold every public name of the package, each with its documentation."""

import re
from importlib import import_module
from inspect import isclass, isroutine

import pytest
from page_rules import ROOT, soup

FOLDERS = {"": ROOT / "lop_utils", "book.": ROOT / "lop_utils" / "book"}
LIBRARY, BOOK = (
    [f"{prefix}{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"]
    for prefix, folder in FOLDERS.items()
)
LIBRARY.remove("peft_bridge")  # needs an extra; its section of the page is written by hand


def described(page):
    """Return what the page describes: the full name of each object, and the text of it."""
    entries = soup(page).select("dl.py > dt.sig[id]")
    return {entry["id"]: entry.find_next_sibling("dd").get_text(strip=True) for entry in entries}


@pytest.fixture(scope="module")
def found(html):
    pages = sorted((html / "book" / "appendix" / "api").glob("*.html"))
    return {name: text for page in pages for name, text in described(page).items()}


@pytest.mark.parametrize("name", LIBRARY + BOOK)
def test_every_public_name_is_described(found, name):
    module = import_module(f"lop_utils.{name}")
    public = {f"lop_utils.{name}.{each}": getattr(module, each) for each in module.__all__}
    hint = "a new module has its place in book/appendix/api.md and on a page of book/appendix/api"
    assert public.keys() <= found.keys(), hint
    speaking = [each for each, value in public.items() if isroutine(value) or isclass(value)]
    assert [each for each in speaking if not found[each]] == []


def test_nothing_private_is_described_and_the_table_lists_every_module(found, html):
    assert [name for name in found if any(part.startswith("_") for part in name.split("."))] == []
    rows = soup(html / "book" / "appendix" / "api.html").select("table.autosummary tr")
    order = [row.find("code").get_text() for row in rows]
    assert sorted(order) == LIBRARY
    for i, name in enumerate(order):  # a module imports only from those above it
        text = (ROOT / "lop_utils" / f"{name}.py").read_text(encoding="utf-8")
        inner = re.findall(r"^from lop_utils(?:\.(\w+) import .*| import (.+))", text, re.M)
        names = {each for pair in inner for part in pair for each in part.split(", ") if each}
        assert {each for each in names if each[0] != "_"} <= set(order[:i]), name


def test_what_is_described_is_read_with_its_text(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<dl class='py'><dt class='sig' id='m.f'>f()</dt><dd>Do.</dd></dl>"
        "<dl class='py'><dt class='sig' id='m.g'>g()</dt><dd> </dd></dl>"
    )
    assert described(page) == {"m.f": "Do.", "m.g": ""}
