"""The glossary as mystmd writes it, so that one source serves both.

Sphinx wants each definition indented below its term, mystmd wants the definition list of
Markdown, ``: definition``. A colon is as wide as what it stands for, so that nothing else moves.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sphinx.domains.std import Glossary


class MarkdownGlossary(Glossary):
    """``{glossary}`` whose definitions may begin with a colon."""

    def run(self):
        """Indent what begins with a colon, and leave the rest to Sphinx."""
        for index, line in enumerate(self.content.data):
            if line.startswith(": "):
                self.content.data[index] = "  " + line[2:]
        return super().run()


def setup(app):
    """Put our directive in the place of Sphinx's."""
    app.add_directive_to_domain("std", "glossary", MarkdownGlossary, override=True)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
