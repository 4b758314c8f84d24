"""Print the whole book as one PDF, through Chromium.

usage: pdf.py [FOLDER_OF_THE_BUILT_PAGES [PDF]]

Chromium cannot say in a table of contents on which page a section begins. So the book is printed
twice: first to read from the PDF where each heading came to stand, then with the numbers in
place. Nothing may have moved between the two; that is checked.
"""

import logging
import re
import sys
import tempfile
from pathlib import Path

import yaml
from chromium import HOW_TO_GET, find_chromium, launch
from one_document import make_document
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
PDF = ROOT / "build" / "lop-book.pdf"
logging.getLogger("pypdf").setLevel(logging.ERROR)  # it complains of Chromium's count of objects
WIDTH = round(150 / 25.4 * 96)  # of the column in print.css, in pixels, so that it measures alike

# Formulas that MathJax did not set, or set as an error.
UNSET = """async () => {
  await MathJax.startup.promise;
  const bare = [...document.querySelectorAll(".math")].filter(
    (formula) => formula.textContent.trim() && !formula.querySelector("mjx-container"));
  const errors = [...document.querySelectorAll("mjx-merror")];
  return [...bare, ...errors].map((formula) => formula.textContent.trim().slice(0, 60));
}"""

# What is too wide for the column is set smaller; reports what is then still too wide.
FIT = """async () => {
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode()));
  const right = document.body.getBoundingClientRect().right;
  const wide = [];
  const fit = (element, inner, room, least) => {
    let size = 1;
    while (inner().getBoundingClientRect().width > room() + 0.5 && size > least) {
      size -= 0.04;
      element.style.fontSize = `${size}em`;
    }
  };
  for (const box of document.querySelectorAll("mjx-container")) {
    const inner = box.querySelector("mjx-math");
    if (box.hasAttribute("display")) fit(box, () => inner, () => box.clientWidth, 0.6);
    else fit(box, () => inner, () => right - box.parentElement.getBoundingClientRect().left, 0.6);
  }
  for (const box of document.querySelectorAll("table")) {
    fit(box, () => box, () => box.parentElement.clientWidth, 0.7);
  }
  // tables that code prints lose their columns where lines wrap
  for (const box of document.querySelectorAll(".cell_output pre")) {
    box.style.whiteSpace = "pre";
    for (let size = 8; box.scrollWidth > box.clientWidth && size > 6.2; size -= 0.2) {
      box.style.fontSize = `${size - 0.2}pt`;
    }
    if (box.scrollWidth > box.clientWidth) box.removeAttribute("style");
  }
  for (const element of document.querySelectorAll("body :not(mjx-container *)")) {
    const box = element.getBoundingClientRect();
    const inline = element.closest("span.math");  // a letter may lean out of its own box
    const over = !inline && element.clientWidth && element.scrollWidth > element.clientWidth + 1;
    if (box.width && (over || box.right > right + 1)) {
      wide.push(`${element.tagName} ${element.className}: ${element.textContent.slice(0, 60)}`);
    }
  }
  return wide;
}"""

FILL = """(pages) => {
  for (const entry of document.querySelectorAll(".contents a")) {
    entry.querySelector(".number").textContent = pages[entry.getAttribute("href").slice(1)];
  }
}"""


HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(
  (heading) => heading.dataset.title)"""


def print_page(page, path):
    """Print what the browser shows; return the page, from 1, of each place that is linked to."""
    page.pdf(path=path, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
    reader = PdfReader(path)
    return {
        name.removeprefix("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def print_book(browser, document, path):
    """Print twice, the second time with the pages in the table of contents; return the headings."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 900})
    context.route(re.compile("^(?!file:|data:)"), lambda route: route.abort())
    page = context.new_page()
    page.emulate_media(media="print", color_scheme="light")
    page.goto(document.as_uri(), wait_until="load", timeout=120_000)
    if unset := page.evaluate(UNSET):
        raise ValueError("wanted every formula set, not so:\n" + "\n".join(unset))
    if wide := page.evaluate(FIT):
        raise ValueError("wanted everything within the column, too wide:\n" + "\n".join(wide))
    first = print_page(page, path)
    page.evaluate(FILL, first)
    if (second := print_page(page, path)) != first:
        moved = sorted(key for key in first if first[key] != second.get(key))
        raise ValueError(f"wanted no heading to move when the contents were filled: {moved}")
    headings = page.evaluate(HEADINGS)
    context.close()
    return headings


def finish(printed, path, author, headings):
    """Name the author, and write the outline's titles anew; open with it beside the page.

    Chromium takes the titles from the lines of print: a blank at which a line broke is lost.
    """
    writer = PdfWriter(clone_from=printed)
    entries = list(below(writer.root_object["/Outlines"]))
    if len(entries) != len(headings):
        raise ValueError(f"wanted {len(headings)} headings in the outline, got {len(entries)}")
    for entry, heading in zip(entries, headings, strict=True):
        entry[NameObject("/Title")] = TextStringObject(heading)
    writer.add_metadata({"/Author": author})
    writer.page_mode = "/UseOutlines"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write(path)
    return len(writer.pages)


def below(item):
    """Yield the entries of an outline in the order of the book."""
    child = item.get("/First")
    while child:
        entry = child.get_object()
        yield entry
        yield from below(entry)
        child = entry.get("/Next")


def main(html=HTML, path=PDF):
    """Print the built pages in one folder as one PDF."""
    if not (html / "index.html").is_file():
        sys.exit("There is no book yet: make book")
    executable = find_chromium()
    if executable is None:
        sys.exit(HOW_TO_GET)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        document, printed = Path(folder) / "book.html", Path(folder) / "book.pdf"
        document.write_text(make_document(ROOT, html.resolve()), encoding="utf-8")
        with launch(executable) as browser:
            headings = print_book(browser, document, printed)
        pages = finish(printed, path, config["author"], headings)
    print(f"{path}: {pages} pages, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
