"""The glossary as mystmd writes it, so that one source serves both.

Sphinx wants each definition indented below its term, mystmd wants the definition list of
Markdown, ``: definition``. A colon is as wide as what it stands for, so that nothing else moves.
"""

from sphinx.domains.std import Glossary


class MarkdownGlossary(Glossary):
    """``{glossary}`` whose definitions may begin with a colon."""

    def run(self):
        """Indent what begins with a colon, and leave the rest to Sphinx."""
        lines = self.content.data
        lines[:] = ["  " + line[2:] if line.startswith(": ") else line for line in lines]
        return super().run()


def setup(app):
    """Put our directive in the place of Sphinx's."""
    app.add_directive_to_domain("std", "glossary", MarkdownGlossary, override=True)
