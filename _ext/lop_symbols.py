r"""What a reader types to find a symbol: the rows of a table of symbols become index entries.

The search of the built pages knows words, and a formula is none: ``\varepsilon`` is found under
its TeX name at best, on every page that has it. A row of a table with the columns ``symbol`` and
``in code`` is where a symbol is explained. It gets an anchor, and a main entry of the index, which
the search puts first, for each of the symbol's names: ε, epsilon, eps.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.index_entries import split_index_msg

HEAD = ["symbol", "in code", "meaning"]
# TeX, and Unicode's own names, for what is called otherwise
CALLED = {"varepsilon": "epsilon", "lambda": "lamda"}  # codespell:ignore lamda
COMMAND = re.compile(r"\\([A-Za-z]+)")
SEPARATOR = re.compile(r",\s*(?:\\ )?(?![^{}]*\})")  # a comma, but not one within an index


def greek(name):
    """Return the letter that a TeX command stands for; None if it is not Greek."""
    size = "CAPITAL" if name[0].isupper() else "SMALL"
    name = CALLED.get(name, name)
    try:
        return unicodedata.lookup(f"GREEK {size} LETTER {name.upper()}")
    except KeyError:
        return None


def spellings(formula):
    r"""Return how a symbol is written without TeX: of ``\sigma_i`` they are sigma_i, σ_i, sigma, σ.

    What is more than a letter and its index has no spelling that someone would type.
    """
    plain = re.sub(r"\\mathrm|[{}\s]", "", formula)
    letters, words = plain, plain
    for name in COMMAND.findall(plain):
        if (letter := greek(name)) is None:
            return []
        letters = letters.replace(f"\\{name}", letter)
        words = words.replace(f"\\{name}", name.removeprefix("var"))
    if not re.fullmatch(r"\w+", letters):
        return []
    return list(dict.fromkeys([words, letters, words.split("_")[0], letters.split("_")[0]]))


def names(symbols, codes):
    """Return every name of a row's symbols, each once: as formulas, and as they stand in code."""
    found = []
    for formula in symbols:
        for part in SEPARATOR.split(formula):
            found += spellings(part)
    found += [word[0] for code in codes if (word := re.match(r"\w+", code))]
    return list(dict.fromkeys(found))


class SymbolEntries(SphinxTransform):
    """Give each row of a table of symbols its anchor and its entries."""

    default_priority = 500  # before Sphinx collects the entries, at 850

    def apply(self, **kwargs):
        """Find the tables by their head."""
        for table in self.document.findall(nodes.table):
            head = next(table.findall(nodes.thead), None)
            titles = [entry.astext() for entry in head.findall(nodes.entry)] if head else []
            if titles[:3] == HEAD:
                for row in next(table.findall(nodes.tbody)).children:
                    self.enter(row)

    def enter(self, row):
        """Enter one row, under the first of its names that is free."""
        symbol, code, meaning = row.children[:3]
        found = names(
            [node.astext() for node in symbol.findall(nodes.math)],
            [node.astext() for node in code.findall(nodes.literal)],
        )
        if not found:  # nobody types U_{l,1}: what its meaning names, then
            short = [node.astext() for node in meaning.findall(nodes.math)]
            found = [text for text in short if re.fullmatch(r"\w+", text)]
            found += [node.astext() for node in meaning.findall(nodes.emphasis)]
        if not found:
            return
        # a letter may have two rows; R and r are two anchors
        anchors = [f"symbol-{name}" for name in found if name.isascii()]
        anchor = next(name for name in anchors if name not in self.document.ids)
        row["ids"].append(anchor)
        self.document.note_explicit_target(row)
        entries = [("single", name, anchor, "main", None) for name in found]
        symbol.insert(0, addnodes.index(entries=entries))


def keep_entries(app):
    """Put the index entries of pages that are not written anew back into the search.

    Sphinx keeps their words and titles from the last build, and forgets these.
    """
    indexer = getattr(app.builder, "indexer", None)
    if indexer:
        for docname, entries in app.env.get_domain("index").entries.items():
            found = {
                (name, anchor or "", main)
                for kind, value, anchor, main, _ in entries
                for name in split_index_msg(kind, value)
            }
            indexer._index_entries.setdefault(docname, sorted(found))
    return []


def setup(app):
    """Connect everything above."""
    app.add_transform(SymbolEntries)
    app.connect("html-collect-pages", keep_entries)  # the last event before the search is written
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
