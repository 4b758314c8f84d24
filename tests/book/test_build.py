"""The build itself: strict, complete, and of the present code."""

import nbformat
import pytest
from lop_book import cache_path
from lop_claims import CLAIM_MIME
from notebooks import chapters
from page_rules import PAGES, ROOT, soup


def test_the_book_builds_without_a_warning(build):
    assert build.code == 0, f"the book was not built:\n{build.log[-4000:]}"


@pytest.mark.parametrize("name", [name for name, _ in chapters(ROOT)])
def test_each_chapter_was_executed_from_the_first_cell_to_the_last(html, name):
    cells = nbformat.read(html / "_sources" / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"][1:]  # the first is for Colab
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_every_page_of_the_contents_is_built_from_the_cache_of_the_present_code(html):
    assert [page for page in PAGES if not (html / page).is_file()] == []
    path = cache_path(ROOT, html.parent)
    assert list(path.parent.iterdir()) == [path]


def test_every_claim_is_on_the_claims_page(html):
    ids = set()
    for name, _ in chapters(ROOT):
        download = nbformat.read(html / "_sources" / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in download.cells for output in cell.get("outputs", [])]
        claims = [
            output.data[CLAIM_MIME] for output in outputs if CLAIM_MIME in output.get("data", {})
        ]
        ids |= {claim["id"] for claim in claims}
    page = soup(html / "book" / "appendix" / "claims.html")
    shown = {code.get_text() for code in page.select("table.lop-claims td a code")}
    assert shown == ids
