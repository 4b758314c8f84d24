"""The lecture as slides: one page of the book, built a second time by sphinx-revealjs.

The builder ``slides`` shares everything that Sphinx has read with the pages, so that nothing is
executed or read twice, and writes one page, as ``index.html`` of a folder that needs no network.
A heading begins a slide. What is on the page and not on a slide:

* code, and cells that show nothing;
* an admonition of the class ``page-only``;
* one of the class ``notes``, which becomes the speaker's notes.

Links lead to the published pages.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from docutils import nodes
from lop_site import site_address
from sphinx.errors import ExtensionError
from sphinx_revealjs.builders import RevealjsHTMLBuilder
from sphinx_revealjs.utils import get_revealjs_path
from sphinx_revealjs.writers import RevealjsSlideTranslator

from lop_utils.book import live

LECTURE = "book/teaching/lecture"
STYLE = "slides.css"
OURS = ("revealjs/", STYLE, "mathjax")
# Of reveal.js: not what is for developers, nor the plugins that are not used.
LEFT_OUT = (
    "*.map",
    "*.esm.js",
    "*.scss",
    "*.ttf",
    "*.eot",
    *"highlight markdown math search zoom".split(),
)
CONFIG = {
    "revealjs_html_theme": "revealjs-simple",
    "revealjs_style_theme": "white",
    "revealjs_use_section_ids": True,
    "revealjs_css_files": [STYLE],
    "revealjs_script_plugins": [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}],
    "revealjs_script_conf": {
        "width": 1280,
        "height": 720,
        "margin": 0.03,
        "center": False,
        "hash": True,
        "slideNumber": "c/t",
        "transition": "none",
        "controlsTutorial": False,
        "scrollActivationWidth": None,  # the builder would add it, and Sphinx read all pages again
    },
}
# What of a cell's output is shown, the best first.
MIMES = [live.LIVE_MIME, "image/svg+xml", "image/png", "text/html", "text/plain"]
# Whose listeners are for the pages, not for slides; of build-finished the cache needs its own.
ONLY_PAGES = {
    "builder-inited": lambda module: module.startswith(("sphinx_book_theme", "pydata_sphinx")),
    "html-page-context": lambda module: module not in ("sphinx.ext.mathjax", __name__),
    "build-finished": lambda module: module not in ("lop_book", __name__),
}


class aside(nodes.General, nodes.Element):
    """The speaker's notes of a slide."""


class SlidesTranslator(RevealjsSlideTranslator):
    """Write slides; figures have no numbers, which nobody in the room could use."""

    def add_fignumber(self, node):
        """Leave the number out."""


class SlidesBuilder(RevealjsHTMLBuilder):
    """Write the lecture as slides."""

    name = "slides"
    default_translator_class = SlidesTranslator
    epilog = "The slides are in %(outdir)s."
    copysource = False

    def init(self):
        """Set up, and leave the configuration as it was: a change makes Sphinx read all again."""
        for event, of_pages in ONLY_PAGES.items():
            for listener in list(self.events.listeners[event]):
                if of_pages(listener.handler.__module__):
                    self.events.disconnect(listener.id)
        ours, kept = list(self.config.html_static_path), list(self.config.revealjs_static_path)
        super().init()
        self.static_path, self.config.revealjs_static_path = ours, kept
        self.config.mathjax3_config = {
            **(self.config.mathjax3_config or {}),
            # a slide that is not shown has no letters whose height could be matched
            "chtml": {"matchFontHeight": False},
        }

    def init_js_files(self):
        """Load no script of other extensions."""

    def get_outdated_docs(self):
        """Return the lecture: it is written in a second."""
        return [LECTURE]

    def get_target_uri(self, docname, typ=None):
        """Return the address of a page; the lecture's is here."""
        if docname == LECTURE:
            return "index.html"
        return f"{site_address(self.config)}{docname}.html"

    def get_relative_uri(self, from_, to, typ=None):
        """Return the same: nothing but the lecture is near."""
        return "" if to == LECTURE else self.get_target_uri(to)

    def get_outfilename(self, pagename):
        """Return where the slides go."""
        return str(Path(self.outdir, "index.html"))

    def write(self, build_docnames, updated_docnames, method="update"):
        """Write the lecture alone, whatever has been read."""
        if LECTURE not in self.env.found_docs:
            raise ExtensionError(f"slides: wanted the page {LECTURE}, and the book has none")
        # styles and pictures of an earlier build go with it
        for folder in ("_static", "_images"):
            shutil.rmtree(Path(self.outdir, folder), ignore_errors=True)
        self.prepare_writing({LECTURE})
        self.config.html_static_path = self.static_path
        self.copy_static_files()
        reveal, leave = get_revealjs_path(), shutil.ignore_patterns(*LEFT_OUT)
        shutil.copytree(reveal, Path(self.outdir, "_static", reveal.name), ignore=leave)
        doctree = self.env.get_and_resolve_doctree(LECTURE, self)
        self.write_doc_serialized(LECTURE, doctree)
        self.write_doc(LECTURE, doctree)

    def finish(self):
        """Copy the figures; slides have neither index nor search."""
        self.copy_image_files()


def make_slides(app, doctree, docname):
    """Take off what is for the page alone, and make notes of the notes."""
    if app.builder.name != SlidesBuilder.name:
        return
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") == "cell_code":
            outputs = [
                shown
                for part in cell.children
                if isinstance(part, nodes.container)
                and part.get("nb_element") == "cell_code_output"
                for shown in part.children
            ]
            cell.parent.replace(cell, outputs)
    for box in list(doctree.findall(nodes.admonition)):
        if "page-only" in box["classes"]:
            box.parent.remove(box)
        elif "notes" in box["classes"]:
            box.replace_self(aside("", *box.children[1:]))  # without the title


def visit_aside(self, node):
    """Open the notes."""
    self.body.append('<aside class="notes">')


def depart_aside(self, node):
    """Close them."""
    self.body.append("</aside>\n")


def only_ours(app, pagename, templatename, context, doctree):
    """Load reveal.js, our style and MathJax, and nothing of other extensions."""
    if app.builder.name != SlidesBuilder.name:
        return

    def wanted(file):
        name = str(getattr(file, "filename", None) or file)  # the theme is a plain string
        body = getattr(file, "attributes", {}).get("body", "")
        return any(part in name for part in OURS) or body.startswith("window.MathJax")

    for kind in ("css_files", "script_files"):
        context[kind] = [file for file in context[kind] if wanted(file)]
    if context["favicon_url"]:
        context["favicon_url"] = f"_static/{context['favicon_url']}"


def configure(app, config):
    """Say how slides look, and which of a cell's outputs they show."""
    for name, value in CONFIG.items():
        setattr(config, name, value)
    config.nb_mime_priority_overrides = [
        *config.nb_mime_priority_overrides,
        *([SlidesBuilder.name, mime, number] for number, mime in enumerate(MIMES)),
    ]


def setup(app):
    """Make the builder known, and connect everything above."""
    app.setup_extension("sphinx_revealjs")
    app.add_builder(SlidesBuilder)
    app.add_node(aside, html=(visit_aside, depart_aside))
    app.connect("config-inited", configure, priority=400)
    app.connect("doctree-resolved", make_slides, priority=900)
    app.connect("html-page-context", only_ours, priority=900)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
