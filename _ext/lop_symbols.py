r"""What a reader types to find a symbol: the rows of a table of symbols become index entries.

The search of the built pages knows words, and a formula is none: ``\varepsilon`` is found under
its TeX name at best, on every page that has it. A row of a table with the columns ``symbol`` and
``in code`` is where a symbol is explained. It gets an anchor, and a main entry of the index, which
the search puts first, for each of the symbol's names: ε, epsilon, eps.
"""

import re

from docutils import nodes
from docutils.utils.math.tex2unichar import mathalpha
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.index_entries import split_index_msg

HEAD = ["symbol", "in code", "meaning"]
COMMAND = re.compile(r"\\([A-Za-z]+)")
SEPARATOR = re.compile(r",\s*(?:\\ )?(?![^{}]*\})")  # a comma, but not one within an index


def spellings(formula):
    r"""Return how a symbol is written without TeX: of ``\sigma_i`` they are sigma_i, σ_i, sigma, σ.

    What is more than a letter and its index has no spelling that someone would type.
    """
    plain = re.sub(r"\\mathrm|[{}\s]", "", formula)
    words = COMMAND.sub(lambda found: found[1].removeprefix("var"), plain)
    letters = COMMAND.sub(lambda found: mathalpha.get(found[1], found[0]), plain)
    if not re.fullmatch(r"\w+", letters):
        return []
    return [words, letters, words.split("_")[0], letters.split("_")[0]]


def names(symbols, codes):
    """Return every name of a row's symbols, each once: as formulas, and as they stand in code."""
    parts = [part for formula in symbols for part in SEPARATOR.split(formula)]
    found = [name for part in parts for name in spellings(part)]
    found += [word[0] for code in codes if (word := re.match(r"\w+", code))]
    return list(dict.fromkeys(found))


def texts(cell, kind):
    """Return what the nodes of one kind say."""
    return [node.astext() for node in cell.findall(kind)]


class SymbolEntries(SphinxTransform):
    """Give each row of a table of symbols its anchor and its entries."""

    default_priority = 500  # before Sphinx collects the entries, at 850

    def apply(self, **kwargs):
        """Find the tables by their head."""
        for head in self.document.findall(nodes.thead):
            if texts(head, nodes.entry)[:3] == HEAD:
                for row in head.parent[-1]:
                    self.enter(row)

    def enter(self, row):
        """Enter one row, under the first of its names that is free."""
        symbol, code, meaning = row.children[:3]
        found = names(texts(symbol, nodes.math), texts(code, nodes.literal))
        if not found:  # nobody types U_{l,1}: what its meaning names, then
            found = [text for text in texts(meaning, nodes.math) if re.fullmatch(r"\w+", text)]
            found += texts(meaning, nodes.emphasis)
        if not found:
            return
        # a letter may have several rows; R and r are two anchors
        anchors = [f"symbol-{name}" for name in found if name.isascii()]
        anchors += [f"{name}-{i}" for i in range(2, 9) for name in anchors]
        anchor = next(name for name in anchors if name not in self.document.ids)
        row["ids"].append(anchor)
        self.document.note_explicit_target(row)
        entries = [("single", name, anchor, "main", None) for name in found]
        symbol.insert(0, addnodes.index(entries=entries))


def keep_entries(app):
    """Put the entries of pages that are not written anew, which Sphinx forgets, into the search."""
    indexer = getattr(app.builder, "indexer", None)
    for docname, entries in app.env.get_domain("index").entries.items() if indexer else ():
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
