"""What a built page must satisfy, as functions from a page to the list of what is wrong.

Nothing here knows pytest, so that test_rules_bite.py can feed the same functions broken pages.
"""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [f"{name}.html" for name in parse_toc_yaml(ROOT / "_toc.yml")]
REMOTE = re.compile(r"^(https?:)?//")
# What a browser fetches by itself, by tag and attribute; <a href> is not among it.
LOADED = [
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("object", "data"),
]
# Services that would run a page inside itself: they load scripts from elsewhere.
LAUNCHERS = ("unpkg.com", "thebe", "jupyterhub")
# Alt text that says nothing: the file's name, or the word for what it is.
EMPTY_ALT = re.compile(
    r"^(_images/|\.\./|.*\.(svg|png|jpe?g)$|(image|figure|plot|graph)\.?$)", re.I
)
WEIGHT = 300_000  # bytes of a page with its own images, without what all pages share


@cache
def soup(page: Path) -> BeautifulSoup:
    """Parse a page once for all rules."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def places(page: Path) -> set[str]:
    """Return the anchors of a page."""
    return {element["id"] for element in soup(page).find_all(id=True)}


def dead_links(page: Path, root: Path) -> list[str]:
    """List internal links to a file that is not there, or to an anchor that its page lacks."""
    dead = []
    for link in soup(page).find_all("a", href=True):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        anchor = unquote(parts.fragment)
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            dead.append(f"{link['href']}: no such file")
        elif anchor and target.suffix == ".html" and anchor not in places(target):
            dead.append(f"{link['href']}: no such place in the file")
    return dead


def remote_loads(page: Path) -> list[str]:
    """List what a browser would fetch from another machine to show the page."""
    found = [
        element[attribute]
        for tag, attribute in LOADED
        for element in soup(page).find_all(tag, attrs={attribute: True})
        if REMOTE.match(element[attribute]) and element.get("rel") != ["canonical"]
    ]
    for style in soup(page).find_all("style"):
        found += remote_in_css(style.get_text())
    for script in soup(page).find_all("script", src=False):
        found += re.findall(r"https?://[^\s\"'<>]+\.js\b", script.get_text())
    return found


def remote_in_css(text: str) -> list[str]:
    """List the addresses on other machines that a style sheet makes a browser fetch."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    loads = re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(
        r"@import\s+['\"]([^'\"]+)", text
    )
    return [address for address in loads if REMOTE.match(address)]


def images_without_alt(page: Path) -> list[str]:
    """List the images of the article that a screen reader could not tell."""
    article = soup(page).find("article") or soup(page)
    return [
        image.get("src", "?")
        for image in article.find_all("img")
        if not (alt := image.get("alt", "").strip()) or EMPTY_ALT.match(alt) or len(alt) < 12
    ]


def drawings(page: Path) -> list[str]:
    """List the diagrams that are not said, numbered, referred to, or in the theme's colours."""
    article = soup(page).find("article") or soup(page)
    found = []
    for svg in article.select("svg.lop-diagram"):
        figure = svg.find_parent("figure")
        said = [svg.find(id=name) for name in svg.get("aria-labelledby", "").split()]
        said = [each.name for each in said if each and each.get_text(strip=True)]
        wrong = {
            "no title and desc": svg.get("role") != "img" or said != ["title", "desc"],
            "no text": not svg.find("text"),
            "no number": not figure.select(".caption-number"),
            "no reference": not article.select(f'a.reference[href="#{figure.get("id")}"]'),
            "a colour of its own": re.search(r"\s(fill|stroke|style|color)=", str(svg)),
        }
        found += [f"{figure.get('id')}: {fault}" for fault, there in wrong.items() if there]
    return found


def launchers(page: Path) -> list[str]:
    """List every trace of a service that would run the page inside itself."""
    links = [element["href"] for element in soup(page).find_all("a", href=True)]
    scripts = [script.get_text() for script in soup(page).find_all("script")]
    classes = [" ".join(element["class"]) for element in soup(page).find_all("button", class_=True)]
    texts = [text.lower() for text in links + scripts + classes]
    return [name for name in LAUNCHERS if any(name in text for text in texts)]


def weight(page: Path, root: Path) -> int:
    """Return the bytes of the page and of the images that it alone shows."""
    images = {
        (page.parent / unquote(image["src"])).resolve()
        for image in soup(page).find_all("img", src=True)
        if not image["src"].startswith("data:")
    }
    shared = (root / "_static").resolve()
    own = [image for image in images if image.is_file() and not image.is_relative_to(shared)]
    return page.stat().st_size + sum(image.stat().st_size for image in own)
