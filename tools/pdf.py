"""Print the built pages, one after the other, and bind them as one PDF.

usage: pdf.py [FOLDER_OF_THE_BUILT_PAGES [PDF]]

The contents are printed last, when their numbers are known; they stand in front, with numbers of
their own. Links from page to page become links within the PDF.
"""

import json
import re
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import matplotlib
import yaml
from bs4 import BeautifulSoup, NavigableString
from chromium import HOW_TO_GET, find_chromium, launch
from pypdf import PdfReader, PdfWriter, generic
from pypdf.generic import ArrayObject, NumberObject, TextStringObject
from pypdf.generic import NameObject as Name
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_site import address_said  # noqa: E402

HTML = ROOT / "_build" / "html"
PDF = ROOT / "build" / "lop-book.pdf"
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf").as_uri()
STYLE = (ROOT / "tools" / "print.css").read_text(encoding="utf-8").replace("FONTS", FONTS)
WIDTH = round(150 / 25.4 * 96)  # of the column in print.css, in pixels, so that it measures alike
# What does nothing on paper. A noscript's content is the still picture of a live figure.
SCREEN_ONLY = "a.headerlink, button, input, select, canvas, script, .toctree-wrapper, .lop-cite"
RUNNING = """html {{ counter-reset: page {}; }}
@page {{ @top-left {{ content: {}; }} @top-right {{ content: {}; }} }}"""
ROMAN = """@page { @bottom-center { content: counter(page, lower-roman); } }
@page :first { @bottom-center { content: none; } }"""
FRONT = """<div class="title-page"><h1>{title}</h1><img alt="" src="{picture}">
<p class="author">{author}</p><p>{today:%d %B %Y}</p><p>{licence}</p>
<p><a href="{address}">{address}</a></p></div>
<div class="list"><h1 id="contents">Contents</h1><a href="#contents" hidden></a>{contents}</div>"""
ENTRY = '<a href="{}" class="level-{}"><span>{}</span><span class="leader"></span>{}</a>'

# What is too wide is set smaller. Lists what MathJax did not set, and what is still too wide.
FIT = """async () => {
  document.documentElement.dataset.theme = "light";
  await globalThis.MathJax?.startup.promise;
  await Promise.all([...document.fonts].map((font) => font.load()));
  await Promise.all([...document.images].map((image) => image.decode()));
  const all = (selector) => [...document.querySelectorAll(selector)];
  const over = (inner, outer, by = 0.5) =>
    inner.getBoundingClientRect().right > outer.getBoundingClientRect().right + by;
  const fit = (box, inner, outer, least) => {
    for (let size = 0.98; over(inner, outer) && size > least; size -= 0.04)
      box.style.fontSize = `${100 * size}%`;
  };
  for (const box of all("mjx-container")) {
    const outer = box.hasAttribute("display") ? box : document.body;
    fit(box, box.querySelector("mjx-math"), outer, 0.6);
  }
  for (const box of all("table, .cell_output pre")) fit(box, box, box.parentElement, 0.7);
  for (const box of all(".cell_output pre").filter((box) => over(box, box.parentElement)))
    box.style = "white-space: pre-wrap; width: auto";
  const unset = all(".math").filter((formula) => !formula.querySelector("mjx-container"));
  const wide = all("body :not(mjx-container *, svg *)").filter((each) => each.checkVisibility() && (
    over(each, document.body, 1) ||
    !each.closest("span.math") && each.clientWidth && each.scrollWidth > each.clientWidth + 1));
  const say = (fault, found) => found.map((each) =>
    `${fault}: ${each.tagName} ${each.className} ${each.textContent.trim().slice(0, 60)}`);
  return [...say("not set", [...unset, ...all("mjx-merror")]), ...say("too wide", wide)];
}"""


class Printed(NamedTuple):
    """A page of the book as printed, and where in it each address is: the page, the height."""

    uri: str
    part: str | None
    headings: list  # of a level, the HTML, the address
    reader: PdfReader
    places: dict


def chapters(root):
    """List the pages in the order of the table of contents, each with the caption of its part."""
    site = parse_toc_yaml(root / "_toc.yml")
    captions = {name: tree.caption for tree in site.root.subtrees for name in tree.files()}
    return [(name, captions.get(name)) for name in site]


