"""What make builds of the book, for the tests that look at it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from page_rules import ROOT


class Build(NamedTuple):
    """How make ended, and everything that it printed."""

    code: int
    log: str


def make(target) -> Build:
    """Let make bring a target up to date, with the programs beside this Python."""
    # not the flags of a make that started pytest
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--silent", "--old-file=.venv/.ready", f"BIN={Path(sys.executable).parent}"]
    (ROOT / "_build").mkdir(exist_ok=True)
    with (ROOT / "_build" / ".lock").open("w") as lock:  # one test process at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [*command, target],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    return Build(done.returncode, done.stdout)


def made(target) -> Path:
    """Return a file of the book's outputs, made if need be."""
    done = make(target)
    assert done.code == 0, f"make {target}:\n{done.log[-4000:]}"
    return ROOT / target
