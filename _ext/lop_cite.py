"""How to cite a page: a folded block at its end, and what Google Scholar reads.

Authors and version stand in ``CITATION.cff``, the date of a page is git's. The address is that of
the page as it is now, so the citation names the version and the date too.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import yaml
from lop_site import last_changed, page_address

BLOCK = """<details class="lop-cite"><summary>Cite this page</summary>
<p>{}</p>
<div class="highlight"><pre>{}</pre></div>
</details>
"""


def name(author, last_first=True):
    """Name an author as CITATION.cff does: a person by two names, anybody else by one."""
    if "name" in author:
        return author["name"]
    pair = author["family-names"], author["given-names"]
    return ", ".join(pair) if last_first else " ".join(reversed(pair))


def plain(work):
    """Cite in one sentence, as HTML."""
    authors = ", ".join(name(author, last_first=False) for author in work["authors"])
    title, book = escape(work["title"], quote=False), escape(work["book"], quote=False)
    title = f"“{title}”, in: <em>{book}</em>" if book else f"<em>{title}</em>"
    changed = f" (last changed {work['changed']})" if work["changed"] else ""
    return (
        f"{escape(authors, quote=False)}: {title}, version {escape(work['version'])}, "
        f"{work['year']}. {escape(work['address'])}{changed}"
    )


def tex(text):
    """Escape what TeX would take for a command."""
    return re.sub(r"([&%#_$])", r"\\\1", text)


def bibtex(work):
    """Cite as an entry of BibTeX."""
    braces = "{{{}}}".format  # for what is not two names
    authors = [tex(name(x)) if "name" not in x else braces(tex(x["name"])) for x in work["authors"]]
    where = f"In: {tex(work['book'])}, version" if work["book"] else "Version"
    fields = {
        "author": " and ".join(authors),
        "title": braces(tex(work["title"])),  # twice in braces: capitals stay
        "year": work["year"],
        "howpublished": f"{where} {tex(work['version'])}",
        "url": work["address"],
        "note": f"Last changed {work['changed']}" if work["changed"] else "",
    }
    lines = [f"  {field} = {{{value}}},\n" for field, value in fields.items() if value]
    return f"@misc{{{work['key']},\n{''.join(lines)}}}\n"


def scholar(work):
    """Write the tags by which Google Scholar knows a chapter."""
    tags = [("title", work["title"])]
    tags += [("author", name(author)) for author in work["authors"]]
    tags += [("publication_date", (work["changed"] or work["year"]).replace("-", "/"))]
    tags += [("inbook_title", work["book"])] if work["book"] else []
    tags += [("fulltext_html_url", work["address"])]
    return "".join(f'<meta name="citation_{key}" content="{escape(x)}" />\n' for key, x in tags)


def add_citation(app, pagename, templatename, context, doctree):
    """Put the block under a page; the tags onto those that are works, not lists or reference."""
    source, config = Path(app.srcdir, "CITATION.cff"), app.config
    if doctree is None or not config.html_baseurl or not source.exists():
        return
    citation = yaml.safe_load(source.read_text(encoding="utf-8"))
    changed = last_changed(app.env, pagename)
    root = pagename == config.root_doc  # it stands for the whole book
    book = config.html_theme_options.get("repository_url", "").rstrip("/").rpartition("/")[2]
    work = {
        "key": "-".join([book or "book", *pagename.split("/")[1:]]),
        "title": config.html_title if root else app.env.titles[pagename].astext(),
        "book": "" if root else config.html_title,
        "authors": citation["authors"],
        "version": str(citation["version"]),
        "year": str(changed.year) if changed else config.copyright[-4:],
        "changed": f"{changed:%Y-%m-%d}" if changed else "",
        "address": page_address(app, pagename),
    }
    context["body"] += BLOCK.format(plain(work), escape(bibtex(work), quote=False))
    if "kernelspec" in app.env.metadata[pagename]:
        context["metatags"] += scholar(work)


def setup(app):
    """Connect what is above."""
    app.connect("html-page-context", add_citation)
