"""The Claims page: a claim cell's output holds the record of one checked sentence.

On its page it is shown by :class:`ClaimMime`; :func:`collect` notes it with a label, and
``{claims}`` lists them all.
"""

import re
from contextlib import suppress
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from lop_book import read_notebook
from lop_lists import add_listing, rubric, table
from myst_nb.core.render import MimeRenderPlugin, load_mime_renders
from sphinx.util import logging

CLAIM_MIME = "application/vnd.lop.claim+json"
FORMULA = re.compile(r"\$([^$]+)\$")
LOGGER = logging.getLogger(__name__)
LINE = (
    '<div class="lop-claim"><span class="lop-claim-mark">✓</span> '
    '{} <span class="lop-claim-number">{}</span></div>'
)


class ClaimMime(MimeRenderPlugin):
    """Show a claim as our style wants it; in a live notebook it is Markdown."""

    mime_priority_overrides = (("*", CLAIM_MIME, -1),)

    @staticmethod
    def handle_mime(renderer, data, inline):
        """Return the line of a claim, which keeps the record; None for all else."""
        if data.mime_type != CLAIM_MIME:
            return None
        formula = r'<span class="math notranslate nohighlight">\\(\1\\)</span>'
        said = FORMULA.sub(formula, escape(data.content["statement"]))
        line = LINE.format(said, escape(data.content["shown"]))
        return [nodes.raw("", line, format="html", claim={**data.content, "line": data.line})]


def collect(app, doctree):
    """Note the claims of one page, and give each an anchor."""
    docname = app.env.docname
    found = app.env.metadata[docname]["claims"] = []
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        claims = [node["claim"] for node in cell.findall(nodes.raw) if "claim" in node]
        if "tag_claim" in cell["classes"] and not claims:
            LOGGER.warning(
                "this cell is tagged 'claim', but its output holds no claim", location=cell
            )
        for claim in claims:
            anchor = nodes.make_id(f"claim-{claim['id']}")
            cell["ids"].append(anchor)
            app.env.get_domain("std").note_hyperlink_target(anchor, docname, anchor)
        found += claims


def keep_outputs(app, doctree):
    """Write the notebook that readers download again, with its outputs.

    myst-nb writes it without where they come from the cache.
    """
    env, config = app.env, app.env.mystnb_config
    path = env.doc2path(env.docname)
    notebook = read_notebook(path, env.myst_config)
    if notebook and config.execution_mode == "cache":
        with suppress(KeyError):  # not in the cache: it failed, and myst-nb has warned of that
            cache = get_cache(config.execution_cache_path)
            _, notebook = cache.merge_match_into_notebook(notebook)
            nbformat.write(notebook, Path(config.output_folder, f"{env.docname}.ipynb"))


def listed(env):
    """Return all claims, chapters in the order of the book, and warn of an id used twice."""
    lines, first = [], {}
    for docname in env.collect_relations():
        rows = []
        for claim in env.metadata[docname].get("claims", ()):
            place = (docname, claim["line"])
            if (other := first.setdefault(claim["id"], place)) != place:
                message = "claim id %r is taken already, in %s:%s"
                LOGGER.warning(message, claim["id"], *other, location=place)
            link = f"[`{claim['id']}`](#{nodes.make_id('claim-' + claim['id'])})"
            measured, bound = claim["shown"].split(" ", 1)
            rows.append([claim["statement"], measured, bound, claim["source"], link])
        if rows:
            head = ["What is claimed", "Measured", "Bound", "Source", "Checked in"]
            lines += rubric(f"{{doc}}`/{docname}`") + table("lop-claims", head, rows)
    return lines or ["No claim has been checked."]


def setup(app):
    """Connect everything above."""
    if ClaimMime not in load_mime_renders():  # else only an installed package could offer it
        load_mime_renders().append(ClaimMime)
    add_listing(app, "claims", listed)
    app.connect("doctree-read", collect)
    app.connect("doctree-read", keep_outputs)
