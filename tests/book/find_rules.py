"""What lets a page be found and cited, as functions from a page to the list of what is wrong.

The addresses are worked out here anew, from `_config.yml`, and not by the extension's function.
"""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import yaml
from page_rules import ROOT, soup
from PIL import Image
from pybtex.database import parse_string
from pybtex.exceptions import PybtexError

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
REPOSITORY = CONFIG["repository"]["url"]


def published(config):
    """Return where the book is published, with a slash at the end."""
    owner, name = config["repository"]["url"].rstrip("/").lower().split("/")[-2:]
    own = config["repository"]["url"].rstrip("/").split("/")[-1]  # a path minds capitals
    folder = "" if name == f"{owner}.github.io" else own
    pages = config["html"].get("baseurl") or f"https://{owner}.github.io/{folder}"
    return pages.rstrip("/") + "/"


ADDRESS = published(CONFIG)
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def meta(page: Path) -> dict[str, list[str]]:
    """Return what the page says of itself in its head, by name."""
    found = {}
    for tag in soup(page).find_all("meta", content=True):
        found.setdefault(tag.get("name") or tag.get("property"), []).append(tag["content"])
    return found


def title(page: Path) -> str:
    """Return the page's title without its number."""
    heading = soup(page).select_one("article h1")
    text = "".join(heading.find_all(string=True, recursive=False)) if heading else ""
    return " ".join(text.split())


def describe(page: Path) -> list[str]:
    """Say what is wrong with the sentence that describes the page."""
    found = meta(page).get("description", [])
    if len(found) != 1:
        return [f"{len(found)} descriptions"]
    (text,) = found
    wrong = []
    if not 50 <= len(text) <= 200:
        wrong.append(f"{len(text)} characters, wanted 50 to 200")
    if re.search(r"[<>$`*{}\[\]\\]|&\w+;|\s\s", text):
        wrong.append("markup")
    if not re.fullmatch(r"[A-Z][^.?!]*(\.\w[^.?!]*)*\.", text):
        wrong.append("not one sentence")
    if re.search(r"\bthis (page|chapter)\b", text, re.I):
        wrong.append("speaks of itself")
    return wrong


def placed(page: Path, root: Path) -> list[str]:
    """Say which of the page's own addresses are not where it will stand."""
    wanted = ADDRESS + page.relative_to(root).as_posix()
    links = [link["href"] for link in soup(page).find_all("link", rel="canonical")]
    wrong = [] if links == [wanted] else [f"canonical: {links}"]
    url = meta(page).get("og:url")
    return wrong + ([] if url == [wanted] else [f"og:url: {url}"])


def card(page: Path, root: Path) -> list[str]:
    """Say what is wrong with what a messenger would show of a link to the page."""
    tags = meta(page)
    wanted = {
        "og:title": re.escape(title(page)),
        "og:description": re.escape((tags.get("description") or ["?"])[0]),
        "og:site_name": re.escape(CONFIG["title"]),
        "og:image": re.escape(ADDRESS) + r".+\.png",
        "og:image:alt": ".{12,}",
        "twitter:card": "summary_large_image",
    }
    wrong = [
        f"{name}: {tags.get(name)}"
        for name, pattern in wanted.items()
        if len(tags.get(name, [])) != 1 or not re.fullmatch(pattern, tags[name][0])
    ]
    for image in tags.get("og:image", []):
        path = root / image.removeprefix(ADDRESS)
        if not path.is_file():
            wrong.append(f"no picture {image}")
            continue
        size = [int((tags.get(f"og:image:{side}") or [0])[0]) for side in ("width", "height")]
        with Image.open(path) as picture:
            if list(picture.size) != size:
                wrong.append(f"the picture is {picture.size}, not {size}")
            wrong += crowded(np.array(picture.convert("L")))
        loaded = [tag.get("src") or tag.get("href", "") for tag in soup(page)(["img", "link"])]
        if any(path.name in source for source in loaded):
            wrong.append("the page loads the picture of its card")
    return wrong


def crowded(grey: np.ndarray) -> list[str]:
    """Say where the text of a card of 1200 by 630 leaves its column or comes near the address."""
    ink = grey < 200
    places = {"the right": ink[:, 764:796], "the left": ink[:, :68], "the foot": ink[540:552, :764]}
    return [f"the text runs into {name} of the card" for name, part in places.items() if part.any()]


