"""How to cite a page: a folded block at its end, and what Google Scholar reads.

Authors and version stand in ``CITATION.cff``, the date of a page is git's. The address is that of
the page as it is now, so the citation names the version and the date too.
"""

from __future__ import annotations

import hashlib
import re
from html import escape
from pathlib import Path
from typing import NamedTuple

import yaml
from docutils import nodes
from lop_site import last_changed, page_address

BLOCK = """<details class="lop-cite"><summary>Cite this page</summary>
<p>{plain}</p>
<div class="highlight"><pre>{bibtex}</pre></div>
</details>
"""
SPECIAL = re.compile(r"[&%#_{}~^\\]")
ESCAPED = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


class Work(NamedTuple):
    """What a citation says."""

    key: str
    title: list[str]
    """Words and formulas in turn, a word first."""
    book: str
    """Title of the book; empty where the page stands for the whole book."""
    authors: list[dict]
    version: str
    year: str
    changed: str
    """Date of the last change; empty where git does not know it."""
    address: str


def work_of(app, pagename):
    """Collect what there is to say of a page."""
    citation = yaml.safe_load(Path(app.srcdir, "CITATION.cff").read_text(encoding="utf-8"))
    changed = last_changed(app.env, pagename)
    root = pagename == app.config.root_doc
    repository = app.config.html_theme_options.get("repository_url", "").rstrip("/")
    return Work(
        key="-".join([repository.rpartition("/")[2] or "book", *pagename.split("/")[1:]]),
        title=[app.config.html_title] if root else parts(app.env.titles[pagename]),
        book="" if root else app.config.html_title,
        authors=citation["authors"],
        version=str(citation["version"]),
        year=str(changed.year) if changed else app.config.copyright[-4:],
        changed=f"{changed:%Y-%m-%d}" if changed else "",
        address=page_address(app, pagename),
    )


def parts(title):
    """Split a title into text and formulas in turn, text first."""
    found = [""]
    for node in title.findall(lambda node: isinstance(node, nodes.Text | nodes.math)):
        if isinstance(node, nodes.math):
            found += [node.astext(), ""]
        elif not isinstance(node.parent, nodes.math):
            found[-1] += node.astext()
    return found


def people(authors, last_first):
    """Name the authors as CITATION.cff does: persons by two names, anything else by one."""
    names = []
    for author in authors:
        if "name" in author:
            names.append(author["name"])
        else:
            pair = [author["family-names"], author["given-names"]]
            names.append(", ".join(pair) if last_first else " ".join(reversed(pair)))
    return names


def plain(work):
    """Cite in one sentence, as HTML."""
    title = "".join(
        f'<span class="math notranslate nohighlight">\\({escape(part)}\\)</span>'
        if i % 2
        else escape(part, quote=False)
        for i, part in enumerate(work.title)
    )
    book = f"<em>{escape(work.book, quote=False)}</em>"
    title = f"“{title}”, in: {book}" if work.book else f"<em>{title}</em>"
    authors = escape(", ".join(people(work.authors, last_first=False)), quote=False)
    changed = f" (last changed {work.changed})" if work.changed else ""
    return (
        f"{authors}: {title}, version {escape(work.version)}, {work.year}. "
        f"{escape(work.address)}{changed}"
    )


def bibtex(work):
    """Cite as an entry of BibTeX."""
    title = "".join(f"${part}$" if i % 2 else tex(part) for i, part in enumerate(work.title))
    authors = [
        f"{{{tex(name)}}}" if "name" in author else tex(name)
        for author, name in zip(work.authors, people(work.authors, last_first=True), strict=True)
    ]
    where = f"In: {tex(work.book)}, version" if work.book else "Version"
    fields = {
        "author": " and ".join(authors),
        "title": f"{{{title}}}",  # twice in braces: capitals stay
        "year": work.year,
        "howpublished": f"{where} {tex(work.version)}",
        "url": work.address,
        "note": f"Last changed {work.changed}" if work.changed else "",
    }
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields.items() if value]
    return f"@misc{{{work.key},\n{''.join(lines)}}}\n"


def tex(text):
    """Escape what TeX would take for a command."""
    return SPECIAL.sub(lambda found: ESCAPED.get(found[0], "\\" + found[0]), text)


def scholar(work):
    """Write the tags by which Google Scholar knows a chapter."""
    tags = [("title", "".join(work.title))]
    tags += [("author", name) for name in people(work.authors, last_first=True)]
    tags += [("publication_date", (work.changed or work.year).replace("-", "/"))]
    tags += [("inbook_title", work.book)] if work.book else []
    tags += [("fulltext_html_url", work.address)]
    return "".join(
        f'<meta name="citation_{name}" content="{escape(text)}" />\n' for name, text in tags
    )


def add_citation(app, pagename, templatename, context, doctree):
    """Put the block under a page; the tags onto those that are works, not lists or reference."""
    known = app.config.html_baseurl and Path(app.srcdir, "CITATION.cff").exists()
    if doctree is None or not known:
        return
    work = work_of(app, pagename)
    context["body"] += BLOCK.format(plain=plain(work), bibtex=escape(bibtex(work), quote=False))
    if "kernelspec" in app.env.metadata[pagename]:
        context["metatags"] += scholar(work)


def setup(app):
    """Connect everything above."""
    app.setup_extension("lop_site")
    app.connect("html-page-context", add_citation)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
