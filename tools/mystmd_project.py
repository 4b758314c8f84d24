"""The book as a project of mystmd: what a move to Jupyter Book 2 would write.

Nothing here runs mystmd; forward.py does.
"""

import re
import shutil

import yaml
from sphinx_external_toc.parsing import parse_toc_yaml

OPTIONS = re.compile(r"^(`{3,}\{code-cell\}[^\n]*\n)---\n(.*?\n)---\n", flags=re.M | re.S)


def as_mystmd(text):
    """Rewrite the YAML of code cells as options of mystmd's directive; no line moves."""

    def rewrite(match):
        options = yaml.safe_load(match[2])
        tags, mystnb = options.pop("tags", []), options.pop("mystnb", {})
        figure = mystnb.get("figure", {})
        given = {"label": figure.get("name"), "caption": figure.get("caption"), **options}
        lines = [f":tags: [{', '.join(tags)}]"] if tags else []
        lines += [
            f":{key}: {' '.join(str(value).split())}" for key, value in given.items() if value
        ]
        spare = match[2].count("\n") + 2 - len(lines)
        return match[1] + "".join(f"{line}\n" for line in lines) + "\n" * spare

    return OPTIONS.sub(rewrite, text)


def entries(site_map, document):
    """Return the table of contents below a document, as mystmd wants it."""
    found = []
    for part in document.subtrees:
        children = []
        for name in map(str, part.items):
            below = entries(site_map, site_map[name]) if name in site_map else []
            children.append({"file": f"{name}.md", **({"children": below} if below else {})})
        found += [{"title": part.caption, "children": children}] if part.caption else children
    return found


def write_project(root, folder, more):
    """Write a book, and more pages by name, with a theme that is empty and so not fetched.

    Return the files of the book's pages.
    """
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    site_map = parse_toc_yaml(root / "_toc.yml")
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("vendor"))
    pages = [f"{name}.md" for name in site_map]
    for page in pages:
        text = (folder / page).read_text(encoding="utf-8")
        (folder / page).write_text(as_mystmd(text), encoding="utf-8")
    for page, text in more.items():
        (folder / page).write_text(text, encoding="utf-8")
    first = {"file": f"{site_map.root.docname}.md"}
    project = {
        "title": config["title"],
        "bibliography": config.get("bibtex_bibfiles", []),
        "toc": [first, *entries(site_map, site_map.root), *({"file": page} for page in more)],
    }
    whole = {"version": 1, "project": project, "site": {"template": "theme"}}
    (folder / "myst.yml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    (folder / "theme").mkdir()
    (folder / "theme" / "template.yml").write_text("jtex: v1\ntitle: none\n", encoding="utf-8")
    return pages
