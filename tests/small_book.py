"""A book of a few pages in a folder, built by Sphinx in this process with our extension."""

import os
import subprocess
import warnings
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from lop_book import cache_path, read_notebook
from sphinx.testing.util import SphinxTestApp
from sphinx.util.console import strip_colors

ROOT = Path(__file__).resolve().parent.parent
# What _config.yml says to Sphinx, in so far as it concerns a book without its style.
SETTINGS = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
OURS = ("autodoc", "default_role", "git_", "html_last_updated", "napoleon", "nitpick", "suppress")
CONF = f"""
extensions = ["myst_nb", "lop_book"]
source_suffix = {{".md": "myst-nb"}}
exclude_patterns = ["_build", "build"]
nb_execution_mode = "cache"
nb_execution_show_tb = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
templates_path = []  # else a list that themes of all builds extend
mathjax_path = "mathjax.js"  # asked of a browser only
nitpicky = True
copyright = "2024"
html_theme = "sphinx_book_theme"
html_title = "A & B"
html_theme_options = {{
    "repository_url": "https://github.com/Some-One/a-book",
    "repository_branch": "main",
    "use_issues_button": True,
    "use_edit_page_button": True,
}}
globals().update({ {k: v for k, v in SETTINGS.items() if k.startswith(OURS)}!r})
"""
HEADER = """---
jupytext:
  text_representation: {{format_name: myst}}
kernelspec: {{name: python3, display_name: Python 3}}
---

# {}

"""
CLAIM = {
    "id": "one.square",
    "statement": "it is $|x^2|$",
    "measured": 4.0,
    "bounds": {"at_most": 9.0},
    "source": "arithmetic",
    "shown": "4 ≤ 9",
}
# A cell that does, in the test's own words, what lop_utils.book.claims does.
CLAIM_CELL = f"""```{{code-cell}}
:tags: [claim]

from IPython.display import display
import sys; sys.path.insert(0, "..")
from lop_utils import VALUE
record = {CLAIM} | {{"measured": VALUE, "shown": f"{{VALUE:.3g}} ≤ 9"}}
display({{"application/vnd.lop.claim+json": record, "text/markdown": "it is $x^2$"}}, raw=True)
```
"""


class Book:
    """Write pages, build them, look at what came out."""

    def __init__(self, folder, **files):
        self.folder, self.html = folder, folder / "_build" / "html"
        self.write("conf.py", CONF)
        self.write("constraints.txt", "")
        self.write(".gitignore", "_build\n")
        self.write("_toc.yml", "format: jb-book\nroot: index\nchapters:\n- file: chapter/one\n")
        for name, text in files.items():
            self.write(f"{name}.md", text)

    def write(self, name, text):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def build(self):
        """Build; return what was warned of and what was said."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of other people's extensions
            app = SphinxTestApp(srcdir=self.folder)
            try:
                app.build()
            finally:
                app.cleanup()
        return [strip_colors(stream.getvalue()) for stream in (app.warning, app.status)]

    def built(self):
        """Build as strictly as `make book`; return what was said."""
        warned, said = self.build()
        assert not warned, warned
        return said

    def page(self, name):
        return (self.html / name).with_suffix(".html").read_text(encoding="utf-8")

    def cached(self, name, *outputs, seconds=None):
        """Put the outputs of a page's cells where the build finds them, as `make test` does."""
        path = self.folder / f"{name}.md"
        notebook = read_notebook(path)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, output in zip(cells, outputs, strict=True):
            cell.execution_count, cell.outputs = 1, [nbformat.v4.new_output(**output)]
        notebook.metadata["language_info"] = {"name": "python"}
        bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
        cache = get_cache(str(cache_path(self.folder, self.folder / "_build")))
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)

    def git(self, *arguments, date="2025-03-01T12:00:00Z"):
        names = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        environment = {**os.environ, **dates, **settings}
        command = ["git", *names, *arguments]
        subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, check=True)

    def commit(self, date):
        self.git("add", "-A")
        self.git("commit", "-qm", "x", date=date)
