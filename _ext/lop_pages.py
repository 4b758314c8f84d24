"""What is changed in the HTML of every page: lighter, reachable by keyboard, nothing remote."""

import re

BOX = 'class="pst-scrollable-table-container"'
# Names, punctuation and white space have the colour of the page in both themes' highlighting, and
# nobody sees the colour of a dot: without their marks a chapter weighs a third less.
PLAIN = re.compile(r'<span class="(?:n|nn|p|w|o(?=">\.<))">([^<]*)</span>')
# Read from a folder, a page may not fetch another one, of which Sphinx would show some lines.
ONLY_TITLES = """if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}"""


def change_body(app, pagename, templatename, context, doctree):
    """Let the keyboard reach the boxes in which wide tables scroll; make lists and code plain.

    A screen reader reads the entries of a bibliography without roles; with them, as a list that
    owns entries of another kind, it announces an empty one.
    """
    body = context.get("body", "").replace(BOX, f'{BOX} tabindex="0"')
    if 'class="citation-list"' in body:
        body = body.replace(' role="list"', "").replace(' role="doc-biblioentry"', "")
    context["body"] = PLAIN.sub(r"\1", body)
    if pagename == "search":
        app.add_js_file(None, body=ONLY_TITLES)


def trim_templates(app):
    """Leave out the lines and the indentation of the templates' own blocks."""
    if app.builder.format == "html":
        environment = app.builder.templates.environment
        environment.trim_blocks = environment.lstrip_blocks = True


def drop_thebe(app, config):
    """Disconnect sphinx-thebe, but for its style sheet, to which pages still link."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def setup(app):
    """Connect everything above."""
    app.connect("config-inited", drop_thebe)
    app.connect("builder-inited", trim_templates)
    app.connect("html-page-context", change_body)
