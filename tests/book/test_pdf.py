"""The whole book as one PDF: complete, in order, nothing cut, and its contents tell the truth."""

import re
import unicodedata

import pdf
import pytest
from bs4 import BeautifulSoup
from outputs import made
from page_rules import PAGES, ROOT, soup
from pypdf import PdfReader


@pytest.fixture(scope="session")
def book(html):
    return PdfReader(made("build/lop-book.pdf"))


@pytest.fixture(scope="session")
def outline(book):
    """Return the outline: pairs of a title and its page, from 0."""

    def flat(entries):
        for entry in entries:
            if isinstance(entry, list):
                yield from flat(entry)
            else:
                yield squeezed(entry.title), book.get_destination_page_number(entry)

    return list(flat(book.outline))


def squeezed(text):
    """Return a text without white space and ligatures, which printing adds and takes away."""
    return re.sub(r"\s|\\[()]", "", unicodedata.normalize("NFKC", text))


def headings(html, page):
    """Return the titles of a page, of the chapter and of its sections."""
    titles = soup(html / page).find("article").select("h1, h2")
    return [squeezed(title.get_text()).removesuffix("#") for title in titles]


def pictures(node):
    """List the alternative texts of the figures, which a screen reader tells, in their order."""
    below = node.get("/K", [])
    found = [node["/Alt"]] if node.get("/S") == "/Figure" and "/Alt" in node else []
    for each in below if isinstance(below, list) else [below]:
        if isinstance(each.get_object(), dict):
            found += pictures(each.get_object())
    return found


def test_the_outline_has_all_parts_chapters_and_sections_in_order(outline, html):
    wanted, last = ["Contents"], None
    for (_, part), page in zip(pdf.chapters(ROOT), PAGES, strict=True):
        wanted += [squeezed(part or "")] * (part != last) + headings(html, page)
        last = part
    assert [title for title, _ in outline] == wanted


def test_the_contents_say_the_number_that_stands_on_the_page(book, outline):
    first = outline[1][1]
    said = "\n".join(book.pages[page].extract_text() for page in range(1, first))
    lines = [squeezed(line) for line in said.splitlines()]
    assert [(title, p) for title, p in outline[1:] if f"{title}{p - first + 1}" not in lines] == []
    for title, page in outline[1::9]:  # pypdf needs a tenth of a second for a page
        text = book.pages[page].extract_text()
        assert title in squeezed(text) and str(page - first + 1) in text.splitlines(), title
    assert book.page_labels[1] == "ii" and book.page_labels[page] == str(page - first + 1)


def told(figure):
    """Return what a screen reader tells of an image, or of a drawing."""
    parts = [] if figure.get("alt") else [figure.find(k).get_text() for k in ("title", "desc")]
    return " ".join(" ".join(parts).split()) or figure["alt"]


def test_every_figure_is_printed_with_its_text(book, html):
    shown = "article img, article svg.lop-diagram"
    wanted = [told(each) for page in PAGES for each in soup(html / page).select(shown)]
    assert wanted
    assert pictures(book.root_object["/StructTreeRoot"]) == wanted


def test_links_lead_to_a_page_of_the_book_or_to_the_web(book):
    links = [each.get_object() for page in book.pages for each in page.get("/Annots", [])]
    within = [link["/Dest"][0].get_object() for link in links if "/Dest" in link]
    assert len(within) > 500
    assert all(page["/Type"] == "/Page" for page in within)
    away = [link["/A"]["/URI"] for link in links if "/Dest" not in link]
    assert [uri for uri in away if not re.match(r"https?://|mailto:", uri)] == []


def test_no_page_is_blank_and_the_paper_is_a4(book):
    sizes = {tuple(round(float(side) / 72 * 25.4) for side in page.mediabox) for page in book.pages}
    assert sizes == {(0, 0, 210, 297)}
    assert [n for n, page in enumerate(book.pages, 1) if "/StructParents" not in page] == []


def test_who_wrote_it_what_it_is_called_and_what_it_weighs(book):
    first = book.pages[0].extract_text()
    assert book.metadata.title == "The Law of Parsimony in Deep Linear Networks"
    assert squeezed(book.metadata.title) in squeezed(first)
    assert book.metadata.author in first
    assert re.search(r"\d{2} \w+ \d{4}\n", first) and "CC BY 4.0" in first
    assert book.root_object["/Lang"] == "en" and book.page_mode == "/UseOutlines"
    assert book.stream.seek(0, 2) < 25_000_000  # mail takes that


