"""What lets a page be found and cited, as functions from a page to the list of what is wrong.

The addresses are worked out here anew, from `_config.yml`, and not by the extension's function.
"""

import re
from datetime import UTC, date, datetime
from urllib.parse import parse_qs, urlsplit

import yaml
from page_rules import ROOT, soup
from PIL import Image
from pybtex.database import parse_string
from pybtex.exceptions import PybtexError

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
REPOSITORY = CONFIG["repository"]["url"]
AUTHORS = [author["name"] for author in CITATION["authors"]]


def published(config):
    """Return where the book is published, with a slash at the end."""
    owner, name = config["repository"]["url"].rstrip("/").split("/")[-2:]  # a path minds capitals
    host = f"{owner.lower()}.github.io"
    folder = "" if name.lower() == host else name
    return (config["html"].get("baseurl") or f"https://{host}/{folder}").rstrip("/") + "/"


ADDRESS = published(CONFIG)


def meta(page):
    """Return what the page says of itself in its head, by name."""
    links = soup(page).find_all("link", rel="canonical")
    found = {"canonical": [link["href"] for link in links]}
    for tag in soup(page).find_all("meta", content=True):
        found.setdefault(tag.get("name") or tag.get("property"), []).append(tag["content"])
    return found


def title(page):
    """Return the page's title without its number."""
    heading = soup(page).select_one("article h1")
    return " ".join("".join(heading.find_all(string=True, recursive=False)).split())


def day(page):
    """Return the date of the last change that readers see; "" where there is none."""
    shown = soup(page).select_one("footer .last-updated")
    return re.sub(r".*on (\d{4}-\d{2}-\d{2})\.$", r"\1", shown.get_text().strip()) if shown else ""


def describe(page, root):
    """Say what is wrong with the sentence that describes the page."""
    (text, *more) = meta(page).get("description", [""])
    wrong = ["two descriptions"] if more else []
    if not 50 <= len(text) <= 200:
        wrong.append(f"{len(text)} characters, wanted 50 to 200")
    if re.search(r"[<>$`*{}\[\]\\]|&\w+;|\s\s", text):
        wrong.append("markup")
    if not re.fullmatch(r"[A-Z][^.?!]*(\.\w[^.?!]*)*\.", text):
        wrong.append("not one sentence")
    if re.search(r"\bthis (page|chapter)\b", text, re.I):
        wrong.append("speaks of itself")
    return wrong


def head(page, root):
    """Say which tags are not what search engines, messengers and Google Scholar read."""
    tags, here = meta(page), re.escape(ADDRESS + page.relative_to(root).as_posix())
    wanted = {
        "canonical": here,
        "og:url": here,
        "og:title": re.escape(title(page)),
        "og:description": re.escape(tags.get("description", ["?"])[0]),
        "og:site_name": re.escape(CONFIG["title"]),
        "og:image": re.escape(ADDRESS) + r".+\.png",
        "og:image:alt": ".{12,}",
        "twitter:card": "summary_large_image",
    }
    scholar = {
        "citation_title": re.escape(title(page)),
        "citation_author": re.escape(AUTHORS[0]),
        "citation_publication_date": r"\d{4}(/\d\d/\d\d)?",
        "citation_fulltext_html_url": here,
    }
    if soup(page).select_one("article div.cell, article .lop-claim"):  # a chapter
        wanted |= scholar
    elif named := scholar.keys() & tags.keys():
        return [f"no chapter, but {sorted(named)}"]
    return [
        f"{name}: {tags.get(name)}"
        for name, pattern in wanted.items()
        if len(tags.get(name, [])) != 1 or not re.fullmatch(pattern, tags[name][0])
    ]


def card(page, root):
    """Say what is wrong with the picture that a messenger would show."""
    tags = meta(page)
    path = root / tags["og:image"][0].removeprefix(ADDRESS)
    if not path.is_file():
        return [f"no picture {path}"]
    said = [int(tags.get(f"og:image:{side}", [0])[0]) for side in ("width", "height")]
    with Image.open(path) as picture:
        wrong = [] if list(picture.size) == said else [f"the picture is {picture.size}, not {said}"]
    loaded = [tag.get("src") or tag.get("href", "") for tag in soup(page)(["img", "link"])]
    return wrong + ["the page loads it" for source in loaded if path.name in source]


def dated(page, root):
    """Say what is wrong with the date of the last change, where there is one."""
    shown, machine = day(page), meta(page).get("article:modified_time", [])
    if [time[:10] for time in machine] != ([shown] if shown else []):
        return [f"{shown} for readers, {machine} in the head"]
    future = shown and date.fromisoformat(shown) > datetime.now(UTC).date()
    return [f"{shown} is in the future"] if future else []


def links_back(page, root):
    """Say what is wrong with the links by which a reader corrects the page."""
    name = page.relative_to(root).with_suffix("").as_posix()
    menu = soup(page).select(".article-header-buttons .dropdown-source-buttons a")
    links = {link.get_text().strip(): link["href"] for link in menu}
    edit, report = (links.pop(text, "") for text in ("Edit this page", "Report an error"))
    asked = parse_qs(urlsplit(report).query)
    about = name in asked.get("title", [""])[0] and asked.get("body") == [f"{ADDRESS}{name}.html"]
    rules = {
        f"edit: {edit}": edit == f"{REPOSITORY}/edit/{CONFIG['repository']['branch']}/{name}.md",
        f"report: {report}": about and report.startswith(f"{REPOSITORY}/issues/new?"),
        f"more links than these: {sorted(links)}": not links,
    }
    return [wrong for wrong, holds in rules.items() if not holds]


def cited(page, root):
    """Say what is wrong with the citation under the page, in words and as BibTeX."""
    block = soup(page).select_one("article details.lop-cite")
    if block is None or block.has_attr("open"):
        return ["no citation, or one that opens by itself"]
    try:
        (entry,) = parse_string(block.pre.get_text(), "bibtex").entries.values()
    except (PybtexError, ValueError) as error:
        return [f"BibTeX: {error}"]
    wanted = {
        "title": f"{{{title(page)}}}",
        "url": ADDRESS + page.relative_to(root).as_posix(),
        "year": day(page)[:4] or CONFIG["copyright"],
    }
    got = {key: entry.fields.get(key) for key in wanted}
    wrong = [f"{key}: {got[key]}" for key in wanted if got[key] != wanted[key]]
    names = [str(person) for person in entry.persons.get("author", [])]
    if names != [f"{{{author}}}" for author in AUTHORS]:
        wrong.append(f"author: {names}")
    if not re.match(r"@misc\{[\w-]+,\n", block.pre.get_text()):  # pybtex forgives the comma
        wrong.append("BibTeX: no key")
    says = [title(page), wanted["url"], wanted["year"], day(page), *AUTHORS]
    says.append(f"version {CITATION['version']}")
    words = " ".join(block.p.get_text().split())
    return wrong + [f"the sentence lacks {part}" for part in says if part not in words]


RULES = (describe, head, card, dated, links_back, cited)
