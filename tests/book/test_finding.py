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
    "lambda": "notation.html#symbol-lambda",
    "ε": "notation.html#symbol-epsilon",
    "epsilon": "notation.html#symbol-epsilon",
    "eps": "notation.html#symbol-epsilon",
    "Phi": "notation.html#symbol-Phi",
    "gamma": "notation.html#symbol-gamma",
    "W_l": "notation.html#symbol-W_l",
    "2r": "notation.html#symbol-2r",
    "sigma": "notation.html#symbol-sigma_i",
    "rhat": "notation.html#symbol-rhat",
    "effective rank": "glossary.html#term-effective-rank",
    "core": "glossary.html#term-core",
    "invariant_subspaces": "law.html#lop_utils.parsimony.invariant_subspaces",
    "law of parsimony": "parsimony/law.html",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_sentence_describes_the_page(html, page):
    assert rules.describe(html / page) == []


@pytest.mark.parametrize("page", PAGES)
def test_the_whole_book_can_be_downloaded(html, page):
    menu = page_rules.soup(html / page).select(".dropdown-download-buttons a[href^=https]")
    whole = [ADDRESS + each.name for each in (pdf.PDF, archive.ZIP)]
    assert [link["href"] for link in menu] == whole
    publish = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    files = " ".join(each.relative_to(ROOT).as_posix() for each in (archive.ZIP, pdf.PDF))
    assert f"run: cp {files} _build/html" in publish


def test_no_two_pages_are_described_alike(html):
    sentences = [sentence for page in PAGES for sentence in rules.meta(html / page)["description"]]
    assert len(set(sentences)) == len(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_knows_its_address(html, page):
    assert rules.placed(html / page, html) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_link_to_the_page_looks_well_elsewhere(html, page):
    assert rules.card(html / page, html) == []


def test_no_card_is_left_of_an_earlier_build(html):
    used = {rules.meta(html / page)["og:image"][0].removeprefix(ADDRESS) for page in PAGES}
    kept = {path.relative_to(html).as_posix() for path in (html / "_images/cards").iterdir()}
    assert used == kept


@pytest.mark.parametrize("page", PAGES)
def test_the_date_of_the_last_change_is_plain(html, page):
    assert rules.dated(html / page) == []


def test_no_page_is_dated_before_its_source(html):
    def commit(page):
        command = ["git", "log", "-1", "--format=%at", "--", page.replace(".html", ".md")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return f"{datetime.fromtimestamp(int(done.stdout), UTC):%Y-%m-%d}" if done.stdout else ""

    if not commit(PAGES[0]):
        pytest.skip("not a git checkout")
    shown = {page: rules.soup(html / page).select_one("footer .last-updated") for page in PAGES}
    dates = {page: re.findall(r"[\d-]{10}", date.get_text())[0] for page, date in shown.items()}
    assert [page for page in PAGES if dates[page] < commit(page)] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_can_correct_the_page(html, page):
    assert rules.links_back(html / page, html) == []
    assert (ROOT / page).with_suffix(".md").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_how_to_cite_it(html, page):
    assert rules.cited(html / page, html) == []
    assert rules.scholarly(html / page, html) == []


def test_no_two_pages_have_one_key(html):
    blocks = [rules.soup(html / page).select_one(".lop-cite pre").get_text() for page in PAGES]
    assert len({block.partition(",")[0] for block in blocks}) == len(PAGES)


def test_authors_and_version_are_the_same_everywhere():
    assert all(author["name"] in rules.CONFIG["author"] for author in rules.CITATION["authors"])
    assert rules.CITATION["version"] == lop_utils.__version__


def test_the_sitemap_lists_every_page_once(html):
    name = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    pages = ElementTree.parse(html / "sitemap.xml").getroot().findall(f"{name}url")
    assert sorted(page.findtext(f"{name}loc") for page in pages) == sorted(
        ADDRESS + p for p in PAGES
    )
    for page in pages:
        changed = page.findtext(f"{name}lastmod")
        footer = html / page.findtext(f"{name}loc").removeprefix(ADDRESS)
        date = rules.soup(footer).select_one("footer .last-updated")
        assert (changed is None) == (date is None) and (changed is None or changed in date.text)


def test_robots_are_told_of_the_sitemap(html):
    lines = (html / "robots.txt").read_text(encoding="utf-8").splitlines()
    assert f"Sitemap: {ADDRESS}sitemap.xml" in lines
    assert not any(line.startswith("Disallow") for line in lines)


def test_the_root_leads_to_the_first_page(html):
    page = page_rules.soup(html / "index.html")
    first = PAGES[0]
    assert page.find("link", rel="canonical")["href"] == ADDRESS + first
    assert page.find("meta", attrs={"http-equiv": "refresh"})["content"].endswith(f"url={first}")
    assert page.find("a")["href"] == first


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
