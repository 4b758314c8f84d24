"""The API pages: what autodoc and napoleon leave to do for the docstrings of ``lop_utils``.

* A name in single backticks, ``descent.train`` say, becomes a link, and plain code where it
  names no object of the package.
* napoleon takes the docstring of a field for ``type: description``, unless a comment stands above.
"""

from sphinx.util.nodes import make_refnode

PACKAGE = "lop_utils"


def adapt(app, what, name, obj, options, lines):
    """Leave the docstring of a field as it is written."""
    if what in ("attribute", "data", "property"):
        pythons_own = lines[:1] and lines[0].startswith("Alias for field number")
        lines[:] = [] if pythons_own else ["..", "", *lines]


def resolve(app, env, node, contnode):
    """Find ``module.name`` of the package; leave anything else in backticks as code."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    known, name = env.get_domain("py").objects, node["reftarget"]
    places = (f"{PACKAGE}.{name}", f"{PACKAGE}.book.{name}")
    if (target := next((place for place in places if place in known), None)) is None:
        return contnode
    found = known[target]
    where = node.get("refdoc", env.docname)
    return make_refnode(app.builder, where, found.docname, found.node_id, contnode, target)


def setup(app):
    """Load Sphinx's own extensions for docstrings, and connect everything above."""
    for name in ("autodoc", "autosummary", "napoleon"):
        app.setup_extension(f"sphinx.ext.{name}")
    app.connect("autodoc-process-docstring", adapt, priority=400)  # napoleon has 500
    app.connect("missing-reference", resolve)
