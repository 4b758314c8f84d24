"""Whether a reader finds the pages: by a search engine, in a feed, in a citation, in the book."""

import re
import subprocess
from datetime import UTC, datetime
from xml.etree import ElementTree

import archive
import find_rules as rules
import page_rules
import pdf
import pytest
from find_rules import ADDRESS
from page_rules import PAGES, ROOT

import lop_utils

# What is typed into the search, and the end of an address that must be among the first three.
SOUGHT = {
    "ρ": "notation.html#symbol-rho",
    "rho": "glossary.html#term-rho",
    "λ": "notation.html#symbol-lambda",
    "eps": "notation.html#symbol-epsilon",
    "Phi": "notation.html#symbol-Phi",
    "W_l": "notation.html#symbol-W_l",
    "2r": "notation.html#symbol-2r",
    "sigma": "notation.html#symbol-sigma_i",
    "rhat": "notation.html#symbol-rhat",
    "effective rank": "glossary.html#term-effective-rank",
    "invariant_subspaces": "law.html#lop_utils.law.invariant_subspaces",
    "law of parsimony": "parsimony/law.html",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_described_placed_dated_and_cited(html, page):
    assert [wrong for rule in rules.RULES for wrong in rule(html / page, html)] == []
    assert (ROOT / page).with_suffix(".md").is_file()  # what "edit" leads to
    menu = page_rules.soup(html / page).select(".dropdown-download-buttons a[href^=https]")
    whole = [ADDRESS + each.name for each in (pdf.PDF, archive.ZIP)]
    assert [link["href"] for link in menu] == whole


def test_the_whole_book_is_published_beside_the_pages():
    publish = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    files = " ".join(each.relative_to(ROOT).as_posix() for each in (archive.ZIP, pdf.PDF))
    assert f"run: cp {files} _build/html" in publish


def test_no_two_pages_are_described_alike_or_have_one_key(html):
    assert len({rules.meta(html / page)["description"][0] for page in PAGES}) == len(PAGES)
    blocks = [page_rules.soup(html / page).select_one(".lop-cite pre").get_text() for page in PAGES]
    assert len({block.partition(",")[0] for block in blocks}) == len(PAGES)


def test_no_page_is_dated_before_its_source(html):
    def commit(page):
        command = ["git", "log", "-1", "--format=%at", "--", page.replace(".html", ".md")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return f"{datetime.fromtimestamp(int(done.stdout), UTC):%Y-%m-%d}" if done.stdout else ""

    if not commit(PAGES[0]):
        pytest.skip("not a git checkout")
    assert [page for page in PAGES if rules.day(html / page) < commit(page)] == []


def test_authors_and_version_are_the_same_everywhere():
    assert all(author in rules.CONFIG["author"] for author in rules.AUTHORS)
    assert rules.CITATION["version"] == lop_utils.__version__


def test_the_sitemap_lists_every_page_once_with_its_date(html):
    name = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    pages = ElementTree.parse(html / "sitemap.xml").getroot().findall(f"{name}url")
    listed = [(page.findtext(f"{name}loc"), page.findtext(f"{name}lastmod", "")) for page in pages]
    assert sorted(listed) == sorted((ADDRESS + page, rules.day(html / page)) for page in PAGES)
    lines = (html / "robots.txt").read_text(encoding="utf-8").splitlines()
    assert f"Sitemap: {ADDRESS}sitemap.xml" in lines
    assert not any(line.startswith("Disallow") for line in lines)


def test_the_root_leads_to_the_first_page(html):
    refresh = page_rules.soup(html / "index.html").find("meta", attrs={"http-equiv": "Refresh"})
    assert refresh["content"] == f"0; url={PAGES[0]}"


@pytest.fixture(scope="module")
def search(served, chromium):
    """Return a function that types into the search page and returns where its results lead."""
    context = chromium.new_context()
    page = context.new_page()

    def search(words):
        page.goto(f"{served}/search.html")
        field = page.locator(".bd-article-container input[name=q]")
        field.press_sequentially(words)
        field.press("Enter")
        page.wait_for_function(
            "/finished|did not match/.test(document.querySelector('.search-summary')?.innerText)"
        )
        return page.eval_on_selector_all("#search-results li > a", "all => all.map((a) => a.href)")

    yield search
    context.close()


@pytest.mark.parametrize("words", SOUGHT)
def test_the_search_finds_where_it_is_explained(search, words):
    found = [re.sub(r"\?[^#]*", "", address) for address in search(words)[:3]]
    assert any(address.endswith(SOUGHT[words]) for address in found), found


def test_the_search_finds_nothing_where_there_is_nothing(search):
    assert search("zzzyyyxxx") == []
