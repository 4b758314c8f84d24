"""Chapters as notebooks for Colab and other places that read neither MyST nor our Sphinx.

The builder ``colab`` writes each page with code as an ``.ipynb``: code cells exactly as they stand
in the source, between them Markdown that any notebook shows, with the numbers of the book. Links
lead to the published pages. The first cell installs ``lop_utils`` where it is missing, from
what ``LOP_SOURCE`` names; solutions and the code of figures are folded away.

Sphinx resolves numbers, references and citations; ``lop_markdown.py`` renders what is left.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nbformat
from docutils import nodes
from lop_book import read_notebook
from lop_markdown import block, formula, inline
from lop_site import site_address
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.builders import Builder

BRANCH = "notebooks"  # where the generated notebooks are published
SETUP = """\
# @title Setup: run this cell first
try:
    import lop_utils  # the book's package
except ModuleNotFoundError:
    %pip install -q {source}

import torch

print("torch", torch.__version__, "on", "a GPU" if torch.cuda.is_available() else "the processor")\
"""
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # in JupyterLab, in Colab
# Titles of the cells that are folded away, by the tag that says so.
TITLES = {
    "claim": "Check what has just been said",
    "hide-input": "Draw the figure",
    "remove-input": "Show the result",
    "remove-cell": "Prepare what follows",
}


class Page:
    """One page on its way to cells: Markdown gathers until the next cell begins."""

    def __init__(self, env, docname, doctree):
        self.env, self.docname = env, docname
        notebook = read_notebook(env.doc2path(docname), env.myst_config)
        self.sources, self.taken = notebook.cells, 0
        self.cells, self.text = [], []
        self.wanted = {
            link["refid"] for link in doctree.findall(nodes.reference) if "refid" in link
        }

    def number(self, kind, node):
        """Return the number that the book gives to a figure, theorem, exercise or formula."""
        known = self.env.toc_fignumbers.get(self.docname, {}).get(kind, {})
        found = (known[name] for name in node["ids"] if name in known)
        return ".".join(map(str, next(found, ())))

    def anchor(self, node):
        """Return the places of a node to which references of this notebook lead."""
        names = [name for name in node["ids"] if name in self.wanted]
        return "".join(f'<a name="{name}"></a>' for name in names)

    def say(self, text):
        """Add a paragraph."""
        if text:
            self.text.append(text)

    def close(self, **metadata):
        """End the Markdown cell."""
        if self.text:
            self.cells.append(new_markdown_cell("\n\n".join(self.text), metadata=metadata))
            self.text = []

    def heading(self, level, title, node, folded=False):
        """Begin a cell with a heading; folded, it hides everything up to the next one."""
        self.close()
        self.say(f"{'#' * level} {title}")
        self.say(self.anchor(node))
        if folded:
            self.close(**{"jp-MarkdownHeadingCollapsed": True, "heading_collapsed": True})

    def walk(self, children, level):
        """Render one node after another."""
        for node in children:
            self.visit(node, level)

    def visit(self, node, level):
        """Render one node, code cells included."""
        match node:
            case nodes.section():
                self.heading(level, inline(node[0]), node)
                self.walk(node.children[1:], level + 1)
            case nodes.container(attributes={"nb_element": "cell_code"}):
                self.code(node)
            case nodes.math_block():
                self.say(self.anchor(node))
                self.say(formula(node.astext(), self.number("displaymath", node)))
            case nodes.note():
                self.say("***\n\n**Note**")
                self.walk(node.children, level)
                self.say("***")
            case nodes.admonition():
                self.walk(node.children, level)
            case nodes.target() | nodes.title() | nodes.comment():
                pass
            case nodes.compound() if "toctree-wrapper" in node["classes"]:
                pass
            case _ if "proof" in node.get("classes", []):
                self.framed(node, level)
            case _ if "exercise" in node.get("classes", []):
                number = self.number("exercise", node)
                title = f"Exercise {number}{inline(node[0]).rstrip()}"
                self.heading(level, title, node)
                self.walk(node[1].children, level)
            case _ if "solution" in node.get("classes", []):
                self.heading(level + 1, inline(node[0]), node, folded=True)
                self.walk(node[1].children, level + 1)
            case _ if type(node).__name__ == "proof_node":
                self.walk(node.children, level)
            case _:
                self.say(block(node))

    def framed(self, node, level):
        """Render a theorem or definition between two lines."""
        kind = node["realtype"]
        number = self.number(node["countertype"], node)
        self.close()
        self.say(f"{self.anchor(node)}\n***".strip())
        self.say(f"**{kind.capitalize()} {number}**{inline(node[0])}".replace("  ", " ") + ".")
        self.walk(node[1].children, level)
        self.say("***")
        self.close()

    def code(self, node):
        """Put in the cell as it stands in the source, and the caption of its figure below."""
        self.take(node["cell_index"] + 1)
        for figure in node.findall(nodes.figure):
            caption = next(inline(caption) for caption in figure.findall(nodes.caption))
            number = self.number("figure", figure)
            self.say(f"{self.anchor(figure)}*Figure {number}.* {caption}")

    def take(self, stop):
        """Put in the cells of code before a place of the source, hidden ones too."""
        self.close()
        for source in self.sources[self.taken : stop]:
            if source.cell_type != "code":
                continue
            tags = source.metadata.get("tags", [])
            cell = new_code_cell(source.source, metadata={"tags": tags} if tags else {})
            if title := next((TITLES[tag] for tag in tags if tag in TITLES), None):
                cell.source = f"# @title {title}\n{cell.source}"
                cell.metadata.update(FOLDED)
            self.cells.append(cell)
        self.taken = stop


class ColabBuilder(Builder):
    """Write every page with code as a notebook."""

    name = format = "colab"
    epilog = "The notebooks are in %(outdir)s."
    allow_parallel = True

    def get_outdated_docs(self):
        """Return every page: they are written in seconds."""
        return self.env.found_docs

    def get_target_uri(self, docname, typ=None):
        """Return the page's address; a notebook lies where its neighbours may not be."""
        return f"{site_address(self.config)}{docname}.html"

    def get_relative_uri(self, from_, to, typ=None):
        """Return the same: nothing is relative."""
        return self.get_target_uri(to)

    def prepare_writing(self, docnames):
        """Nothing to prepare."""

    def write_doc(self, docname, doctree):
        """Write one page, if it has code."""
        if "kernelspec" not in self.env.metadata[docname]:
            return
        page = Page(self.env, docname, doctree)
        (section,) = [node for node in doctree.children if isinstance(node, nodes.section)]
        number = ".".join(map(str, self.env.toc_secnumbers.get(docname, {}).get("", ())))
        page.say(f"# {number}{'. ' if number else ''}{inline(section[0])}")
        page.say(
            f"From [{self.config.html_title}]({self.get_target_uri(self.config.root_doc)}), to run "
            f"and to change: [this chapter as a page]({self.get_target_uri(docname)}). Text: CC BY "
            "4.0. Code: BSD-3-Clause."
        )
        page.close()
        setup = SETUP.format(source=source(self.config))
        page.cells.append(new_code_cell(setup, metadata=dict(FOLDED)))
        page.walk(section.children[1:], 2)
        page.take(len(page.sources))
        path = Path(self.outdir, f"{docname}.ipynb")
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(finished(page.cells), path)


