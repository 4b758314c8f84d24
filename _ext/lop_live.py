"""Figures that a reader plays with: what ``lop_utils.book.live`` shows, as it stands in a page.

A cell's output says which figure it is, and the page gets the figure's module, which stands in the
page itself, since browsers refuse an external one where pages are files. Without scripts, and on
paper, its first frame is shown. Of other widgets a page has the picture that comes with them: no
state of widgets, and no manager that would show it.
"""

import json
import re
from html import escape
from pathlib import Path

from docutils import nodes
from myst_nb.core.render import WIDGET_VIEW_MIMETYPE, MimeRenderPlugin, load_mime_renders
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.util.fileutil import copy_asset

from lop_utils.book import live

FOLDER = "book/_figures"
STILLS = "_static/live"


class live_figure(nodes.General, nodes.Element):
    """One live figure."""


class LiveMime(MimeRenderPlugin):
    """Put a live figure where a cell's output names one."""

    mime_priority_overrides = (("html", live.LIVE_MIME, 0),)

    @staticmethod
    def handle_mime(renderer, data, inline):
        """Return a live figure; an empty list for the view of a widget; None for all else."""
        if data.mime_type == WIDGET_VIEW_MIMETYPE:
            return []
        if data.mime_type != live.LIVE_MIME:
            return None
        name, settings = data.content["name"], data.content["settings"]
        image = renderer.renderer.get_cell_level_config(
            "render_image_options", data.cell_metadata, line=data.line
        )
        if not image.get("alt"):
            renderer.logger.warning(f"live figure {name}: wanted image: alt:", line=data.line)
        for path in Path(renderer.renderer.sphinx_env.srcdir, FOLDER).glob("*.*"):
            renderer.renderer.sphinx_env.note_dependency(str(path))
        return [live_figure("", name=name, settings=settings, alt=image.get("alt", ""))]


def visit(self, node):
    """Put in the place of a live figure, a picture in its stead, and its module."""
    name, static = node["name"], "../" * self.docnames[0].count("/") + STILLS
    code = re.sub(r"\n\s+", "\n", live.module(name))  # indentation: two kilobytes
    if "</script" in code:
        raise ValueError(f"live figure {name}: the module would end its own script")
    picture = f'<img src="{static}/{name}.svg" alt="{escape(node["alt"])}">'
    done = self.__dict__.setdefault("lop_live_modules", set())
    first = "" if name in done else f' id="live-{name}"'
    self.body.append(
        f'<div class="lop-live"{first} data-lop-figure="{name}" '
        f'data-lop-settings="{escape(json.dumps(node["settings"]))}">'
        f"<noscript>{picture}</noscript></div>"
    )
    if first:  # a module fills all places of its figure
        done.add(name)
        self.body.append(f'<script type="module">{code}</script>')
    raise nodes.SkipNode


def copy_stills(app):
    """Bring the first frames where the pages find them."""
    if app.builder.format == "html":
        source, target = Path(app.srcdir, FOLDER), Path(app.outdir, STILLS)
        copy_asset(str(source), str(target), lambda name: not name.endswith(".svg"))


def leave_state_out(app, doctree):
    """Drop the state of widgets, which only their manager could show."""
    files = NbMetadataCollector.get_js_files(app.env, app.env.docname)
    for name in [name for name in files if name.startswith("ipywidgets_")]:
        del files[name]


def setup(app):
    """Connect everything above."""
    if LiveMime not in load_mime_renders():  # else only an installed package could offer it
        load_mime_renders().append(LiveMime)
    app.add_node(live_figure, html=(visit, None))
    app.connect("builder-inited", copy_stills)
    app.connect("doctree-read", leave_state_out)
