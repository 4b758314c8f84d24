"""The API pages hold every public name of the package, each with its documentation."""

import ast
from importlib import import_module
from inspect import isclass, isroutine

import pytest
from page_rules import ROOT, soup

MODULES = sorted(
    path.stem for path in (ROOT / "lop_utils").glob("*.py") if not path.stem.startswith("_")
)


def described(page):
    """Return what the page describes: the full name of each object, and the text of it."""
    entries = soup(page).select("dl.py > dt.sig[id]")
    return {entry["id"]: entry.find_next_sibling("dd").get_text(strip=True) for entry in entries}


def missing(names, found):
    """List the names that are not described, or without a word."""
    return [name for name in names if not found.get(name)]


@pytest.fixture(scope="module")
def found(html):
    pages = sorted((html / "book" / "appendix" / "api").glob("*.html"))
    return {name: text for page in pages for name, text in described(page).items()}


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_described(found, name):
    module = import_module(f"lop_utils.{name}")
    public = {f"lop_utils.{name}.{each}": getattr(module, each) for each in module.__all__}
    hint = "a new module has its place in book/appendix/api.md and on a page of book/appendix/api"
    assert public.keys() <= found.keys(), hint
    speaking = [each for each, value in public.items() if isroutine(value) or isclass(value)]
    assert missing(speaking, found) == []


def test_nothing_private_is_described(found):
    assert [name for name in found if any(part.startswith("_") for part in name.split("."))] == []


def listed(html):
    """Return the modules in the table of the first page, in its order."""
    table = soup(html / "book" / "appendix" / "api.html").select("table.autosummary tr")
    return [row.find("code").get_text() for row in table]


def test_the_table_lists_every_module(html):
    assert sorted(listed(html)) == MODULES


def test_a_module_imports_only_from_those_above_it(html):
    order = listed(html)
    for name in order:
        tree = ast.parse((ROOT / "lop_utils" / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lop_utils"):
                inner = node.module.split(".")[1:] or [alias.name for alias in node.names]
                above = {*order[: order.index(name)], "_checks"}
                assert above.issuperset(inner), f"{name} imports {inner}"


def test_what_is_missing_is_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<dl class='py'><dt class='sig' id='m.f'>f()</dt><dd>Do.</dd></dl>"
        "<dl class='py'><dt class='sig' id='m.g'>g()</dt><dd> </dd></dl>"
    )
    assert missing(["m.f", "m.g", "m.h"], described(page)) == ["m.g", "m.h"]
