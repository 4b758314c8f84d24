"""The API pages: what autodoc and napoleon leave to do for the docstrings of ``lop_utils``.

* A name in single backticks, ``dln.gradients`` say, becomes a link, and plain code where it
  names no object of the package.
* napoleon takes the docstring of a field for ``type: description`` and so loses half of it.
* What a module only passes on is described once, where it is defined.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

from sphinx.util.nodes import make_refnode

PACKAGE = "lop_utils"
OF_A_FIELD = ("attribute", "data", "property")


def keep_fields(app, config):
    """Show the docstring of a field as it is written, whatever napoleon makes of it."""
    written = {}

    def before(app, what, name, obj, options, lines):
        if what in OF_A_FIELD:
            written[name] = list(lines)

    def after(app, what, name, obj, options, lines):
        if what in OF_A_FIELD:
            lines[:] = written.pop(name)
            if lines and lines[0].startswith("Alias for field number"):  # Python's own words
                lines[:] = []

    app.connect("autodoc-process-docstring", before, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", after, priority=600)


def as_pairs(app, config):
    """Make pairs of nitpick_ignore: YAML knows lists only, and Sphinx compares with tuples."""
    config.nitpick_ignore = [tuple(pair) for pair in config.nitpick_ignore]


def describe_once(app, what, name, obj, options, lines):
    """Let a name that another module of the package defines point to that module."""
    module, _, short = name.rpartition(".")
    home = getattr(obj, "__module__", None)
    of_module = what in ("function", "class", "exception") and inspect.getmodule(obj) is not None
    if of_module and module.startswith(PACKAGE) and home != module and module.count(".") == 1:
        lines[:] = [f"The same as :py:obj:`{home}.{short}`."]


def resolve(app, env, node, contnode):
    """Find ``module.name`` of the package; leave anything else in backticks as code."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target = f"{PACKAGE}.{node['reftarget']}"
    found = env.get_domain("py").objects.get(target)
    if found is None:
        return contnode
    where = node.get("refdoc", env.docname)
    return make_refnode(app.builder, where, found.docname, found.node_id, contnode, target)


def setup(app):
    """Load Sphinx's own extensions for docstrings, and connect everything above."""
    for name in ("autodoc", "autosummary", "napoleon"):
        app.setup_extension(f"sphinx.ext.{name}")
    app.connect("config-inited", as_pairs)
    app.connect("config-inited", keep_fields)
    app.connect("autodoc-process-docstring", describe_once, priority=450)
    app.connect("missing-reference", resolve)
    return {
        "env_version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
