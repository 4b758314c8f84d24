"""Make one HTML document of all built pages, to be printed: the articles in the order of _toc.yml,
in the style of the site and what print.css adds, with a title page and a table of contents.
"""

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
    "STIXGeneral": '"Book Serif"; font-weight: 400; font-style: normal',
    "STIXGeneralItalic": '"Book Serif"; font-weight: 400; font-style: italic',
    "STIXGeneralBol": '"Book Serif"; font-weight: 700; font-style: normal',
    "STIXGeneralBolIta": '"Book Serif"; font-weight: 700; font-style: italic',
    "DejaVuSans": '"Book Sans"; font-weight: 400; font-style: normal',
    "DejaVuSans-Bold": '"Book Sans"; font-weight: 700; font-style: normal',
    "DejaVuSansMono": '"Book Mono"; font-weight: 400; font-style: normal',
}
DOCUMENT = """<!doctype html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8"><title>{title}</title>
{site}
<style>{style}</style>
</head>
<body>
<div class="front">
<img alt="" src="{picture}">
<p class="book-title">{title}</p><p class="authors">{author}</p><p>{day}</p><p>{licence}</p>
<p><a href="{address}">{address}</a></p>
</div>
<nav class="contents"><h1 class="level-1">Contents</h1>
{contents}
</nav>
{articles}
</body>
</html>
"""
ENTRY = (
    '<a href="#{id}" class="{kind}"><span class="name">{name}</span>'
    '<span class="leader"></span><span class="number"></span></a>'
)
# For screen readers MathJax adds a hidden copy to each formula; it would be printed as well.
NO_SECOND_COPY = "; MathJax.options.renderActions = { assistiveMml: [] };"


def title_of(heading):
    """Return a heading as plain text, its formulas as they were typed."""
    return re.sub(r"\\[()]", "", " ".join(heading.get_text().split()))


def contents(articles):
    """Return the table of contents; the numbers of the pages are filled in after printing."""
    return "\n".join(
        ENTRY.format(id=title["id"], kind=title["class"][0], name=title.decode_contents())
        for article in articles
        for title in article.select(LISTED)
    )


def written_on(root):
    """Return the date of the commit, or today's where there is no git."""
    command = ["git", "log", "-1", "--format=%cs"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    day = date.fromisoformat(done.stdout.strip()) if done.stdout.strip() else date.today()
    return f"{day.day} {day:%B %Y}"


def style(articles, book):
    """Return what comes after the site's style: fonts, print.css, each chapter's running head."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    lines = [
        f'@font-face {{ font-family: {face}; src: url("{(fonts / f"{file}.ttf").as_uri()}"); }}'
        for file, face in FONTS.items()
    ]
    lines.append((HERE / "print.css").read_text(encoding="utf-8"))
    for number, article in enumerate(articles):
        head = title_of(article.select_one(".level-1")).replace("\\", "").replace('"', "\\22 ")
        article["style"] = f"page: chapter-{number}"
        left = f'@top-left {{ content: "{book}"; }}' if head != book else ""
        lines.append(f'@page chapter-{number} {{ {left} @top-right {{ content: "{head}"; }} }}')
    return "\n".join(lines)


def site_head(page):
    """Return the style sheets of a page, and MathJax with its settings, by their full addresses."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    scripts = [
        script
        for script in soup.find_all("script")
        if "window.MathJax" in script.text or "tex-mml" in script.get("src", "")
    ]
    if len(scripts) != 2:
        raise ValueError(f"{page}: wanted MathJax and its settings, found {scripts}")
    found = [*soup.select("link[rel=stylesheet]"), *scripts]
    for element in found:
        for key in {"src", "href"} & element.attrs.keys():
            element[key] = (page.parent / urlsplit(element[key]).path).resolve().as_uri()
        if "window.MathJax" in element.text:
            element.string += NO_SECOND_COPY
    return "\n".join(map(str, found))


def make_document(root, html):
    """Return the whole book as the text of one HTML document."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    listed = chapters(root)
    names = {chapter.name for chapter in listed}
    articles = [take_article(html, chapter, names) for chapter in listed]
    text = DOCUMENT.format(
        title=config["title"],
        site=site_head(html / f"{listed[0].name}.html"),
        style=style(articles, config["title"]),
        picture=(root / "book" / "_static" / "spectrum.svg").as_uri(),
        author=config["author"],
        day=written_on(root),
        licence=config["html"]["extra_footer"],
        address=config["repository"]["url"],
        contents=contents(articles),
        articles="\n".join(map(str, articles)),
    )
    soup = BeautifulSoup(text, "html.parser")
    for heading in soup.body.find_all(re.compile("^h[1-6]$")):
        heading["data-title"] = title_of(heading)  # MathJax will take the text of formulas away
    return str(soup)