def dated(page: Path) -> list[str]:
    """Say what is wrong with the date of the last change, where there is one."""
    footer = soup(page).select_one("footer .last-updated")
    machine = meta(page).get("article:modified_time", [])
    if footer is None:
        return ["a date in the head that readers do not see"] if machine else []
    shown = re.search(r"on (\d{4}-\d{2}-\d{2})\.", footer.get_text())
    if shown is None:
        return [f"not a date as 2026-11-25: {footer.get_text().strip()}"]
    wrong = [] if [time[:10] for time in machine] == [shown[1]] else [f"in the head: {machine}"]
    if date.fromisoformat(shown[1]) > datetime.now(UTC).date():
        wrong.append(f"{shown[1]} is in the future")
    return wrong


def links_back(page: Path, root: Path) -> list[str]:
    """Say what is wrong with the links by which a reader corrects the page."""
    name = page.relative_to(root).with_suffix("").as_posix()
    branch = CONFIG["repository"]["branch"]
    menu = soup(page).select(".article-header-buttons .dropdown-source-buttons a")
    links = {link.get_text().strip(): link["href"] for link in menu}
    wrong = []
    if links.get("Edit this page") != f"{REPOSITORY}/edit/{branch}/{name}.md":
        wrong.append(f"edit: {links.get('Edit this page')}")
    report = urlsplit(links.get("Report an error", ""))
    asked = parse_qs(report.query)
    about = name in asked.get("title", [""])[0] and asked.get("body") == [f"{ADDRESS}{name}.html"]
    if not report.geturl().startswith(f"{REPOSITORY}/issues/new?") or not about:
        wrong.append(f"report: {report.geturl()}")
    if len(links) != 2:
        wrong.append(f"more links than these: {sorted(links)}")
    return wrong


def cited(page: Path, root: Path) -> list[str]:
    """Say what is wrong with the citation under the page, in words and as BibTeX."""
    blocks = soup(page).select("article details.lop-cite")
    if len(blocks) != 1:
        return [f"{len(blocks)} citations"]
    (block,) = blocks
    wrong = ["opens by itself"] if block.has_attr("open") else []
    if not re.match(r"@misc\{[\w-]+,\n", block.pre.get_text()):  # pybtex forgives the comma
        wrong.append("BibTeX: no key")
    try:
        entries = list(parse_string(block.pre.get_text(), "bibtex").entries.values())
    except PybtexError as error:
        return [*wrong, f"BibTeX: {error}"]
    if len(entries) != 1:
        return [*wrong, f"{len(entries)} entries"]
    (entry,) = entries
    fields = {name.lower(): value for name, value in entry.fields.items()}
    changed = soup(page).select_one("footer .last-updated")
    day = re.findall(r"\d{4}-\d{2}-\d{2}", changed.get_text()) if changed else []
    wanted = {
        "title": f"{{{title(page)}}}",
        "url": ADDRESS + page.relative_to(root).as_posix(),
        "year": day[0][:4] if day else CONFIG["copyright"],
    }
    wrong += [
        f"{name}: {fields.get(name)}" for name, value in wanted.items() if fields.get(name) != value
    ]
    names = [str(person) for person in entry.persons.get("author", [])]
    if names != [f"{{{author['name']}}}" for author in CITATION["authors"]]:
        wrong.append(f"author: {names}")
    words = " ".join(block.p.get_text().split())
    says = [title(page), wanted["url"], wanted["year"], f"version {CITATION['version']}", *day]
    says += [author["name"] for author in CITATION["authors"]]
    return wrong + [f"the sentence lacks {part}" for part in says if part not in words]


def scholarly(page: Path, root: Path) -> list[str]:
    """Say what is wrong with what Google Scholar reads; only chapters tell it anything."""
    tags = {name: value for name, value in meta(page).items() if str(name).startswith("citation_")}
    runs = soup(page).select_one("article div.cell, article .lop-claim") is not None
    if not runs:
        return [f"no chapter, but {sorted(tags)}"] if tags else []
    wanted = {
        "citation_title": re.escape(title(page)),
        "citation_author": ".+",
        "citation_publication_date": r"\d{4}(/\d\d/\d\d)?",
        "citation_fulltext_html_url": re.escape(ADDRESS + page.relative_to(root).as_posix()),
    }
    return [
        f"{name}: {tags.get(name)}"
        for name, pattern in wanted.items()
        if not re.fullmatch(pattern, (tags.get(name) or [""])[0])
    ]
