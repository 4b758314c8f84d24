"""What Sphinx has resolved, as Markdown that any notebook shows.

The kinds of nodes that this book's chapters hold are few; one that is not known is a warning, so
that nothing gets lost without a word.
"""

import re

from docutils import nodes
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
SPECIAL = re.compile(r"([\\`*_<$]|\](?=\())")
START = re.compile(r"^(\d*)([.)#+-])(?=\s|#)")  # what would begin a heading or a list
ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", flags=re.S)


# --- Inline ------------------------------------------------------------------------------


def inline(node):
    """Render the children of a node as Markdown in one line."""
    return "".join(span(child) for child in node.children)


def span(node):
    """Render one inline node."""
    match node:
        case nodes.Text():
            return SPECIAL.sub(r"\\\1", node.astext().replace("\n", " "))
        case nodes.math():
            return f"${node.astext().strip()}$"
        case nodes.literal():
            text = node.astext()
            fence = "`" * (1 + longest(text, "`"))
            blank = " " if text.startswith("`") or text.endswith("`") else ""
            return f"{fence}{blank}{text}{blank}{fence}"
        case nodes.emphasis():
            return f"*{inline(node)}*"
        case nodes.strong():
            return f"**{inline(node)}**"
        case nodes.reference():
            return f"[{inline(node)}]({node.get('refuri') or '#' + node['refid']})"
        case nodes.inline() | nodes.Element(tagname="number_reference"):
            return inline(node)
        case nodes.target():
            return ""
    unknown(node)
    return node.astext()


def longest(text, mark):
    """Return the length of the longest run of a mark."""
    return max(map(len, re.findall(f"{re.escape(mark)}+", text)), default=0)


def unknown(node):
    """Warn of a node that has no Markdown here."""
    message = "%s has no form in a notebook: add one to _ext/lop_markdown.py"
    LOGGER.warning(message, type(node).__name__, location=node)


# --- Blocks ------------------------------------------------------------------------------


def formula(tex, number=None):
    """Return a displayed formula; lines outside an environment get one, as on the page."""
    tex = tex.strip()
    if r"\\" in ENVIRONMENT.sub("", tex):
        tex = "\\begin{split}\n" + tex + "\n\\end{split}"
    tag = rf" \tag{{{number}}}" if number else ""
    return f"$$\n{tex}{tag}\n$$"


def table(node):
    """Return a table of pipes; a bar inside a formula or a word would end its cell."""
    for math in node.findall(nodes.math):
        tex = math.astext().replace(r"\|", r"\Vert ").replace("|", r"\vert ")
        math.children = [nodes.Text(tex)]
    rows = [
        [inline_of(entry).replace("|", r"\|") for entry in row] for row in node.findall(nodes.row)
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def inline_of(node):
    """Render an entry, whose paragraphs become one line."""
    return " ".join(inline(child) for child in node.children)


def items(node, mark):
    """Return a list, the further lines of an item indented under its first."""
    lines = []
    for i, item in enumerate(node.children, start=1):
        start = mark.format(i) + " "
        text = "\n\n".join(block(child) for child in item.children)
        lines.append(start + text.replace("\n", "\n" + " " * len(start)))
    return "\n".join(lines)


def block(node):
    """Render one block node that holds no code cell."""
    match node:
        case nodes.paragraph():
            return START.sub(r"\1\\\2", inline(node))
        case nodes.bullet_list():
            return items(node, "-")
        case nodes.enumerated_list():
            return items(node, "{}.")
        case nodes.table():
            return table(node)
        case nodes.literal_block():
            text = node.astext()
            fence = "`" * max(3, 1 + longest(text, "`"))
            return f"{fence}\n{text}\n{fence}"
    unknown(node)
    return node.astext()
