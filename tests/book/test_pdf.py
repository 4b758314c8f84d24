"""The whole book as one PDF: complete, in order, nothing cut, and its contents tell the truth."""

import re

import pdf
import pdf_rules as rules
import pytest
from articles import chapters
from outputs import made
from page_rules import PAGES, ROOT, soup
from pypdf import PdfReader

# Each test of a broken document prints a page of its own, with the style and marks of the book.
DOCUMENT = (
    "<!doctype html><html><head><title>x</title><style>{style}</style>"
    "<script>window.MathJax = {{ startup: {{ promise: Promise.resolve() }} }};</script></head>"
    "<body><nav class='contents'><h1 data-title='Contents'>Contents</h1>"
    "<a href='#a'><span class='name'>One</span> <span class='number'></span></a></nav>"
    "<article class='bd-article chapter'><h1 data-title='One' id='a'>One</h1>{body}</article>"
    "</body></html>"
)


@pytest.fixture(scope="session")
def book(html):
    return PdfReader(made("build/lop-book.pdf"))


@pytest.fixture(scope="session")
def said(book):
    """Return what the table of contents says: pairs of a title and a page."""
    return rules.listed(book)


@pytest.fixture
def printed(chromium, tmp_path):
    """Return a function that prints a small document."""

    def print_small(body, head=""):
        document, path = tmp_path / "small.html", tmp_path / "small.pdf"
        style = (ROOT / "tools" / "print.css").read_text(encoding="utf-8")
        document.write_text(DOCUMENT.format(style=style, body=body) + head, encoding="utf-8")
        pdf.print_book(chromium, document, path)
        return PdfReader(path)

    return print_small


def headings(page, html):
    """Return the titles of a page, of the chapter and of its sections."""
    article = soup(html / page).find("article")
    for mark in article.select("a.headerlink"):
        mark.extract()
    titles = [" ".join(title.get_text().split()) for title in article.select("h1, h2")]
    return titles + ["Solutions"] * bool(article.select("div.solution, div.quiz"))


def test_the_contents_list_everything_in_order(said, html):
    titles = [chapter.part for chapter in chapters(ROOT)]
    wanted = []
    for part, page in zip(titles, PAGES, strict=True):
        wanted += [part] * bool(part) + headings(page, html)
    found = [rules.squeezed(title) for title, _ in said]
    assert found == [rules.squeezed(title) for title in wanted]


def test_what_the_contents_say_is_on_that_page(book, said, html):
    # the last section of each chapter: pypdf needs a sixth of a second for a page
    ends = {rules.squeezed(title) for page in PAGES for title in headings(page, html)[::-1][:1]}
    pairs = [pair for pair in said if rules.squeezed(pair[0]) in ends]
    assert len(pairs) >= len(PAGES)
    assert rules.wrong_pages(book, pairs) == []


def test_the_outline_says_the_same_pages(book, said):
    outline = {(rules.squeezed(title), page) for title, page in rules.outline(book)}
    assert [pair for pair in said if (rules.squeezed(pair[0]), pair[1]) not in outline] == []


def test_every_figure_is_printed_with_its_text(book, html):
    images = [image["alt"] for page in PAGES for image in soup(html / page).select("article img")]
    assert images
    assert sorted(rules.figures(book)) == sorted(images)


def test_no_link_is_dead(book):
    assert len(list(rules.annotations(book))) > 500
    assert rules.dead_links(book) == []


def test_no_page_is_blank(book):
    assert rules.blank_pages(book) == []


def test_it_is_a4_and_not_too_heavy(book):
    sizes = {tuple(round(float(side) / 72 * 25.4) for side in page.mediabox) for page in book.pages}
    assert sizes == {(0, 0, 210, 297)}
    assert book.stream.seek(0, 2) < 15_000_000


def test_who_wrote_it_and_what_it_is_called(book):
    first = book.pages[0].extract_text()
    assert book.metadata.title == "The Law of Parsimony in Deep Linear Networks"
    assert rules.squeezed(book.metadata.title) in rules.squeezed(first)
    assert book.metadata.author in first
    assert re.search(r"\d{1,2} \w+ \d{4}\n", first) and "CC BY 4.0" in first
    assert book.trailer["/Root"]["/Lang"] == "en"


# --- The rules bite ------------------------------------------------------------------------


def test_a_good_document_passes(printed):
    reader = printed("<p>A line <a href='#a'>to</a> <a href='https://example.org'>out</a>.</p>" * 9)
    assert rules.listed(reader) == rules.outline(reader)[1:] == [("One", 2)]
    assert rules.wrong_pages(reader, [("One", 2)]) == rules.dead_links(reader) == []
    assert rules.blank_pages(reader, least=300) == rules.figures(reader) == []


def test_what_is_wrong_in_a_document_is_found(printed):
    picture = "<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0h9v9z'/></svg>"
    reader = printed(
        f'<p>text</p><img alt="a triangle" src="data:image/svg+xml,{picture}"/>'
        "<p><a href='file:///x/y.html'>x</a> <a href='y.html'>x</a></p>"
        "<p style='break-before: page'></p><p style='break-before: page'>x</p>"
    )
    pairs = [("text", 1), ("One", 7), ("Two", 2)]
    assert rules.wrong_pages(reader, [*pairs, ("One", 2)]) == pairs
    assert 3 in rules.blank_pages(reader)
    assert len(rules.dead_links(reader)) == 2
    assert rules.figures(reader) == ["a triangle"]


def test_what_is_too_wide_is_refused(printed):
    with pytest.raises(ValueError, match=r"within the column, too wide:\n(.*\n)*P "):
        printed("<p style='white-space: nowrap'>" + "wide " * 80 + "</p>")


@pytest.mark.parametrize(
    "formula", [r"<span class='math'>\(x\)</span>", "<mjx-merror>\\x</mjx-merror>"]
)
def test_a_formula_that_is_not_set_is_refused(printed, formula):
    with pytest.raises(ValueError, match="every formula set"):
        printed(formula)


def test_headings_that_move_are_refused(printed):
    tall = "<style>.number:not(:empty) { display: block; height: 300mm; }</style>"
    with pytest.raises(ValueError, match=r"no heading to move.*\['a'\]"):
        printed("<p>text</p>", tall)


def test_without_a_book_the_message_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="make book"):
        pdf.main(tmp_path)


def test_without_chromium_the_message_says_how_to_get_it(html, monkeypatch):
    monkeypatch.setattr(pdf, "find_chromium", lambda: None)
    with pytest.raises(SystemExit, match="apt install chromium"):
        pdf.main(html)
