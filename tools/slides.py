"""Make slides of the lecture: its built page, cut at the headings, in a folder without a network.

usage: slides.py [FOLDER_OF_THE_BUILT_PAGES [FOLDER_OF_THE_SLIDES]]

What is on the page and not on a slide: code, numbers of figures, and what is for readers (the class
``page-only``). What is for the speaker (the class ``notes``) shows in the second window. Links lead
to the published pages. reveal.js comes with sphinx-revealjs, of which nothing else is used.
"""

import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import yaml
from bs4 import BeautifulSoup
from sphinx_revealjs.utils import get_revealjs_path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_site import address_said  # noqa: E402

HTML = ROOT / "_build" / "html"
SLIDES = ROOT / "_build" / "slides"
LECTURE = "book/teaching/lecture.html"
NOT_SHOWN = "a.headerlink, .lop-cite, .page-only, .cell_input, details, .caption-number, button"
# Of reveal.js: not what is for developers, nor the plugins that are not used.
LEFT_OUT = ["*.map", "*.esm.js", "*.scss", "*.ttf", "*.eot"]
LEFT_OUT += ["highlight", "markdown", "math", "search", "zoom"]
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="_static/favicon.svg">
<link rel="stylesheet" href="_static/revealjs/dist/reset.css">
<link rel="stylesheet" href="_static/revealjs/dist/reveal.css">
<link rel="stylesheet" href="_static/revealjs/dist/theme/white.css">
<link rel="stylesheet" href="_static/slides.css">
{mathjax}
<!-- a slide that is not shown has no letters whose height could be matched -->
<script>MathJax.chtml = {{ matchFontHeight: false }};</script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="_static/revealjs/dist/reveal.js"></script>
<script src="_static/revealjs/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{
  width: 1280, height: 720, margin: 0.03, center: false, hash: true, slideNumber: "c/t",
  transition: "none", controlsTutorial: false, scrollActivationWidth: null, plugins: [RevealNotes],
}});
</script>
</body>
</html>
"""


def slides_of(article, soup):
    """Return the sections of the article, each a slide."""
    for element in article.select(NOT_SHOWN):
        element.decompose()
    for notes in article.select(".admonition.notes"):
        notes.select_one(".admonition-title").decompose()
        notes.name, notes.attrs = "aside", {"class": "notes"}
    for cell in article.select("div.cell"):
        if not cell.get_text(strip=True) and not cell.find(["img", "script", "div.lop-live"]):
            cell.decompose()
    whole = article.find("section")
    first = soup.new_tag("section", id=whole["id"])
    parts = whole.find_all("section", recursive=False)
    first.extend(child for child in list(whole.children) if child not in parts)
    return [first, *parts]


def make_slides(html, folder, site):
    """Write the slides and all that they show into a folder."""
    page = html / LECTURE
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    shutil.rmtree(folder, ignore_errors=True)
    slides = slides_of(soup.select_one("article.bd-article"), soup)
    for link in (link for slide in slides for link in slide.select("a[href]")):
        link["href"] = urljoin(f"{site}{LECTURE}", link["href"])
    up = "../" * LECTURE.count("/")
    files = ["_static/favicon.svg", "_static/slides.css"]
    for each in (each for slide in slides for each in slide.select("img, script[src]")):
        if not urlsplit(each["src"]).scheme:
            each["src"] = each["src"].removeprefix(up)
            files.append(each["src"])
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(html / name, folder / name)
    reveal, leave = get_revealjs_path(), shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(reveal, folder / "_static" / "revealjs", ignore=leave)
    shutil.copytree(html / "_static/vendor/mathjax", folder / "_static/vendor/mathjax")
    mathjax = [
        str(script).replace(f'src="{up}', 'src="')
        for script in soup.select("head script, body script")
        if "window.MathJax" in script.text or "mathjax" in script.get("src", "")
    ]
    text = PAGE.format(
        title=re.sub(r"\s+", " ", soup.title.get_text()),
        mathjax="\n".join(mathjax[::-1] if "src" in mathjax[0] else mathjax),
        slides="\n".join(map(str, slides)),
    )
    (folder / "index.html").write_text(text, encoding="utf-8")


def main(html=HTML, folder=SLIDES):
    """Make slides of the lecture in one folder of built pages."""
    if not (html / LECTURE).is_file():
        sys.exit("There is no book yet: make book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    make_slides(html, folder, address_said(config))
    print(f"The slides are in {folder}.")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
