"""The Status page: how long each notebook took and on what, and what was recorded.

myst-nb notes the seconds of what it executes itself, and ``tools/notebooks.py`` puts those of
nbmake into the cache, from where myst-nb takes them; so one place, myst-nb's own notes, has both.
"""

import importlib.metadata
import json
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

import torch
from lop_lists import add_listing, rubric, table
from myst_nb.sphinx_ import NbMetadataCollector

from lop_utils.images import _NAMES

PACKAGES = ("torch", "numpy", "matplotlib", "jupyter-book")
RECORD = ("id", "seed", "commit", "device", "seconds", "torch")


def seconds(env):
    """Return rows of executed page and how long it took, and their sum; – where nobody took it."""
    noted = NbMetadataCollector.get_doc_data(env)
    executed = [name for name in env.collect_relations() if noted[name].get("exec_data")]
    times = [noted[name]["exec_data"]["runtime"] for name in executed]
    known = [took for took in times if took is not None]
    shown = ["–" if took is None else f"{took:.1f}" for took in times]
    rows = [(f"{{doc}}`/{name}`", took) for name, took in zip(executed, shown, strict=True)]
    return [*rows, ("all of them", f"{sum(known):.1f}" if known else "–")]


def processor():
    """Name what computes: the graphics card if torch finds one, and the processor."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(iter(re.findall(r"^model name\s*: (.+)", info, re.M)), name)
    card = f"{torch.cuda.get_device_name()}; " if torch.cuda.is_available() else ""
    return f"{card}{name}, {os.cpu_count()} cores"


def built_with():
    """Return what the notebooks ran on, as rows of name and value."""
    versions = [(name, importlib.metadata.version(name)) for name in PACKAGES]
    scale = os.environ.get("LOP_SCALE", "book")
    return [
        ("Python", platform.python_version()),
        *versions,
        ("device", processor()),
        ("scale (LOP_SCALE)", scale),
    ]


def records(root):
    """Read the recorded results; benchmarks are shown on a page of their own."""
    files = sorted(Path(root, "book", "_recorded").glob("*.json"))
    files = [file for file in files if not file.stem.startswith("bench-")]
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def image_sets(found, names):
    """Return for each set of images which records say that they are of it."""
    sets = {name: [] for name in names}
    for record in found:
        name = record["values"].get("data")
        if isinstance(name, str) and name in sets:
            sets[name].append(record["id"])
    rows = {name: ", ".join(ids) or "never run" for name, ids in sets.items()}
    if "digits" in rows:  # they need no download, so that no build goes without them
        rows["digits"] = "in every build"
    return list(rows.items())


def listed(env):
    """Return the tables; what they show is part of the cache's key, so Sphinx reads anew."""
    found = records(env.srcdir)
    recorded = [[record[key] for key in RECORD] for record in found]
    head = [key.capitalize() for key in RECORD]
    tables = {
        "Seconds per notebook": table("lop-seconds", ["Notebook", "Seconds"], seconds(env)),
        "What they ran on": table("lop-versions", ["", "Version"], built_with()),
        "Results recorded at paper scale": table("lop-records", head, recorded),
        "Image sets": table("lop-images", ["Set", "Recorded results"], image_sets(found, _NAMES)),
    }
    return [x for title, rows in tables.items() for x in (*rubric(title), *rows)]


def setup(app):
    """Make the directive known."""
    add_listing(app, "status", listed)
