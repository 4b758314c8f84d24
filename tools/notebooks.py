"""Execute the chapters whose results the execution cache does not hold, some at a time.

usage: notebooks.py [HOW_MANY_AT_A_TIME [CHAPTER...]]

nbmake runs each, as `pytest --nbmake` does. The build would execute them too, but one after the
other. All kernels are started by one process: two, as pytest-xdist has them, might give the same
port to their kernels, one of which then never answers.
"""

import asyncio
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbmake.nb_run import NotebookRun
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_book import cache_path, read_notebook  # noqa: E402

AT_PAPER_SCALE = 86400  # seconds that a cell may take


def chapters(root):
    """Yield the name and the notebook of every page of the table of contents that has code."""
    for name in parse_toc_yaml(root / "_toc.yml"):
        notebook = read_notebook(root / f"{name}.md")
        if notebook and any(cell.cell_type == "code" for cell in notebook.cells):
            yield name, notebook


def unknown(cache, root):
    """List the chapters that the cache does not hold, those with the most code first."""
    found = []
    for name, notebook in chapters(root):
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            found.append((name, notebook))
    return sorted(found, key=lambda each: -sum(len(cell.source) for cell in each[1].cells))


def execute(notebook, timeout):
    """Execute a notebook in an empty folder; return its outputs, the seconds, what went wrong."""
    with TemporaryDirectory() as folder:  # so that no chapter counts on files beside it
        file = Path(folder) / "chapter.ipynb"
        nbformat.write(notebook, file)
        start = time.perf_counter()
        try:
            done = NotebookRun(file, timeout).execute()
        except Exception as error:  # of the kernel: it died, or never answered
            return notebook, 0.0, f"{type(error).__name__}: {error}"
        finally:
            asyncio.get_event_loop().close()  # this thread's own, which nbclient leaves open
    # The cache knows a notebook by its cells, metadata included: outputs go into the one as read.
    for cell, executed in zip(notebook.cells, done.nb.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    notebook.metadata["language_info"] = done.nb.metadata.get("language_info", {})
    return notebook, time.perf_counter() - start, done.error and done.error.trace


def execute_unknown(root=ROOT, at_a_time=2, only=()):
    """Execute what the cache does not hold and put it there; return what failed, and why."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    timeout = config["execute"]["timeout"]
    if os.environ.get("LOP_SCALE") == "paper":
        timeout = AT_PAPER_SCALE
    cache = get_cache(str(cache_path(root, root / "_build")))
    todo = [each for each in unknown(cache, root) if not only or each[0] in only]
    names, notebooks, failed = [name for name, _ in todo], [book for _, book in todo], {}
    with ThreadPoolExecutor(at_a_time) as pool:
        done = pool.map(lambda notebook: execute(notebook, timeout), notebooks)
        for name, (notebook, seconds, error) in zip(names, done, strict=True):
            print(f"{name}: {'FAILED' if error else f'{seconds:.1f} s'}", flush=True)
            if error:
                failed[name] = error
                continue
            data, where = {"execution_seconds": seconds}, str(root / f"{name}.md")
            bundle = CacheBundleIn(notebook, where, data=data)
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return failed


if __name__ == "__main__":
    number, *only = sys.argv[1:] or ["2"]
    failed = execute_unknown(at_a_time=int(number), only=only)
    for name, why in failed.items():
        print(f"\n{name}.md\n{why}", file=sys.stderr)
    sys.exit(bool(failed))