PAGE = (
    "<html><head></head><body><nav>no</nav><article class='bd-article'>{}</article></body></html>"
)


def take(body):
    return pdf.take_article(BeautifulSoup(PAGE.format(body), "html.parser"))[0]


def test_what_needs_a_screen_goes_and_a_live_figure_leaves_its_still_picture():
    live = "<div><script>x</script><noscript><img alt='still' src='x.svg'></noscript></div>"
    article = take(f"<p>a<a class='headerlink' href='#top'>#</a></p>{live}<button>b</button>")
    assert article.get_text(strip=True) == "a" and article.find("img").parent.name == "div"


@pytest.mark.parametrize(
    ("output", "left"), [("<div class='cell_output'><img alt='y' src='y'></div>", ""), ("", "x")]
)
def test_folds_are_opened_but_not_the_source_of_a_figure(output, left):
    source = "<details class='hide'><div class='cell_input'>x</div></details>"
    article = take(f"<div class='cell'>{source}{output}</div><details><p>inside</p></details>")
    assert article.get_text(strip=True) == left + "inside"
    assert all("open" in details.attrs for details in article.find_all("details"))


def test_no_line_begins_with_the_comma_after_a_formula():
    article = take("<p><span class='math'>x</span>, and <span class='math'>y</span> too</p>")
    assert [e.get_text() for e in article.select(".keep")] == ["x,"]
    assert article.p.get_text() == "x, and y too"


@pytest.fixture
def printed(chromium, tmp_path):
    """Return a function that prints a small page."""

    def printed(body, name="one"):
        page = BeautifulSoup(PAGE.format(f"<h1>One</h1>{body}"), "html.parser")
        uri, article = (tmp_path / f"{name}.html").as_uri(), pdf.take_article(page)[0]
        style = pdf.RUNNING.format(41, '"Part"', '"One"')
        path = tmp_path / f"{name}.pdf"
        found = pdf.print_page(chromium, uri, page, article, style, path)
        return pdf.Printed(uri, name, [(1, "One", f"{uri}#heading-0")], *found)

    return printed


def test_numbers_count_on_and_places_are_told(printed):
    *_, reader, places = printed("<p style='break-before: page' id='dr\u00e9i/x'>two</p>")
    lines = [page.extract_text().split() for page in reader.pages]
    assert [set(line) for line in lines] == [{"42", "One", "Part"}, {"43", "One", "Part", "two"}]
    ends = {uri.partition("#")[2]: page for uri, (page, _) in places.items()}
    assert ends == {"": 0, "heading-0": 0, "dr\u00e9i/x": 1}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<p style='white-space: nowrap'>" + "wide " * 80 + "</p>", "too wide: P"),
        (r"<span class='math'>\(x\)</span>", "not set: SPAN math"),
        ("<mjx-merror>x</mjx-merror>", "not set: MJX-MERROR"),
    ],
)
def test_what_is_too_wide_or_not_set_is_refused(printed, body, fault):
    with pytest.raises(ValueError, match=rf"nothing too wide:\n(.*\n)*{fault}"):
        printed(body)


def test_a_link_to_another_page_leads_there(printed, tmp_path):
    two = "<p id='two' style='break-before: page'>two</p>"
    away = "<a href='one.html#two'>two</a> <a href='#heading-0'>here</a> <a href='x.html#y'>y</a>"
    writer = pdf.bind([printed(two), printed(away, "other")], tmp_path, "https://example.org/")
    first, second, third = (link.get_object() for link in writer.pages[2]["/Annots"])
    pages = [page.indirect_reference for page in writer.pages]
    assert [pages.index(next(iter(link["/Dest"]))) for link in (first, second)] == [1, 2]
    assert third["/A"]["/URI"] == "https://example.org/x.html#y"


def test_without_a_book_or_chromium_the_message_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="make book"):
        pdf.main(tmp_path)
    (tmp_path / "index.html").touch()
    monkeypatch.setattr(pdf, "find_chromium", lambda: None)
    with pytest.raises(SystemExit, match="apt install chromium"):
        pdf.main(tmp_path)
