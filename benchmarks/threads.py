"""Execute two notebooks as a reader's machine does, and on one thread: law and completion.

Where OMP_NUM_THREADS is unset torch takes a thread for each processor. Seconds on the clock, which
the machine's other work adds to, and of the processors; the shortest of a few turns.
"""

import os
import resource
import sys
import time
from pathlib import Path
from unittest import mock

from common import arguments, record, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

CHAPTERS = ("book/parsimony/law", "book/compression/completion")
THREADS = {"unset": None, "1": "1"}


def executed(chapter, threads, cells):
    """Return the seconds of one execution: on the clock, of the processors."""
    notebook = notebooks.read_notebook(ROOT / f"{chapter}.md")
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    if cells:
        notebook.cells = notebook.cells[: code[cells]]
    with mock.patch.dict(os.environ):
        os.environ.pop("OMP_NUM_THREADS", None)
        os.environ |= {} if threads is None else {"OMP_NUM_THREADS": threads}
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        _, _, error = notebooks.execute(notebook, 3600)
        clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if error:
        raise RuntimeError(f"{chapter}: {error}")
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    """Run the benchmark and record its table."""
    options = arguments(__doc__.splitlines()[0], threads=1)
    rounds, cells = (1, 1) if options.quick else (3, None)
    rows = []
    for chapter in CHAPTERS:
        taken = {name: [] for name in THREADS}
        for _ in range(rounds):
            for name, threads in THREADS.items():
                taken[name].append(executed(chapter, threads, cells))
        best = [tuple(map(min, zip(*taken[name], strict=True))) for name in THREADS]
        rows.append([chapter.rpartition("/")[2], *best[0], *best[1], best[0][1] / best[1][1]])
    columns = ["notebook", "unset s", "of processors", "one thread s", "of processors", "ratio"]
    show(columns, rows)
    if not options.quick:
        record("threads", {"cores": os.cpu_count(), "columns": columns, "rows": rows})


if __name__ == "__main__":
    main()
