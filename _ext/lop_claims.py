"""The Claims page: a claim cell's output holds the record of one checked sentence.

:class:`ClaimCollector` reads them from the executed notebooks, and the ``claims`` directive shows
them all in tables.
"""

from __future__ import annotations

import copy
import hashlib
import re
from contextlib import suppress
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from lop_book import read_notebook
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

CLAIM_MIME = "application/vnd.lop.claim+json"
FORMULA = re.compile(r"\$([^$]+)\$")
LOGGER = logging.getLogger(__name__)


class claims_table(nodes.General, nodes.Element):
    """Where the tables of claims go, once every page has been read."""


class ClaimsDirective(SphinxDirective):
    """``{claims}``: every claim of the book, chapter by chapter."""

    def run(self):
        """Leave a place; it holds an empty formula so that Sphinx loads MathJax on this page."""
        claims_of(self.env)["pages"].add(self.env.docname)
        return [claims_table("", nodes.math("", ""))]


def claims_of(env):
    """Return what the environment keeps: claims by page, pages with a table, state shown."""
    if not hasattr(env, "lop_claims"):
        env.lop_claims = {"found": {}, "pages": set(), "shown": None}
    return env.lop_claims


class ClaimCollector(EnvironmentCollector):
    """Take the claims out of each page's executed notebook."""

    def clear_doc(self, app, env, docname):
        """Forget the claims of a page that is gone or about to be read."""
        claims_of(env)["found"].pop(docname, None)
        claims_of(env)["pages"].discard(docname)

    def merge_other(self, app, env, docnames, other):
        """Take over what a parallel reader found."""
        for docname in docnames:
            if found := claims_of(other)["found"].get(docname):
                claims_of(env)["found"][docname] = found
        claims_of(env)["pages"] |= claims_of(other)["pages"] & set(docnames)

    def process_doc(self, app, doctree):
        """Read the claims of one page and give each an anchor on it."""
        env = app.env
        notebook = executed_notebook(env)
        if notebook is None:
            return
        lines = notebook.metadata["source_map"]
        cells = {
            node["cell_index"]: node
            for node in doctree.findall(nodes.container)
            if node.get("nb_element") == "cell_code"
        }
        for index, cell in enumerate(notebook.cells):
            claims = [
                output["data"][CLAIM_MIME]
                for output in cell.get("outputs", [])
                if CLAIM_MIME in output.get("data", {})
            ]
            if "claim" in cell.metadata.get("tags", []) and not claims:
                LOGGER.warning(
                    "this cell is tagged 'claim', but its output holds no claim",
                    location=(env.docname, lines[index] + 1),
                )
            if claims and index in cells:
                typeset(cells[index], cell["outputs"])
            for claim in claims:
                anchor = nodes.make_id(f"claim-{claim['id']}")
                if index in cells:  # not where the cell was removed from the page
                    cells[index]["ids"].append(anchor)
                record = {**claim, "anchor": anchor, "line": lines[index] + 1}
                claims_of(env)["found"].setdefault(env.docname, []).append(record)


def typeset(cell, outputs):
    """Show the claims among a cell's outputs as our style wants them.

    In a live notebook a claim is Markdown; here its record becomes the HTML.
    """
    shown = [output for output in outputs if "data" in output]
    bundles = [
        node for node in cell.findall(nodes.container) if node.get("nb_element") == "mime_bundle"
    ]
    for bundle, output in zip(bundles, shown, strict=True):
        if claim := output["data"].get(CLAIM_MIME):
            statement = FORMULA.sub(
                r'<span class="math notranslate nohighlight">\\(\1\\)</span>',
                escape(claim["statement"]),
            )
            line = (
                '<div class="lop-claim"><span class="lop-claim-mark">✓</span> '
                f'{statement} <span class="lop-claim-number">{escape(claim["shown"])}</span></div>'
            )
            bundle.replace_self(nodes.raw("", line, format="html"))


