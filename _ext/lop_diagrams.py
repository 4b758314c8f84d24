"""Diagrams: drawings by hand, which stand in the page itself and so follow its theme.

In the source a diagram is a figure whose image is an SVG of ``book/_diagrams``; its ``title`` and
``desc`` are what a screen reader says. Classes of ``lop.css`` give it size, letters and colours. A
notebook, which has no such style, shows it as an image that brings its own.
"""

import re
from base64 import b64encode
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

STYLE = Path(__file__).parent.parent / "book" / "_static" / "lop.css"
SECTION = re.compile(r"/\* --- Diagrams.*?(?=/\* --- )", flags=re.S)


class diagram(nodes.General, nodes.Element):
    """One drawing: its name and its SVG."""


class TakeDiagrams(SphinxTransform):
    """Put drawings in the place of their images, before Sphinx collects those."""

    default_priority = 400

    def apply(self, **kwargs):
        """Take every image of the folder; one that is missing is Sphinx's to warn of."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.env.doc2path(self.env.docname)).parent / image["uri"]
            if path.parent.name == "_diagrams" and path.is_file():
                self.env.note_dependency(str(path.resolve()))
                svg = re.sub(r"\n\s*", "\n", path.read_text(encoding="utf-8")).strip()
                image.replace_self(diagram("", name=path.stem, svg=svg))


def visit(self, node):
    """Put a drawing into a page, with its text for those who do not see it."""
    title, desc = (f"diagram-{node['name']}-{part}" for part in ("title", "desc"))
    start = f'<svg class="lop-diagram" role="img" aria-labelledby="{title} {desc}" '
    svg = node["svg"].replace("<svg ", start, 1)
    svg = svg.replace("<title>", f'<title id="{title}">').replace("<desc>", f'<desc id="{desc}">')
    self.body.append(svg)
    raise nodes.SkipNode


def as_image(node):
    """Return a drawing as Markdown that needs neither a network nor our style."""
    style = SECTION.search(STYLE.read_text(encoding="utf-8"))[0]
    start = '<svg class="lop-diagram" width="420" style="background: #fff" '
    svg = node["svg"].replace("<svg ", start, 1)
    svg = svg.replace("</desc>", f"</desc><style>{style}</style>")
    said = " ".join(re.search(r"<title>(.*?)</title>", svg)[1].split())
    data = b64encode(svg.encode()).decode()
    return f"![{said}](data:image/svg+xml;base64,{data})"


def setup(app):
    """Connect everything above."""
    app.add_node(diagram, html=(visit, None))
    app.add_transform(TakeDiagrams)
