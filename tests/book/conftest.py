"""The built book and a browser, once a session.

`make test` runs the notebooks first (nbmake, in build/nb). What they printed goes into the
execution cache, so the book is built without running anything again. `pytest tests/book` alone
builds too: then the build executes what the cache lacks.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from browser import HOW_TO_GET, find_chromium, launch, serve, visit
from page_rules import ROOT


class Build(NamedTuple):
    """How the book was built: exit code, everything printed, and pages executed before."""

    code: int
    log: str
    executed_before: list[str]


def pytest_collection_modifyitems(items):
    """Put these tests last: they need what the notebooks printed."""
    here = Path(__file__).parent
    items.sort(key=lambda item: here in item.path.parents)  # stable, so nothing else moves


def run(*command):
    """Run a step in the repository's root, and return the finished process."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def build(request) -> Build:
    """Build the book as `make book` does, from what nbmake has executed in this session."""
    reports = request.config.pluginmanager.get_plugin("terminalreporter").stats.get("failed", [])
    if failed := [report.nodeid for report in reports if ".ipynb" in report.nodeid]:
        pytest.skip(f"the book is not built, a notebook failed: {', '.join(failed)}")
    stored = []
    if request.config.getoption("nbmake", default=False):
        stored = run(sys.executable, "tools/notebooks.py", "store").stdout.split()
    # --all: the pages show what has just been executed, not what an earlier build read
    fresh = ["--all"] if stored else []
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    done = run(jupyter_book, "build", ".", "-n", "-W", "--keep-going", *fresh)
    return Build(done.returncode, done.stdout + done.stderr, stored)


@pytest.fixture(scope="session")
def html(build) -> Path:
    """Return the folder of the built pages."""
    if build.code:
        pytest.skip("the book was not built, see test_build.py")
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def chromium():
    """Return a running browser; without one, skip at home and fail in CI."""
    executable = find_chromium()
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW_TO_GET)
    with launch(executable) as browser:
        yield browser


@pytest.fixture(scope="session")
def seen(html, chromium):
    """Return a function that opens a page in a view, each once for all rules."""
    visits = {}
    with serve(html) as base:

        def look(page, view):
            if (page, view) not in visits:
                visits[page, view] = visit(chromium, base, page, view)
            return visits[page, view]

        yield look