def executed_notebook(env):
    """Return the page's notebook with its outputs, or None, and keep it for the download.

    myst-nb writes the notebook that readers download without outputs where these come from
    the cache.
    """
    path = env.doc2path(env.docname)
    notebook = read_notebook(path, env.myst_config)
    if notebook is None or env.mystnb_config.execution_mode != "cache":
        return None
    with suppress(KeyError):  # not in the cache: it failed, and myst-nb has warned of that
        cache = get_cache(env.mystnb_config.execution_cache_path)
        _, notebook = cache.merge_match_into_notebook(notebook)
        download = Path(env.mystnb_config.output_folder) / f"{env.docname}.ipynb"
        nbformat.write(notebook, download)
        return notebook
    return None


def refresh_claims_pages(app, env):
    """Write the pages with a table anew if a claim, or the title of its chapter, changed."""
    kept = claims_of(env)
    state = [(doc, env.titles[doc].astext(), claims) for doc, claims in kept["found"].items()]
    if state == kept["shown"]:
        return []
    kept["shown"] = copy.deepcopy(state)
    return sorted(kept["pages"])


def check_claim_ids(app, env):
    """Warn of every claim whose id another claim has already."""
    first = {}
    for docname, claims in sorted(claims_of(env)["found"].items()):
        for claim in claims:
            place = f"{docname}:{claim['line']}"
            if (other := first.setdefault(claim["id"], place)) != place:
                LOGGER.warning(
                    "claim id %r is taken already, in %s",
                    claim["id"],
                    other,
                    location=(docname, claim["line"]),
                )


def show_claims(app, doctree, docname):
    """Put the tables in their place, chapters in the order of the book."""
    found = claims_of(app.env)["found"]
    for place in list(doctree.findall(claims_table)):
        content = []
        for chapter in app.env.collect_relations():
            if claims := found.get(chapter):
                title = app.env.titles[chapter].astext()
                link = make_refnode(app.builder, docname, chapter, "", nodes.Text(title))
                content += [
                    nodes.rubric("", "", link),
                    chapter_table(app, docname, chapter, claims),
                ]
        place.replace_self(content or nodes.paragraph("", "No claim has been checked."))


def chapter_table(app, docname, chapter, claims):
    """Build the table of one chapter's claims."""
    head = ["What is claimed", "Measured", "Bound", "Source", "Checked in"]
    rows = []
    for claim in claims:
        name = nodes.literal("", claim["id"])
        rows.append(
            [
                statement(claim["statement"]),
                [nodes.Text(number(claim["measured"]))],
                [nodes.Text(bound(claim["bounds"]))],
                statement(claim["source"]),
                [make_refnode(app.builder, docname, chapter, claim["anchor"], name)],
            ]
        )
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec("", colwidth=1) for _ in head]
    group += nodes.thead("", table_row([[nodes.Text(text)] for text in head]))
    group += nodes.tbody("", *[table_row(row) for row in rows])
    return nodes.table("", group, classes=["lop-claims"])


def table_row(cells):
    """Build one row from lists of inline nodes."""
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells])


def statement(text):
    """Turn a sentence with formulas between dollars into text and formulas."""
    parts = enumerate(FORMULA.split(text))  # every second part is a formula
    return [nodes.math("", part) if i % 2 else nodes.Text(part) for i, part in parts if part]


def number(value):
    """Write a number as short as it can be read."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def bound(bounds):
    """Write the bounds of a claim in one line."""
    signs = {"at_most": "≤", "at_least": "≥", "near": "≈" if bounds.get("rtol") else "="}
    parts = [f"{sign} {number(bounds[key])}" for key, sign in signs.items() if key in bounds]
    if bounds.get("rtol"):
        parts.append(f"to {number(100 * bounds['rtol'])} %")
    return " ".join(parts)


def setup(app):
    """Connect everything above."""
    app.add_node(claims_table)
    app.add_directive("claims", ClaimsDirective)
    app.add_env_collector(ClaimCollector)
    app.connect("env-updated", refresh_claims_pages)
    app.connect("env-check-consistency", check_claim_ids)
    app.connect("doctree-resolved", show_claims)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
