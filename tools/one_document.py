"""Make one HTML document of all built pages, to be printed: the articles in the order of _toc.yml,
with a title page, a table of contents and the style of a book.
"""

import copy
import re
import subprocess
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib
import yaml
from articles import LISTED, chapters, take_article
from bs4 import BeautifulSoup

HERE = Path(__file__).resolve().parent
# The fonts that come with matplotlib: wherever the book can be built, it is printed the same.
FONTS = {
    ("Book Serif", 400, "normal"): "STIXGeneral",
    ("Book Serif", 400, "italic"): "STIXGeneralItalic",
    ("Book Serif", 700, "normal"): "STIXGeneralBol",
    ("Book Serif", 700, "italic"): "STIXGeneralBolIta",
    ("Book Sans", 400, "normal"): "DejaVuSans",
    ("Book Sans", 700, "normal"): "DejaVuSans-Bold",
    ("Book Mono", 400, "normal"): "DejaVuSansMono",
    ("Book Mono", 400, "italic"): "DejaVuSansMono-Oblique",
    ("Book Mono", 700, "normal"): "DejaVuSansMono-Bold",
}
# For screen readers MathJax adds a hidden copy to each formula; it would be printed as well.
NO_SECOND_COPY = "; MathJax.options.renderActions = { assistiveMml: [] };"


def title_of(heading):
    """Return a heading as plain text, its formulas as they were typed."""
    return re.sub(r"\\[()]", "", " ".join(heading.get_text().split()))


def contents(soup, articles):
    """Build the table of contents; the numbers of the pages are filled in after printing."""
    nav = soup.new_tag("nav", attrs={"class": "contents"})
    heading = soup.new_tag("h1", attrs={"class": "level-1"})
    heading.string = "Contents"
    nav.append(heading)
    for title in [title for article in articles for title in article.select(LISTED)]:
        entry = soup.new_tag("a", href=f"#{title['id']}", attrs={"class": title["class"]})
        for kind in ("name", "leader", "number"):
            entry.append(soup.new_tag("span", attrs={"class": kind}))
        entry.contents[0].extend(copy.copy(child) for child in title.contents)
        nav.append(entry)
    return nav


def title_page(soup, config, day):
    """Build the first page: title, authors, date, licence, address."""
    front = BeautifulSoup(
        '<div class="front"><img alt=""/><p class="book-title"></p><p class="authors"></p>'
        '<p class="day"></p><p class="licence"></p><p class="address"><a></a></p></div>',
        "html.parser",
    ).div
    address = config["repository"]["url"]
    front.img["src"] = (HERE.parent / "book" / "_static" / "spectrum.svg").as_uri()
    front.select_one(".book-title").string = config["title"]
    front.select_one(".authors").string = config["author"]
    front.select_one(".day").string = day
    licence = BeautifulSoup(config["html"]["extra_footer"], "html.parser")
    front.select_one(".licence").extend(list(licence.contents))
    link = front.select_one(".address a")
    link["href"] = link.string = address
    return front


def written_on(root):
    """Return the date of the commit, or today's where there is no git."""
    command = ["git", "log", "-1", "--format=%cs"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    day = date.fromisoformat(done.stdout.strip()) if done.stdout.strip() else date.today()
    return f"{day.day} {day:%B %Y}"


def style(html, articles, book):
    """Return the style: fonts, colours of code, our own, and each chapter's running head."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = [
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; font-style: {slant}; '
        f'src: url("{(fonts / f"{file}.ttf").as_uri()}"); }}'
        for (family, weight, slant), file in FONTS.items()
    ]
    heads = []
    for number, article in enumerate(articles):
        head = title_of(article.select_one(".level-1")).replace("\\", "").replace('"', "\\22 ")
        article["style"] = f"page: chapter-{number}"
        left = f'@top-left {{ content: "{book}"; }}' if head != book else ""
        heads.append(f'@page chapter-{number} {{ {left} @top-right {{ content: "{head}"; }} }}')
    colours = (html / "_static" / "pygments.css").read_text(encoding="utf-8")
    ours = (HERE / "print.css").read_text(encoding="utf-8")
    return "\n".join([*faces, colours, ours, *heads])


def make_document(root, html):
    """Return the whole book as the text of one HTML document."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    listed = chapters(root)
    names = {chapter.name for chapter in listed}
    articles = [take_article(html, chapter, names) for chapter in listed]
    first = (html / f"{listed[0].name}.html").read_text(encoding="utf-8")
    pages = BeautifulSoup(first, "html.parser")
    mathjax = [
        script
        for script in pages.find_all("script")
        if "window.MathJax" in script.text or "tex-mml" in script.get("src", "")
    ]
    if len(mathjax) != 2:
        raise ValueError(f"{listed[0].name}: wanted MathJax and its settings, found {mathjax}")
    for script in mathjax:
        if "src" not in script.attrs:
            script.string += NO_SECOND_COPY
        else:
            source = html / listed[0].name / ".." / urlsplit(script["src"]).path
            script["src"] = source.resolve().as_uri()
    soup = BeautifulSoup(
        '<!doctype html><html data-theme="light"><head><meta charset="utf-8"/><title></title>'
        "<style></style></head><body></body></html>",
        "html.parser",
    )
    soup.html["lang"] = pages.html["lang"]
    soup.title.string = config["title"]
    soup.style.string = style(html, articles, config["title"])
    soup.head.extend(mathjax)
    front = title_page(soup, config, written_on(root))
    soup.body.extend([front, contents(soup, articles), *articles])
    for heading in soup.body.find_all(re.compile("^h[1-6]$")):
        heading["data-title"] = title_of(heading)  # MathJax will take the text of formulas away
    return str(soup)