def plain(markup):
    """Return a heading as plain text, its formulas as they were typed."""
    return re.sub(r"\\[()]", "", BeautifulSoup(markup, "html.parser").get_text())


def take_article(soup):
    """Take the article of a page, as it goes on paper, and its headings: level, HTML, anchor."""
    article = soup.select_one("article.bd-article").extract()
    for element in article.select(SCREEN_ONLY):
        element.decompose()
    for element in article.find_all("noscript"):
        element.unwrap()
    for details in article.find_all("details"):
        details["open"] = ""
        if details.select_one(".cell_input") and details.parent.select_one(".cell_output img"):
            details.decompose()  # what draws a figure; other code defines what is used below
    for formula in article.select("span.math"):  # no line begins with the comma after a formula
        after = formula.next_sibling
        stop = re.match(r"[.,;:!?)\]’”]+", after) if isinstance(after, NavigableString) else None
        if stop:
            after.replace_with(after[stop.end() :])
            formula.wrap(soup.new_tag("span", attrs={"class": "keep"})).append(stop.group())
    headings = []
    for number, heading in enumerate(article.select("h1, h2")):
        heading["id"] = f"heading-{number}"  # its section may begin on the page before
        headings.append((int(heading.name[1]), heading.decode_contents(), heading["id"]))
    for anchor in {element["id"] for element in article.find_all(id=True)}:
        # Chromium tells only the places that the same page links to
        article.append(soup.new_tag("a", attrs={"href": "#" + quote(anchor), "hidden": ""}))
    return article, headings


def print_page(browser, uri, soup, body, style, path):
    """Print a page as if it stood at this address, with another body; return it and its places."""
    soup.body.clear()
    soup.body.append(body)
    soup.head.append(soup.new_tag("style", string=STYLE + style))
    context = browser.new_context(viewport={"width": WIDTH, "height": 900}, offline=True)
    context.route(re.compile(r"_static/(?!vendor/mathjax).*\.js"), lambda route: route.abort())
    context.route(uri, lambda route: route.fulfill(body=str(soup), content_type="text/html"))
    page = context.new_page()
    page.emulate_media(media="print", color_scheme="light")
    page.goto(uri)
    if faults := page.evaluate(FIT):
        raise ValueError(f"{uri}: wanted formulas set, nothing too wide:\n" + "\n".join(faults))
    page.pdf(path=path, prefer_css_page_size=True, print_background=True, tagged=True)
    context.close()
    reader, places = PdfReader(path), {uri: (0, None)}
    for name, at in reader.named_destinations.items():
        place = unquote(f"{uri}#{name.removeprefix('/')}")
        places[place] = reader.get_destination_page_number(at), at.top
    return reader, places


def print_book(browser, html, config, folder):
    """Print the pages, whose numbers count on, and then what stands before them."""
    book, count = [], 0
    for name, part in chapters(ROOT):
        page = html / f"{name}.html"
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        article, found = take_article(soup)
        headings = [(level, text, f"{page.as_uri()}#{anchor}") for level, text, anchor in found]
        heads = [json.dumps(head, ensure_ascii=False) for head in (part or "", plain(found[0][1]))]
        style, path = RUNNING.format(count, *heads), folder / f"{len(book)}.pdf"
        printed = print_page(browser, page.as_uri(), soup, article, style, path)
        book.append(Printed(page.as_uri(), part, headings, *printed))
        count += len(printed[0].pages)
    lines = [ENTRY.format(uri, level, text, at + 1) for level, text, at, _, uri in entries(book)]
    front = FRONT.format(
        title=config["title"],
        author=config["author"],
        today=date.today(),
        licence=config["html"]["extra_footer"],
        address=config["repository"]["url"],
        picture=(ROOT / "book" / "_static" / "spectrum.svg").as_uri(),
        contents="\n".join(lines),
    )
    uri, body = page.with_name("front.html").as_uri(), BeautifulSoup(front, "html.parser")
    style = RUNNING.format(0, '""', '""') + ROMAN
    printed = print_page(browser, uri, soup, body, style, folder / "front.pdf")
    return [Printed(uri, None, [(1, "Contents", f"{uri}#contents")], *printed), *book]


