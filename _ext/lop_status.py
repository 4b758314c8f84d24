"""The Status page: how long each notebook took and on what, and what was recorded.

myst-nb notes the seconds of what it executes itself, and ``tools/notebooks.py`` puts those of
nbmake into the cache, from where myst-nb takes them; so one place, myst-nb's own notes, has both.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from contextlib import suppress
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

PACKAGES = ("torch", "numpy", "matplotlib", "jupyter-book")
RECORD = ("id", "seed", "commit", "device", "seconds", "torch")


class status_tables(nodes.General, nodes.Element):
    """Where the tables go, once every page has been read."""


class StatusDirective(SphinxDirective):
    """``{status}``: notebooks, versions and records."""

    def run(self):
        """Leave a place, and remember the page."""
        pages_of(self.env).add(self.env.docname)
        return [status_tables()]


def pages_of(env):
    """Return the names of the pages that show the tables."""
    if not hasattr(env, "lop_status_pages"):
        env.lop_status_pages = set()
    return env.lop_status_pages


def forget_page(app, env, docname):
    """Forget a page that is gone or about to be read."""
    pages_of(env).discard(docname)


def merge_pages(app, env, docnames, other):
    """Take over what a parallel reader found."""
    pages_of(env).update(pages_of(other) & set(docnames))


def seconds(env):
    """Return for each executed page, in the order of the book, how long it took."""
    noted = getattr(env, "nb_metadata", {})
    executed = [name for name in env.collect_relations() if noted.get(name, {}).get("exec_data")]
    return {name: noted[name]["exec_data"]["runtime"] for name in executed}


def processor():
    """Name what computes: the graphics card if torch finds one, and the processor."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = next(iter(models), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = f"{name}, {cores} cores"
    with suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            device = f"{torch.cuda.get_device_name()}; {device}"
    return device


def built_with():
    """Return what the notebooks ran on, as rows of name and value."""
    rows = [("Python", platform.python_version())]
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            rows.append((name, importlib.metadata.version(name)))
    scale = os.environ.get("LOP_SCALE", "book")
    return [*rows, ("device", processor()), ("scale (LOP_SCALE)", scale)]


def records(root):
    """Read the recorded results."""
    files = sorted(Path(root, "book", "_recorded").glob("*.json"))
    files = [file for file in files if not file.stem.startswith("bench-")]  # of another size
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def recorded(root):
    """Return the recorded results, without their values, as rows."""
    return [tuple(str(record[key]) for key in RECORD) for record in records(root)]


def image_sets(root):
    """Return for each set that the package loads which records say that they are of it."""
    try:
        from lop_utils.images import NAMES
    except ImportError:  # a book without the package
        return []
    found = {name: [] for name in NAMES}
    for record in records(root):
        name = record["values"].get("data")
        if isinstance(name, str) and name in found:
            found[name].append(record["id"])
    rows = {name: ", ".join(ids) or "never run" for name, ids in found.items()}
    if "digits" in rows:  # they need no download, so that no build goes without them
        rows["digits"] = "in every build"
    return list(rows.items())


def refresh(app, env):
    """Write the pages with tables anew if a time, a version, a record or a title changed."""
    times = [(name, env.titles[name].astext(), took) for name, took in seconds(env).items()]
    root = app.srcdir
    state = (times, built_with(), recorded(root), image_sets(root)) if pages_of(env) else None
    if state == getattr(env, "lop_status_shown", None):
        return []
    env.lop_status_shown = state
    return sorted(pages_of(env))


def show(app, doctree, docname):
    """Put the tables in their place."""
    for place in list(doctree.findall(status_tables)):
        times = seconds(app.env)
        rows = [[link(app, docname, name), duration(took)] for name, took in times.items()]
        known = [took for took in times.values() if took is not None]
        rows.append(["all of them", duration(sum(known) if known else None)])
        content = [
            *titled("Seconds per notebook", ["Notebook", "Seconds"], rows, "lop-seconds"),
            *titled("What they ran on", ["", "Version"], built_with(), "lop-versions"),
        ]
        if found := recorded(app.srcdir):
            head = [key.capitalize() for key in RECORD]
            content += titled("Results recorded at paper scale", head, found, "lop-records")
        if sets := image_sets(app.srcdir):
            content += titled("Image sets", ["Set", "Recorded results"], sets, "lop-images")
        place.replace_self(content)


def link(app, docname, name):
    """Link to a page by its title."""
    title = nodes.Text(app.env.titles[name].astext())
    return make_refnode(app.builder, docname, name, "", title)


def duration(took):
    """Write seconds; a notebook whose time nobody took has a dash."""
    return "–" if took is None else f"{took:.1f}"


def titled(title, head, rows, kind):
    """Build a title and its table from rows of texts and nodes."""
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec("", colwidth=1) for _ in head]
    group += nodes.thead("", row(head))
    group += nodes.tbody("", *[row(cells) for cells in rows])
    return [nodes.rubric("", title), nodes.table("", group, classes=[kind])]


def row(cells):
    """Build one row."""
    inline = [nodes.Text(cell) if isinstance(cell, str) else cell for cell in cells]
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", cell)) for cell in inline])


def setup(app):
    """Connect everything above."""
    app.add_node(status_tables)
    app.add_directive("status", StatusDirective)
    app.connect("env-purge-doc", forget_page)
    app.connect("env-merge-info", merge_pages)
    app.connect("env-updated", refresh)
    app.connect("doctree-resolved", show)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
