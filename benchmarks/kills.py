"""Kill a run two hundred times while it saves: what was kept is whole, and nothing is lost.

A process records a run and keeps it in a file after each step; `kill -9` ends it at a random
moment, mostly while it writes, and the next one goes on. Each time the file must be whole and hold
the last step that was kept; in the end it must hold what a run holds that nobody killed.
"""

import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path

import torch
from common import agree, arguments, record, show

from lop_utils import data, descent, init, losses


def run(file, start, d, steps, told=None):
    """Record a run of so many steps; tell of each before it is kept, and the one before is."""
    loss = losses.squared_error(data.low_rank_target(d, d, [2.0, 1.0], generator=0))
    tell = (lambda it: told.send(it.t) or it.loss) if told else (lambda it: it.loss)
    iterates = descent.train(start, loss, eta=0.05, steps=steps)
    return descent.record(iterates, file=file, save_every=0.0, loss=tell)


def killed(file, Ws0, d, chance):
    """Start the run where it was left, kill it; return the last step that was kept for sure."""
    hear, told = multiprocessing.Pipe(duplex=False)
    start = descent.resume(file, Ws0)
    begin = multiprocessing.get_context("fork").Process
    child = begin(target=run, args=(file, start, d, 10**6, told))
    child.start()
    told.close()
    kept = hear.recv() - 1  # what it began with
    time.sleep(chance.uniform(0, 0.03))
    child.kill()
    child.join()
    try:
        while hear.poll():
            kept = hear.recv() - 1
    except EOFError:
        pass
    return kept


def main():
    """Run the benchmark and record its table."""
    options = arguments(__doc__.splitlines()[0], threads=1)
    d, kills = (20, 5) if options.quick else (200, 200)
    Ws0 = init.orthogonal((d,) * 4, 0.3, generator=0)
    chance, writing, lost = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.pt"
        run(file, Ws0, d, 0)
        known = {file.name}
        for _ in range(kills):
            kept = killed(file, Ws0, d, chance)
            found = descent.resume(file, Ws0).t  # raises where the file is damaged
            lost += found < kept
            drafts = set(os.listdir(folder)) - known
            writing, known = writing + bool(drafts), known | drafts
        last = found + 1
        began = time.perf_counter()
        run(file, descent.resume(file, Ws0), d, last)
        taken = (time.perf_counter() - began) / 2  # when the step is taken, and at the end
        ended = torch.load(file, weights_only=True)
        left, size = len(os.listdir(folder)) - 1, file.stat().st_size
        straight = Path(folder) / "straight.pt"
        run(straight, Ws0, d, last)
        wanted = torch.load(straight, weights_only=True)
    agree("layers", ended["Ws"], wanted["Ws"], rtol=0.0)
    agree("record", [*ended["record"].values()], [*wanted["record"].values()], rtol=0.0)
    assert (lost, left) == (0, 0), (lost, left)
    columns = ["kills", "while saving", "steps lost", "drafts left", "steps", "bytes", "save ms"]
    rows = [[kills, writing, lost, left, last, size, 1000 * taken]]
    show(columns, rows)
    if not options.quick:
        record("kills", {"d": d, "columns": columns, "rows": rows})


if __name__ == "__main__":
    main()
