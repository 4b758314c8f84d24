"""Turn chapters into .ipynb files to execute, and hand what was executed to the book's build.

usage: notebooks.py write | store

write  every chapter of _toc.yml that has code, as build/nb/<same path>.ipynb, not executed
store  those that have been executed since, all of them without an error, in the execution
       cache of the book, so that the build shows these outputs instead of running them again
"""

import shutil
import sys
from datetime import datetime
from pathlib import Path

import jupytext
import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_book import cache_path, code_key, read_notebook  # noqa: E402

# Not under _build: nbmake leaves out whatever lies in a folder of that name.
FOLDER = "build/nb"


def chapters(root):
    """Yield the name and the notebook of every page of the table of contents that has code."""
    for name in parse_toc_yaml(root / "_toc.yml"):
        notebook = read_notebook(root / f"{name}.md")
        if notebook and any(cell.cell_type == "code" for cell in notebook.cells):
            yield name, notebook


def write(root=ROOT):
    """Write the chapters with code as notebooks, each with the key of the present code."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    names = [name for name, _ in chapters(root)]
    for name in names:
        notebook = jupytext.read(root / f"{name}.md", fmt="md:myst")
        notebook.metadata["lop_key"] = code_key(root)
        path = root / FOLDER / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
    return names


def store(root=ROOT):
    """Put the executed notebooks that are still up to date into the cache; return their names."""
    stored = []
    cache = get_cache(str(cache_path(root, root / "_build")))
    for name, notebook in chapters(root):
        path = root / FOLDER / f"{name}.ipynb"
        if not path.exists():
            continue
        executed = nbformat.read(path, as_version=4)
        if executed.metadata.get("lop_key") == code_key(root) and graft(executed, notebook):
            took = {"execution_seconds": seconds(executed)}  # what myst-nb notes of its own
            bundle = CacheBundleIn(notebook, str(root / f"{name}.md"), data=took)
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            stored.append(name)
    return stored


def graft(executed, notebook):
    """Copy the outputs from one to the other; False if they differ or anything went wrong.

    The cache finds a notebook by what myst-nb reads from the source, and what jupytext reads
    need not be the same to the letter, so the outputs go where myst-nb will look for them.
    """
    old = [cell for cell in executed.cells if cell.cell_type == "code"]
    new = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in old] != [cell.source for cell in new]:
        return False
    for source, target in zip(old, new, strict=True):
        failed = any(output.output_type == "error" for output in source.outputs)
        if failed and "raises-exception" not in target.metadata.get("tags", []):
            return False
        if source.execution_count is None and source.source.strip():
            return False
        target.outputs, target.execution_count = source.outputs, source.execution_count
    if "language_info" in executed.metadata:  # what the kernel said of itself
        notebook.metadata["language_info"] = executed.metadata["language_info"]
    return True


def seconds(executed):
    """Return how long the cells took, from the first to the last; None if that was not noted."""
    noted = [cell.metadata.get("execution", {}) for cell in executed.cells]
    times = [
        datetime.fromisoformat(times[event])
        for times in noted
        for event in ("iopub.execute_input", "shell.execute_reply")
        if event in times
    ]
    return (max(times) - min(times)).total_seconds() if times else None


if __name__ == "__main__":
    steps = {"write": write, "store": store}
    if sys.argv[1:] not in (["write"], ["store"]):
        sys.exit(__doc__)
    for name in steps[sys.argv[1]]():
        print(name)
