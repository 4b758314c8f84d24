"""Social cards: what a messenger or a feed shows of a link to a page.

sphinxext-opengraph writes the tags. It can draw a picture as well, but takes its text from the
top of a page, formulas and all; here the picture has the sentence that was written for the page,
beside the curves of the introduction. Readers of the page never load it.
"""

from __future__ import annotations

import hashlib
import json
import math
from html import escape
from pathlib import Path

from docutils import nodes
from lop_site import description_of
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from sphinx.errors import ExtensionError

FOLDER = "_images/cards"
WIDTH, HEIGHT = 1200, 630  # what the services ask for
MARGIN, COLUMN = 72, 690  # where text starts, and how wide it may be
RECORD = "book/_recorded/intro-spectrum.json"
PAPER, INK, MUTED, LINK = "#fdfdfb", "#1f2328", "#595f69", "#0b61a4"
RISES, FALLS, REST = "#0072b2", "#d55e00", "#7a818c"  # as in lop_utils.plots
# Sizes in pixels to try, each with the lines that there is room for.
TITLE = [(size, 2) for size in range(62, 45, -2)] + [(size, 3) for size in range(46, 33, -2)]
SENTENCE = [(27, 4), (25, 5), (23, 6)]
STYLE = {"font.family": ["DejaVu Sans"], "mathtext.fontset": "dejavusans", "figure.dpi": 100}


def words_of(title):
    """Return the words of a title for matplotlib, each formula a word by itself."""
    words = []
    for node in title.findall(lambda node: isinstance(node, nodes.Text | nodes.math)):
        if isinstance(node, nodes.math):
            words.append(formula(node.astext()))
        elif not isinstance(node.parent, nodes.math):
            words += node.astext().replace("$", r"\$").split()
    return words


def formula(source):
    """Return a formula for matplotlib; what it cannot set stands as it is written."""
    try:
        MathTextParser("path").parse(f"${source}$")
    except ValueError:
        return source.replace("$", r"\$")
    return f"${source}$"


class Card:
    """A sheet on which to place the texts and the picture of one page after the other."""

    def __init__(self, book, address, curves):
        self.figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor=PAPER)
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()
        if curves:
            self.picture(curves["t"], curves["gd"], curves["r"])
        self.write(book, 22, MARGIN, 84, MUTED)
        self.write(address.partition("://")[2].rstrip("/"), 20, MARGIN, HEIGHT - 58, LINK)

    def write(self, text, size, x, y, colour, weight="normal"):
        """Write one line; places and sizes in pixels, from the upper left corner."""
        place = {"x": x / WIDTH, "y": 1 - y / HEIGHT, "va": "baseline"}
        return self.figure.text(s=text, size=size * 0.72, color=colour, weight=weight, **place)

    def width(self, text, size, weight="normal"):
        """Measure one line in pixels."""
        line = self.write(text, size, 0, 0, INK, weight)
        width = line.get_window_extent(self.renderer).width
        line.remove()
        return width

    def lines(self, words, size, weight="normal"):
        """Break words into lines that fit the column."""
        lines = []
        for word in words:
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size, weight) <= COLUMN:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def fit(self, words, tries, weight="normal"):
        """Return the first size at which the words fill few enough lines, and the lines."""
        for size, most in tries:
            lines = self.lines(words, size, weight)
            if len(lines) <= most and all(self.width(x, size, weight) <= COLUMN for x in lines):
                return size, lines
        raise ExtensionError(f"there is no room on a social card for {' '.join(words)!r}")

    def picture(self, t, values, r):
        """Draw the recorded singular values: some rise, some fall, the rest stays one line."""
        left = (MARGIN + COLUMN + 40) / WIDTH
        axes = self.figure.add_axes((left, 0.12, 1 - left, 0.76))
        for i, curve in enumerate(zip(*values, strict=True)):
            rises, falls = i < r, i >= len(values[0]) - r
            colour = RISES if rises else FALLS if falls else REST
            axes.plot(t, [math.log10(x) for x in curve], color=colour, lw=5, clip_on=False)
        axes.set_xlim(t[0], t[-1])
        axes.set_axis_off()

    def draw(self, path, title, sentence):
        """Write title and sentence, save the picture, and take them off again."""
        size, lines = self.fit(title, TITLE, "bold")
        y = 84 + 1.75 * size
        for line in lines:
            self.write(line, size, MARGIN, y, INK, "bold")
            y += 1.18 * size
        y += 14
        size, lines = self.fit(sentence.replace("$", r"\$").split(), SENTENCE)
        for line in lines:
            self.write(line, size, MARGIN, y, MUTED)
            y += 1.45 * size
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path, facecolor=PAPER, metadata={"Software": None})
        for text in self.figure.texts[2:]:
            text.remove()


def set_tags(app, config):
    """Tell sphinxext-opengraph what is the same on all pages."""
    config.ogp_site_url = config.html_baseurl
    config.ogp_site_name = config.html_title
    config.ogp_type = "article"
    config.ogp_social_cards = {"enable": False}
    config.ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image" />']


def make_card(app, pagename, templatename, context, doctree):
    """Draw the card of a page, unless it is there, and name it in the page's tags."""
    sentence = description_of(app, pagename)
    if doctree is None or not sentence or not app.config.html_baseurl:
        return
    title = app.env.titles[pagename]
    with rc_context(STYLE):
        words = words_of(title)
        about = [words, sentence, app.config.html_title, app.config.html_baseurl]
        digest = hashlib.sha256(json.dumps([about, own_digest(app.srcdir)]).encode())
        stem = pagename.replace("/", "-")
        file = f"{stem}-{digest.hexdigest()[:8]}.png"
        path = Path(app.outdir, FOLDER, file)
        if not path.exists():
            for old in path.parent.glob(f"{stem}-????????.png"):
                old.unlink()
            sheet_of(app).draw(path, words, sentence)
    tags = {
        "og:title": escape(title.astext()),  # without the chapter's number
        "og:description": escape(sentence),
        "og:image": f"{app.config.html_baseurl}{FOLDER}/{file}",
        "og:image:width": str(WIDTH),
        "og:image:height": str(HEIGHT),
        "og:image:alt": escape(f"{title.astext()}: three curves rise, three fall, the rest stay"),
    }
    context["meta"] = {**(context["meta"] or {}), **tags}


def own_digest(root):
    """Sum up what the look of the cards depends on."""
    record = Path(root, RECORD)
    parts = [Path(__file__).read_bytes(), record.read_bytes() if record.exists() else b""]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def sheet_of(app):
    """Return the sheet of this build; drawing its curves takes longer than writing on it."""
    if not hasattr(app, "lop_card"):
        record = Path(app.srcdir, RECORD)
        curves = json.loads(record.read_text(encoding="utf-8"))["values"] if record.exists() else {}
        app.lop_card = Card(app.config.html_title, app.config.html_baseurl, curves)
    return app.lop_card


def setup(app):
    """Connect everything above."""
    app.setup_extension("lop_site")
    app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", set_tags, priority=600)  # the address is there at 500
    app.connect("html-page-context", make_card, priority=450)  # sphinxext-opengraph has 500
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