def entries(book):
    """Yield parts, chapters and sections: level, HTML, page, height, address."""
    start, part = 0, None
    for printed in book:
        if printed.part != part:
            part = printed.part
            yield 0, part, start, None, printed.uri
        for level, markup, uri in printed.headings:
            page, top = printed.places[uri]
            yield level, markup, start + page, top, uri
        start += len(printed.reader.pages)


def bind(book, html, address):
    """Put what was printed together, with an outline; links lead from one page to another."""
    writer, where, start = PdfWriter(clone_from=book[0].reader), {}, 0
    for printed in book:
        where |= {uri: (start + page, top) for uri, (page, top) in printed.places.items()}
        start += len(printed.reader.pages)
    for printed in book[1:]:
        add(writer, printed)
    pages = list(writer.pages)
    for link in (each.get_object() for page in pages for each in page.get("/Annots", [])):
        uri = link["/A"]["/URI"]
        if unquote(uri) in where:
            page, top = where[unquote(uri)]
            at = [pages[page].indirect_reference, Name("/XYZ"), *generic.Fit.xyz(top=top).fit_args]
            link[Name("/Dest")] = ArrayObject(at)
            del link["/A"]
        elif uri.startswith("file:"):  # the index, a download
            uri = uri.replace(f"{html.as_uri()}/", address)
            link["/A"][Name("/URI")] = TextStringObject(uri)
    above = [None] * 4
    for level, markup, page, top, _ in entries(book):
        place = {"page_number": page, "fit": generic.Fit.xyz(top=top), "parent": above[level]}
        above[level + 1 :] = [writer.add_outline_item(title=plain(markup), **place)] * 3
    return writer


def add(writer, printed):
    """Add pages, with the tags that tell a screen reader their order and the pictures' texts.

    Tags know pages, parts of pages and links by numbers, which count on here; pypdf alone would
    leave the tags out.
    """
    tags = writer.root_object["/StructTreeRoot"]
    used = tags["/ParentTreeNextKey"]
    for number in range(1, printed.reader.trailer["/Size"]):
        thing = printed.reader.get_object(number)
        for key in {"/StructParent", "/StructParents"} & set(
            thing if hasattr(thing, "keys") else ()
        ):
            thing[Name(key)] = NumberObject(thing[key] + used)
    for page in printed.reader.pages:
        added = writer.add_page(page)
        if "/StructParents" in page:  # not so where nothing is printed
            added[Name("/StructParents")] = page["/StructParents"]
        for link in added.get("/Annots", []):
            if name := link.get_object().pop("/Dest", None):  # a place on the same page
                uri = TextStringObject(f"{printed.uri}#{name.removeprefix('/')}")
                place = generic.DictionaryObject({Name("/URI"): uri})
                link.get_object()[Name("/A")] = place
    more = printed.reader.root_object["/StructTreeRoot"].clone(writer)
    more["/K"][Name("/P")] = tags.indirect_reference
    if not isinstance(tags["/K"], ArrayObject):
        tags[Name("/K")] = ArrayObject([tags.raw_get("/K")])
    tags["/K"].append(more.raw_get("/K"))
    numbers = iter(more["/ParentTree"]["/Nums"])
    for number, element in zip(numbers, numbers, strict=True):
        tags["/ParentTree"]["/Nums"].extend([NumberObject(number + used), element])
    tags[Name("/ParentTreeNextKey")] = NumberObject(more["/ParentTreeNextKey"] + used)


def main(html=HTML, path=PDF):
    """Print the built pages in one folder as one PDF."""
    html = html.resolve()
    if not (html / "index.html").is_file():
        sys.exit("There is no book yet: make book")
    if (executable := find_chromium()) is None:
        sys.exit(HOW_TO_GET)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, launch(executable) as browser:
        book = print_book(browser, html, config, Path(folder))
        writer = bind(book, html, address_said(config))
        first = len(book[0].reader.pages)
        writer.set_page_label(0, first - 1, style="/r")
        writer.set_page_label(first, len(writer.pages) - 1, style="/D")
        writer.add_metadata({"/Title": config["title"], "/Author": config["author"]})
        writer.page_mode = "/UseOutlines"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.write(path)
    print(f"{path}: {len(writer.pages)} pages, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
