"""Execute the chapters whose results the execution cache does not hold, some at a time.

usage: notebooks.py [HOW_MANY_AT_A_TIME [CHAPTER...]]

The build would execute them too, but one after the other. All kernels are started by one process:
two processes might give the same port to their kernels, one of which then never answers.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_book import cache_path, read_notebook  # noqa: E402

FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)
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


async def execute(notebook, timeout):
    """Execute a notebook in place, in an empty folder; return the seconds."""
    with TemporaryDirectory() as folder:  # so that no chapter counts on files beside it
        where = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook,
            timeout=timeout,
            resources=where,
            record_timing=False,  # the cache knows a notebook by its cells, metadata included
            store_widget_state=False,
        )
        start = time.perf_counter()
        await client.async_execute()
        return time.perf_counter() - start


async def execute_unknown(root=ROOT, at_a_time=2, only=()):
    """Execute what the cache does not hold and put it there; return what failed, and why."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    timeout = config["execute"]["timeout"]
    if os.environ.get("LOP_SCALE") == "paper":
        timeout = AT_PAPER_SCALE
    cache = get_cache(str(cache_path(root, root / "_build")))
    slots, failed = asyncio.Semaphore(at_a_time), {}

    async def one(name, notebook):
        async with slots:
            try:
                seconds = await execute(notebook, timeout)
            except FAILURES as error:
                failed[name] = str(error)
                print(f"{name}: FAILED", flush=True)
                return
        bundle = CacheBundleIn(
            notebook, str(root / f"{name}.md"), data={"execution_seconds": seconds}
        )
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        print(f"{name}: {seconds:.1f} s", flush=True)

    todo = [each for each in unknown(cache, root) if not only or each[0] in only]
    await asyncio.gather(*(one(*each) for each in todo))
    return failed


if __name__ == "__main__":
    number, *only = sys.argv[1:] or ["2"]
    failed = asyncio.run(execute_unknown(at_a_time=int(number), only=only))
    for name, why in failed.items():
        print(f"\n{name}.md\n{why}", file=sys.stderr)
    sys.exit(bool(failed))
