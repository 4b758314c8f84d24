"""The zip of the pages: read from a folder, over file://, it does all that the served book does."""

import re
import zipfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import archive
import page_rules as rules
import pytest
from browser import MEASURE, only
from outputs import made
from page_rules import PAGES, ROOT

CHAPTER = "book/parsimony/law.html"
WORD = "parsimony"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
TITLES = "[...document.querySelectorAll('#search-results li a')].map((link) => link.href)"


@pytest.fixture(scope="session")
def folder(html, tmp_path_factory):
    """Unpack the archive elsewhere; return the folder with index.html."""
    place = tmp_path_factory.mktemp("archive")
    with zipfile.ZipFile(made("build/lop-book-html.zip")) as packed:
        packed.extractall(place)
    return place / archive.FOLDER


@contextmanager
def reading(chromium, base, path):
    """Open a page; yield it, with the lists of what it asked elsewhere for, and what went wrong."""
    outside, wrong = [], []

    context = chromium.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})
    context.route("**/*", only(base, outside))
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    # a page that is left while it still asks for its icon fails at nothing
    page.on("requestfailed", lambda request: wrong.append(request.url) if failed(request) else None)
    page.goto(f"{base}/{path}", wait_until="load")
    yield page, outside, wrong
    context.close()


def failed(request):
    """Say whether a request failed, and was not just broken off."""
    return request.failure != "net::ERR_ABORTED"


def search(page, asked):
    """Wait until the search is over; return where its results lead to."""
    page.wait_for_function(f"() => {TITLES}.length >= {asked}")
    page.wait_for_function("() => !document.querySelector('#search-progress .dots')")
    return page.evaluate(TITLES)


def missing_files(folder):
    """List what pages link to or load that is no file in the folder."""
    missing = set()
    for page in folder.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'\b(?:href|src|url)="?([^"#?>]+)', text):
            target = (page.parent / unquote(link)).resolve()
            inside = target.is_relative_to(folder.resolve()) and target.is_file()
            if not urlsplit(link).scheme and not inside:
                missing.add(link)
    return sorted(missing)


def test_it_holds_every_page_and_the_licences(folder):
    assert [page for page in PAGES if not (folder / page).is_file()] == []
    for name in archive.LICENCES:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert (folder / "_static" / "vendor" / "mathjax" / "LICENSE").is_file()
    readme = (folder / "README.txt").read_text(encoding="utf-8")
    assert "Open index.html" in readme and "https://" in readme


def test_everything_that_is_linked_is_in_it(folder):
    assert missing_files(folder) == []


def test_nothing_is_loaded_from_elsewhere(folder):
    remote = {page: found for page in PAGES if (found := rules.remote_loads(folder / page))}
    assert remote == {}


@pytest.mark.parametrize("path", ["book/intro.html", CHAPTER, "book/appendix/claims.html"])
def test_a_page_reads_as_if_it_were_served(folder, chromium, path):
    with reading(chromium, folder.as_uri(), path) as (page, outside, wrong):
        measured = page.evaluate(MEASURE)
        assert outside == wrong == measured["raw"] == measured["mathErrors"] == []
        assert page.query_selector("mjx-container")
        assert all(figure["shown"] for figure in measured["figures"])
        assert bool(measured["figures"]) == (path != "book/appendix/claims.html")
        assert measured["background"] == "rgb(253, 253, 251)"  # ours, so the style was read
        page.locator("button.theme-switch-button >> visible=true").click()  # automatic, dark
        page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
        page.wait_for_function(f"() => {BACKGROUND} === 'rgb(18, 18, 18)'")
        assert outside == wrong == []


def test_from_the_start_to_a_formula_and_back(folder, chromium):
    base = folder.as_uri()
    with reading(chromium, base, "index.html") as (page, outside, wrong):
        page.wait_for_url(f"{base}/book/intro.html")
        page.locator("article a[href='parsimony/law.html']").first.click()
        page.wait_for_url(f"{base}/{CHAPTER}")
        page.locator("a.reference[href='#equation-eq-law-blocks']").first.click()
        page.wait_for_url(f"{base}/{CHAPTER}#equation-eq-law-blocks")
        page.go_back()
        page.go_back()
        page.wait_for_url(f"{base}/book/intro.html")
        assert outside == wrong == []


def test_the_search_finds_pages_without_an_error(folder, chromium):
    with reading(chromium, folder.as_uri(), f"search.html?q={WORD}") as (page, outside, wrong):
        found = search(page, 8)
        files = [Path(unquote(urlsplit(link).path)) for link in found]
        assert all(file.is_relative_to(folder) for file in files)
        assert all(file.is_file() and WORD in file.read_text("utf-8").lower() for file in files)
        page.locator("#search-results li a").first.click()
        page.wait_for_selector("article h1")
        assert outside == wrong == []


def test_the_search_from_a_chapter(folder, chromium):
    with reading(chromium, folder.as_uri(), CHAPTER) as (page, outside, wrong):
        page.keyboard.press("Control+k")
        page.keyboard.type(WORD)
        page.keyboard.press("Enter")
        assert len(search(page, 8)) >= 8
        assert outside == wrong == []


def test_without_the_cure_the_search_would_fail(folder, chromium):
    text = (folder / "search.html").read_text(encoding="utf-8")
    assert "SHOW_SEARCH_SUMMARY = false" in text
    sick = folder / "sick.html"
    sick.write_text(text.replace("SHOW_SEARCH_SUMMARY = false", "UNKNOWN = 0"), encoding="utf-8")
    with reading(chromium, folder.as_uri(), f"sick.html?q={WORD}") as (page, _, wrong):
        search(page, 8)
        page.wait_for_timeout(200)
        assert wrong
    sick.unlink()


def test_where_the_book_is_served_the_search_shows_lines(served, chromium):
    with reading(chromium, served, f"search.html?q={WORD}") as (page, outside, wrong):
        page.wait_for_selector("#search-results li p.context")
        assert outside == wrong == []


# --- The tool itself, on a few files as Sphinx would leave them -----------------------------------

FILES = {
    "index.html": '<link rel="preload" as="font" href="x"/>\n<a href="index.html#x">a</a>',
    "_images/shown.svg": "<svg/>",
    ".buildinfo": "x",
    "reports/law.err.log": "x",
    "_static/lop.css": "x",
    "_static/theme.css.map": "x",
    "_images/social_previews/law.png": "x",
    "lop-book.pdf": "x",
}


@pytest.fixture
def small(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "html"


def test_only_what_is_needed_is_packed(small, tmp_path):
    archive.main(small, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names = {name for name in packed.namelist() if not name.endswith("/")}
        assert packed.read("lop-book/index.html") == b'<a href="index.html#x">a</a>'
    kept = ["index.html", "_images/shown.svg", "_static/lop.css", *archive.LICENCES, "README.txt"]
    assert names == {f"lop-book/{name}" for name in kept}


def test_without_a_book_the_archive_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="make book"):
        archive.main(tmp_path / "none")


@pytest.mark.parametrize("link", ["gone.html", "/index.html", "../outside.txt"])
def test_a_link_out_of_the_folder_is_found(small, link):
    (small.parent / "outside.txt").touch()
    assert missing_files(small) == ["x"]
    (small / "index.html").write_text(f'<a href="{link}">a</a>', "utf-8")
    assert missing_files(small) == [link]
