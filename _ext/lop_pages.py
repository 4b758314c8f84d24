"""What is changed in the HTML of every page: lighter, reachable by keyboard, nothing remote."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def plain_bibliography(app, pagename, templatename, context, doctree):
    """Take the roles off the bibliography: a list may not own entries of the role they have.

    A screen reader reads the entries without them; with them it announces an empty list.
    """
    if 'class="citation-list"' in context.get("body", ""):
        for role in (' role="list"', ' role="doc-biblioentry"'):
            context["body"] = context["body"].replace(role, "")


def reachable_tables(app, pagename, templatename, context, doctree):
    """Let the keyboard reach the boxes in which wide tables scroll."""
    box = 'class="pst-scrollable-table-container"'
    context["body"] = context.get("body", "").replace(box, f'{box} tabindex="0"')


# Names, punctuation and white space have the colour of the page in both themes' highlighting, and
# nobody sees the colour of a dot.
PLAIN = re.compile(r'<span class="(?:n|nn|p|w|o(?=">\.<))">([^<]*)</span>')


def lighter_code(app, pagename, templatename, context, doctree):
    """Take off the marks in highlighted code that change nothing: a third of a chapter's weight."""
    context["body"] = PLAIN.sub(r"\1", context.get("body", ""))


# Read from a folder, a page may not fetch another one, of which Sphinx would show some lines.
ONLY_TITLES = """if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}"""


def search_from_a_folder(app, pagename, templatename, context, doctree):
    """Let the search show titles alone where the book is opened as files, instead of failing."""
    if pagename == "search":
        app.add_js_file(None, body=ONLY_TITLES)


def lighter_pages(app):
    """Leave out blank lines, indentation and comments of the templates: two kilobytes a page."""
    if app.builder.format != "html":
        return
    render = app.builder.templates.render

    def render_lightly(template, context):
        parts = re.split(r"(<pre\b.*?</pre>)", render(template, context), flags=re.S)
        parts[::2] = [re.sub(r"\s*<!--.*?-->|(?<=\n)\s+", "", part) for part in parts[::2]]
        return "".join(parts)

    app.builder.templates.render = render_lightly


def drop_thebe(app, config):
    """Disconnect sphinx-thebe, but for its style sheet, to which pages still link."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def setup(app):
    """Connect everything above."""
    app.connect("config-inited", drop_thebe)
    app.connect("builder-inited", lighter_pages)
    app.connect("html-page-context", plain_bibliography)
    app.connect("html-page-context", reachable_tables)
    app.connect("html-page-context", lighter_code)
    app.connect("html-page-context", search_from_a_folder)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
