"""Pages that list what other pages hold: read after all others, as Markdown of our making."""

import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

LISTS = re.compile(r"^```\{(claims|status|assignments|goals)\}", re.M)


class Listing(SphinxDirective):
    """A directive that stands for the lines of Markdown that its function returns of it."""

    def run(self):
        """Read them as if they stood in the page."""
        found = nodes.container()
        lines = type(self).lines(self.env)
        self.state.nested_parse(StringList(lines, source=self.name), 0, found)
        return found.children


def add_listing(app, name, lines):
    """Make a directive known by the function that writes its lines."""
    app.add_directive(name, type(name, (Listing,), {"lines": staticmethod(lines)}))


def rubric(title):
    """Return the lines of a title that is in no table of contents."""
    return [f":::{{rubric}} {title}", ":::", ""]


def table(kind, head, rows):
    """Return the lines of a table with a class of its own."""
    cells = [head, ["---"] * len(head), *rows]
    lines = ["| " + " | ".join(str(x).replace("|", r"\|") for x in row) + " |" for row in cells]
    return [":::{table}", f":class: {kind}", "", *lines, ":::", ""]


def read_last(app, env, docnames):
    """Read the listing pages after the others, and whenever one of these is read."""
    if docnames:
        sources = {name: Path(env.doc2path(name)) for name in sorted(env.found_docs)}
        last = [name for name, path in sources.items() if LISTS.search(path.read_text("utf-8"))]
        docnames[:] = [name for name in docnames if name not in last] + last


def setup(app):
    """Connect everything above."""
    app.connect("env-before-read-docs", read_last)
