"""Figures that a reader plays with: what ``lop_utils.book.live`` shows, as it stands in a page.

A cell's output says which figure it is, and the page gets the figure's module, which stands in the
page itself, since browsers refuse an external module where pages are files. What all figures share
is a classic script, which they take. Without scripts, and on
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
# What several figures import: in one classic script for all pages, which a browser also takes
# where pages are files.
SHARED, SCRIPT = ("kit.js", "numbers.js"), "shared.js"


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


def shared():
    """Return the texts that figures share, each with the names that it gives."""
    texts = [live._COMMENT.sub("", live._IMPORT.sub("", live._file(file))) for file in SHARED]
    return [(text, re.findall(r"^export \w+ (\w+)", text, re.MULTILINE)) for text in texts]


def dense(code):
    """Return code without its indentation, two kilobytes of a module."""
    return re.sub(r"\n\s+", "\n", code)


def module(name):
    """Return a figure's module as pages have it, with what is shared taken from the script."""
    code = live.module(name)
    for text, names in shared():
        code = code.replace(text, f"var {{ {', '.join(names)} }} = lopShared;\n")
    return dense(code)


def shared_script():
    """Return the script that all pages with a figure load."""
    texts = "".join(re.sub("^export ", "", text, flags=re.MULTILINE) for text, _ in shared())
    names = ", ".join(name for _, names in shared() for name in names)
    return dense(
        f'"use strict";\nconst lopShared = (() => {{\n{texts}return {{ {names} }};\n}})();\n'
    )


def visit(self, node):
    """Put in the place of a live figure, a picture in its stead, and its module."""
    name, static = node["name"], "../" * self.docnames[0].count("/") + STILLS
    code = module(name)
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
        if not done:
            self.body.append(f'<script src="{static}/{SCRIPT}"></script>')
        done.add(name)
        self.body.append(f'<script type="module">{code}</script>')
    raise nodes.SkipNode


def copy_stills(app):
    """Bring the first frames, and what figures share, where the pages find them."""
    if app.builder.format == "html":
        source, target = Path(app.srcdir, FOLDER), Path(app.outdir, STILLS)
        copy_asset(str(source), str(target), lambda name: not name.endswith(".svg"))
        target.mkdir(parents=True, exist_ok=True)
        (target / SCRIPT).write_text(shared_script(), encoding="utf-8")


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
