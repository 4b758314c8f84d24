"""Figures that a reader plays with: the ``live`` directive puts a module of ``book/_figures`` in.

The module stands in the page itself, since browsers refuse an external one where pages are files.
Without scripts, and on paper, a picture is shown.
"""

from __future__ import annotations

import hashlib
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

FOLDER = "book/_figures"


class live_figure(nodes.General, nodes.Element):
    """One live figure; its children are what is said below it."""


class LiveDirective(SphinxDirective):
    """``{live} NAME``: the figure of ``book/_figures/NAME.js``, with a still picture."""

    required_arguments = 1
    has_content = True
    option_spec = dict.fromkeys(("picture", "alt"), directives.unchanged_required)

    def run(self):
        """Read the module, and make the page depend on it."""
        name = self.arguments[0]
        path = Path(self.env.srcdir, FOLDER, f"{name}.js")
        missing = [option for option in self.option_spec if option not in self.options]
        if missing or not path.is_file():
            wanted = ", ".join(f":{each}:" for each in missing) or path.relative_to(self.env.srcdir)
            raise self.error(f"live figure {name}: wanted {wanted}, got nothing")
        self.env.note_dependency(str(path))
        code = path.read_text(encoding="utf-8")
        if "</script" in code:
            raise self.error(f"live figure {name}: the module would end its own script")
        figure = live_figure("", name=name, code=code, ids=[f"live-{name}"], **self.options)
        self.state.nested_parse(self.content, self.content_offset, figure)
        return [figure]


def visit(self, node):
    """Begin a live figure: a place for it, a picture in its stead, and what is said below."""
    static = "../" * self.docnames[0].count("/") + "_static/"
    picture = f'<img src="{static}{node["picture"]}" alt="{escape(node["alt"])}">'
    self.body.append(
        f'<figure class="lop-live-figure" id="{node["ids"][0]}">'
        f'<div class="lop-live" data-lop-figure="{node["name"]}"><noscript>{picture}</noscript>'
        "</div><figcaption>"
    )


def depart(self, node):
    """End it with its module."""
    self.body.append(f'</figcaption></figure><script type="module">{node["code"]}</script>')


def setup(app):
    """Connect everything above."""
    app.add_node(live_figure, html=(visit, depart))
    app.add_directive("live", LiveDirective)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
