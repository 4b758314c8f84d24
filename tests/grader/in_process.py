"""Run notebooks in one process that has imported all they need; a job a line, an answer a line.

Cells before a planted mistake are those of the solution: the solution runs once, and forks at each
cell in which a mistake is planted. Otter's tests run as in its grader, but without its kernel and
our walls; test_assignments.py holds both ways against each other.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}  # a GPU's threads cannot be forked

import matplotlib.pyplot  # noqa: F401
import otter
import sklearn.datasets  # noqa: F401
import torch
from IPython.core.interactiveshell import InteractiveShell
from otter.execute import Checker
from traitlets.config import Config

from lop_utils import completion, law, networks  # noqa: F401

JOBS = 2  # processes at once


def run(job, out):
    """Run the cells, and each change of them in a forked process; write what the tests say."""
    name, cells, changes, children, errors = "", job["cells"], job["changes"], [], []
    if job["tests"]:
        otter.Notebook.init_grading_mode(job["tests"])
    else:  # as a student runs it, with the checks that the notebook brings
        Checker.enable_tracking()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    signal.alarm(1800)  # waits for its children, too, on a machine that may be busy
    i = 0
    while i < len(cells):
        for changed, place, rest in changes:
            if place != i:
                continue
            if len(children) == JOBS:
                children.remove(os.wait()[0])
            if child := os.fork():
                children.append(child)
                continue
            signal.alarm(600)
            name, cells, changes, children, errors = changed, cells[:i] + rest, [], [], []
            break
        done = shell.run_cell(cells[i])
        if not done.success:
            errors.append(repr(done.error_before_exec or done.error_in_exec))
        i += 1
    found = {test.name: [test.score, test.summary()] for test in Checker.get_results()}
    result = {"name": name, "errors": errors, "tests": found}
    (out / f"{os.getpid()}.json").write_text(json.dumps(result))
    for child in children:
        os.waitpid(child, 0)


def main():
    """Answer each job with the results of all its processes."""
    torch.set_num_threads(1)  # nor can other threads
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            if (child := os.fork()) == 0:
                try:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                    os.chdir(folder)
                    Path("out").mkdir()
                    run(json.loads(line), Path(folder, "out"))
                finally:
                    os._exit(0)  # never back into this loop
            os.waitpid(child, 0)
            answer = [json.loads(path.read_text()) for path in Path(folder, "out").iterdir()]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
