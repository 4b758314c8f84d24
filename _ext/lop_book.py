"""What only Sphinx can do for this book; everything else is plain MyST.

* **Nothing stale.** The execution cache of myst-nb knows a notebook by its text alone, so it
  would reuse outputs after an edit of the library. :func:`code_key` sums up what the outputs
  depend on besides, and the cache gets a folder for each key. myst-nb registers the path of
  the cache as a value of the environment, so a new key makes Sphinx read every page again.
* **Nothing forgotten.** Sphinx does not repeat the warnings of a page that it need not read
  again: a second build would pass where the first failed. :func:`forget_failure` prevents it,
  and :func:`watch_static_files` makes it notice an edit of the style.
"""

import hashlib
import importlib.metadata
import os
import shutil
from importlib import import_module
from pathlib import Path

from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook

# The other modules of this folder, each with one subject.
PAGES = "api card cite course diagrams glossary live notebooks pages quiz site symbols"
LISTS = "lists claims status"


# --- The execution cache -----------------------------------------------------------------


def code_key(root):
    """Sum up what the outputs depend on besides the text of the notebook."""
    digest = hashlib.sha256()
    digest.update(os.environ.get("LOP_SCALE", "book").encode())
    digest.update(importlib.metadata.version("torch").encode())
    files = [
        *root.glob("lop_utils/**/*.py"),
        *root.glob("book/_recorded/*.json"),
        *root.glob("book/_figures/*.svg"),
        root / "constraints.txt",
    ]
    for path in sorted(files):
        digest.update(b"\0" + path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_path(root, build):
    """Return the folder of the execution cache that belongs to the present code."""
    return Path(build) / ".jupyter_cache" / code_key(Path(root))


def use_keyed_cache(app, config):
    """Point myst-nb to the keyed cache, before it reads its configuration."""
    path = cache_path(app.srcdir, Path(app.outdir).parent)
    config.nb_execution_cache_path = str(path)
    for old in path.parent.glob("*"):
        if old != path:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def watch_static_files(app, config):
    """Make an edit of the style a change of the configuration, so that the pages are written.

    Sphinx copies static files only when it writes some page.
    """
    digest = hashlib.sha256()
    for folder in config.html_static_path:
        for path in sorted(Path(app.srcdir, folder).glob("*.*")):  # not what others wrote, below
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    config.lop_static_key = digest.hexdigest()


def read_notebook(path, config=None):
    """Read a MyST notebook as myst-nb does; None where the file is plain Markdown."""
    text = Path(path).read_text(encoding="utf-8")
    if not is_myst_markdown_notebook(text):
        return None
    return read_myst_markdown_notebook(text, config, add_source_map=True, path=path)


def forget_failure(app, exception):
    """Make the next build read every page again if this one failed or warned."""
    if exception or app._warncount:
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app):
    """Connect everything above."""
    for part in f"{PAGES} {LISTS}".split():
        import_module(f"lop_{part}").setup(app)
    app.add_config_value("lop_static_key", "", "html", str)
    app.connect("config-inited", use_keyed_cache)
    app.connect("config-inited", watch_static_files)
    app.connect("build-finished", forget_failure)
    sources = sorted(Path(__file__).parent.glob("lop_*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return {
        "env_version": digest.hexdigest(),  # an edit makes Sphinx read every page again
        "parallel_read_safe": False,  # the pages that list the others are read after them
        "parallel_write_safe": True,
    }
