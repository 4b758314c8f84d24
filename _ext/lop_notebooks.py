"""Chapters as notebooks for Colab and other places that read neither MyST nor our Sphinx.

With the HTML each page with code is written as a notebook in ``_build/colab``: code cells as they
stand in the source, between them Markdown that any notebook shows, with the numbers of the book.
Links lead to the published pages. The first cell installs ``lop_utils`` where it is missing, from
what ``LOP_SOURCE`` names; solutions and the code of figures are folded away.

Sphinx resolves numbers, references and citations; ``lop_markdown.py`` renders what is left.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from docutils import nodes
from lop_book import read_notebook
from lop_diagrams import as_image, diagram
from lop_markdown import block, formula, inline
from lop_quiz import Option, is_quiz
from lop_site import site_address
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx_design.dropdown import dropdown_main

from lop_utils.book import live

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
GUIDE = (
    "Run the cells from the top; the results appear as you go. Where a cell has a title only, its "
    "code is folded; so is each *Solution*: open it by its arrow. No GPU is needed."
)
NEEDED = "Needed below"
TITLES = {
    "claim": "Check what has just been said",
    "hide-input": NEEDED,
    "remove-input": "Show the result",
    "remove-cell": NEEDED,
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
        return "".join(f'<a id="{name}" name="{name}"></a>' for name in names)  # JupyterLab, Colab

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
            case nodes.figure(children=[diagram() as drawing, *_]):
                self.say(as_image(drawing))
                self.caption(node)
            case nodes.note():
                self.say("***\n\n**Note**")
                self.walk(node.children, level)
                self.say("***")
            case nodes.admonition() if is_quiz(node):
                self.say(f"***\n\n**{inline(node[0])}**")
                self.walk(node.children, level)
                self.say("***")
            case nodes.admonition():
                self.say(f"**{inline(node[0])}**")
                self.walk(node.children, level)
            case Option():
                # a line of HTML, then Markdown up to the next one: formulas show in Markdown only
                self.say(f"<details><summary>{html.escape(node[0].astext())}</summary>")
                self.walk(node.children[1:], level)
                self.say("</details>")
            case dropdown_main():
                self.say(f"<details><summary>{html.escape(node[0][0].astext())}</summary>")
                self.walk(node[1].children, level)
                self.say("</details>")
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
                start = len(self.text)
                self.walk(node.children, level)
                self.text[start] = self.text[start].replace("Proof.", "*Proof.*", 1)
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
        figures = list(node.findall(nodes.figure))
        self.take(node["cell_index"] + 1, draws=bool(figures))
        for figure in figures:
            self.caption(figure)

    def caption(self, figure):
        """Render the caption of a figure, with its number."""
        caption = next(inline(caption) for caption in figure.findall(nodes.caption))
        number = self.number("figure", figure)
        self.say(f"{self.anchor(figure)}*Figure {number}.* {caption}")

    def take(self, stop, draws=False):
        """Put in the cells of code before a place of the source, hidden ones too."""
        self.close()
        for source in self.sources[self.taken : stop]:
            if source.cell_type != "code":
                continue
            tags = source.metadata.get("tags", [])
            cell = new_code_cell(source.source, metadata={"tags": tags} if tags else {})
            if title := next((TITLES[tag] for tag in tags if tag in TITLES), None):
                title = "Draw the figure" if draws and title == NEEDED else title
                cell.source = f"# @title {title}\n{cell.source}"
                cell.metadata.update(FOLDED)
            self.cells.append(cell)
        self.taken = stop


def notebook_of(env, docname, doctree):
    """Return a page with code as a notebook without outputs; None where there is no code."""
    if "kernelspec" not in env.metadata[docname]:
        return None
    config, site = env.config, site_address(env.config)
    address = f"{site}{docname}.html"
    for link in doctree.findall(nodes.reference):  # a notebook lies where no neighbours are
        if "refuri" in link:
            link["refuri"] = urljoin(address, link["refuri"])
    page = Page(env, docname, doctree)
    (section,) = [node for node in doctree.children if isinstance(node, nodes.section)]
    number = ".".join(map(str, env.toc_secnumbers.get(docname, {}).get("", ())))
    page.say(f"# {number}{'. ' if number else ''}{inline(section[0])}")
    page.say(
        f"From [{config.html_title}]({site}{config.root_doc}.html), to run and to change: "
        f"[this chapter as a page]({address}). Text: CC BY 4.0. Code: BSD-3-Clause."
    )
    page.say(GUIDE)
    page.close()
    setup = SETUP.format(source=config.lop_source)
    page.cells.append(new_code_cell(setup, metadata=dict(FOLDED)))
    page.walk(section.children[1:], 2)
    page.take(len(page.sources))
    return finished(page.cells)


def write_notebooks(app, pagename, templatename, context, doctree):
    """Write a page with code as a notebook: bare for Colab, with outputs for the downloads.

    The theme would offer MyST as it stands.
    """
    if doctree is None or app.builder.name != "html":
        return
    if (notebook := notebook_of(app.env, pagename, doctree.deepcopy())) is None:
        return
    build = Path(app.outdir).parent
    bare = build / "colab" / f"{pagename}.ipynb"
    bare.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, bare)
    executed = build / "jupyter_execute" / f"{pagename}.ipynb"
    if "ipynb_source" not in context or not executed.is_file():
        return
    _, *cells = [cell for cell in notebook.cells if cell.cell_type == "code"]  # not the first
    done = nbformat.read(executed, as_version=4).cells
    done = [cell for cell in done if cell.cell_type == "code"]
    for cell, ran in zip(cells, done, strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        for output in cell.outputs:  # no kernel holds these widgets any more: their picture stays
            for mime in (live.VIEW_MIME, live.LIVE_MIME):
                output.get("data", {}).pop(mime, None)
    nbformat.write(notebook, Path(app.outdir, "_sources", context["ipynb_source"]))


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


def source_of(config):
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


def watch_source(app, config):
    """Make another LOP_SOURCE a change of the configuration, so that all notebooks are written."""
    config.lop_source = source_of(config)


def setup(app):
    """Connect everything above."""
    app.add_config_value("lop_source", "", "html", str)
    app.connect("config-inited", watch_source, priority=900)
    app.connect("html-page-context", open_in_colab, priority=900)  # after the theme's
    app.connect("html-page-context", write_notebooks, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
