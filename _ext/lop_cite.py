"""How to cite a page: a folded block at its end, and what Google Scholar reads.

Authors and version stand in ``CITATION.cff``, the date of a page is git's. The address is that of
the page as it is now, so the citation names the version and the date too.
"""

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
    text = {key: escape(str(said), quote=False) for key, said in work.items()}
    title = "“{title}”, in: <em>{book}</em>" if work["book"] else "<em>{title}</em>"
    sentence = f"{{by}}: {title}, version {{version}}, {{year}}. {{address}}"
    changed = f" (last changed {work['changed']})" if work["changed"] else ""
    return sentence.format(by=escape(authors, quote=False), **text) + changed


def bibtex(work):
    """Cite as an entry of BibTeX; what is in braces twice is not two names, and keeps capitals."""
    authors = [f"{{{x['name']}}}" if "name" in x else name(x) for x in work["authors"]]
    fields = {
        "author": " and ".join(authors),
        "title": f"{{{work['title']}}}",
        "year": work["year"],
        "howpublished": f"In: {work['book']}, version {work['version']}"
        if work["book"]
        else f"Version {work['version']}",
        "note": f"Last changed {work['changed']}" if work["changed"] else "",
    }
    tex = {key: re.sub(r"([&%#_$])", r"\\\1", said) for key, said in fields.items() if said}
    lines = [f"  {key} = {{{said}}},\n" for key, said in {**tex, "url": work["address"]}.items()]
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