def open_in_colab(app, pagename, templatename, context, doctree):
    """Let the Colab button open the notebook of its page, before the other buttons.

    The theme makes its address of the page's source, which Colab cannot open.
    """
    branch = app.config.html_theme_options.get("repository_branch")
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            for button in group["buttons"]:
                if button["text"] == "Colab":
                    start = button["url"].removesuffix(f"/blob/{branch}/{pagename}.md")
                    button["url"] = f"{start}/blob/{BRANCH}/{pagename}.ipynb"
            group["buttons"].sort(key=lambda button: button["text"] != "Colab")


def source(config):
    """Return what pip installs: what LOP_SOURCE names, or the branch of the book."""
    theme = config.html_theme_options
    address = f"git+{theme['repository_url']}@{theme['repository_branch']}"
    return os.environ.get("LOP_SOURCE") or address


def finished(cells):
    """Number the cells, and tell Colab which headings are folded."""
    for i, cell in enumerate(cells):
        cell.id = cell.metadata["id"] = f"lop-{i}"
    folded = [cell.id for cell in cells if cell.metadata.get("heading_collapsed")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    colab = {"collapsed_sections": folded, "toc_visible": True}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "colab": colab}
    return new_notebook(cells=cells, metadata=metadata)


def leave_notebooks_alone(app, exception):
    """Take away the style sheets that other extensions write for pages."""
    if app.builder.name == ColabBuilder.name:
        shutil.rmtree(Path(app.outdir, "_static"), ignore_errors=True)


def setup(app):
    """Make the builder known."""
    app.add_builder(ColabBuilder)
    app.connect("html-page-context", open_in_colab, priority=900)  # after the theme's
    app.connect("build-finished", leave_notebooks_alone, priority=900)  # after theirs
    return {"parallel_read_safe": True, "parallel_write_safe": True}
