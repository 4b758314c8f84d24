"""Quizzes: a question before an experiment, and options that open to say whether they are right.

In the source a quiz is an admonition of class ``quiz`` with a dropdown of sphinx-design for each
option. On the page an option is a plain ``details``, which needs no script and no icon.
"""

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_design.shared import is_component


class Option(nodes.General, nodes.Element):
    """An option of a quiz: its title, then the answer."""


class OptionTitle(nodes.TextElement):
    """What an option says."""


def is_quiz(node):
    """Tell whether a node is a quiz."""
    return isinstance(node, nodes.admonition) and "quiz" in node["classes"]


class PlainOptions(SphinxPostTransform):
    """Take the options before sphinx-design makes cards of them."""

    default_priority = 190  # its own comes at 199

    def run(self, **kwargs):
        """Put an option for each dropdown that stands in a quiz."""
        for quiz in list(self.document.findall(is_quiz)):
            for dropdown in [node for node in quiz.children if is_component(node, "dropdown")]:
                title, *answer = dropdown.children
                dropdown.replace_self(Option("", OptionTitle("", "", *title.children), *answer))


def tags(before, after):
    """Return the functions that write a node between two tags."""
    return (
        lambda writer, node: writer.body.append(before),
        lambda writer, node: writer.body.append(f"{after}\n"),
    )


def setup(app):
    """Make the nodes and the transform known."""
    app.add_node(Option, html=tags('<details class="option">', "</details>"))
    app.add_node(OptionTitle, html=tags("<summary>", "</summary>"))
    app.add_post_transform(PlainOptions)
