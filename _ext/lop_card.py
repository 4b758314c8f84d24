"""Social cards: what a messenger or a feed shows of a link to a page.

sphinxext-opengraph draws them and writes the tags, the page's description too. By itself it takes
the text from the top of a page, formulas and all; here it is given the title, and the sentence that
was written for the page, and for a picture the curves of the introduction.
"""

import json
from pathlib import Path

from docutils import nodes
from docutils.utils import new_document
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sphinxext.opengraph import get_tags

RECORD = "book/_recorded/intro-spectrum.json"
RISES, FALLS, REST = "#0072b2", "#d55e00", "#7a818c"  # as in lop_utils.book.plots
LONGEST = 200  # characters of a sentence


def set_tags(app, config):
    """Say what is the same on all pages, and where the picture will be."""
    config.ogp_site_url = config.html_baseurl
    config.ogp_site_name = config.html_title
    config.ogp_description_length = LONGEST
    config.ogp_social_cards = {
        "image": str(Path(app.doctreedir, "card.png")),
        "image_mini": str(Path(app.doctreedir, "blank.png")),  # else the logo of Sphinx
        "description_max_length": LONGEST,
        "site_url": config.html_baseurl.partition("://")[2].rstrip("/"),
    }


def draw(app):
    """Draw the recorded singular values: some rise, some fall, the rest stays one line."""
    pictures = app.config.ogp_social_cards
    Path(app.doctreedir).mkdir(parents=True, exist_ok=True)
    canvas = FigureCanvasAgg(Figure(figsize=(4, 4), facecolor="white"))
    canvas.print_png(pictures["image_mini"])
    axes = canvas.figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    record = Path(app.srcdir, RECORD)
    if record.exists():
        values = json.loads(record.read_text(encoding="utf-8"))["values"]
        r, curves = values["r"], list(zip(*values["gd"], strict=True))
        colours = [RISES] * r + [REST] * (len(curves) - 2 * r) + [FALLS] * r
        for curve, colour in zip(curves, colours, strict=True):
            axes.semilogy(values["t"], curve, color=colour, lw=8)
    canvas.print_png(pictures["image"])


def make_card(app, pagename, templatename, context, doctree):
    """Write the tags of a page and draw its card, in the place of sphinxext-opengraph's own."""
    sentence = " ".join(app.env.metadata[pagename].get("description", "").split())
    if doctree is not None and sentence and app.config.html_baseurl:
        said = new_document("")
        said += nodes.paragraph("", sentence.replace("'", "’"))  # ' would be drawn as &#x27;
        title = app.env.titles[pagename].astext()  # without the chapter's number
        about = {**context, "title": title, "meta": {}}
        context["metatags"] += get_tags(
            about,
            said,
            srcdir=app.srcdir,
            outdir=app.outdir,
            config=app.config,
            builder=app.builder,
            env=app.env,
        )
    context["meta"] = {**(context.get("meta") or {}), "ogp_disable": True}


def setup(app):
    """Connect everything above."""
    app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", set_tags, priority=600)  # the address is there at 500
    app.connect("builder-inited", draw)
    app.connect("html-page-context", make_card, priority=450)  # sphinxext-opengraph has 500
