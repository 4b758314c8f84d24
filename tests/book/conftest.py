"""The built book and a browser, once a session.

`make test` runs the notebooks first (nbmake, in build/nb). What they printed goes into the
execution cache, so the book is built without running anything again. `pytest tests/book` alone
builds too: then the build executes what the cache lacks.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import live
import pytest
from browser import serve
from chromium import HOW_TO_GET, find_chromium, launch
from page_rules import ROOT
from places import commit_all, copy_tree


class Build(NamedTuple):
    """How the book was built: exit code, everything printed, and pages executed before."""

    code: int
    log: str
    executed_before: list[str]


def pytest_collection_modifyitems(items):
    """Put these tests last: they need what the notebooks printed."""
    here = Path(__file__).parent
    items.sort(key=lambda item: here in item.path.parents)  # stable, so nothing else moves


def run(*command, more=None):
    """Run a step in the repository's root, with more variables; return the finished process."""
    environment = {**os.environ, **(more or {})}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def jupyter_book():
    """Return the command that builds the book."""
    return Path(sys.executable).with_name("jupyter-book")


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
    done = run(jupyter_book(), "build", ".", "-n", "-W", "--keep-going", *fresh)
    return Build(done.returncode, done.stdout + done.stderr, stored)


@pytest.fixture(scope="session")
def html(build) -> Path:
    """Return the folder of the built pages."""
    if build.code:
        pytest.skip("the book was not built, see test_build.py")
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def package_source(tmp_path_factory) -> str:
    """Return what pip installs the package of this very tree from."""
    return commit_all(copy_tree(tmp_path_factory.mktemp("repository")))


@pytest.fixture(scope="session")
def colab(build, package_source, tmp_path_factory) -> Path:
    """Return the folder of the notebooks for Colab, which install the package from here."""
    if build.code:
        pytest.skip("the book was not built, see test_build.py")
    source = {"LOP_SOURCE": package_source}
    builder = ["--builder", "custom", "--custom-builder", "colab"]
    done = run(jupyter_book(), "build", ".", "-n", "-W", "--keep-going", *builder, more=source)
    assert done.returncode == 0, done.stdout + done.stderr
    # away from where `make colab` writes: these install from a clone that soon is gone
    return Path(shutil.move(ROOT / "_build" / "colab", tmp_path_factory.mktemp("colab")))


@pytest.fixture(scope="session")
def chromium():
    """Return a running browser; without one, skip at home and fail in CI."""
    executable = find_chromium()
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW_TO_GET)
    with launch(executable) as browser:
        yield browser


@pytest.fixture(scope="session")
def served(html):
    """Return the address of the built pages, while they are served."""
    with serve(html) as base:
        yield base


@pytest.fixture(scope="session")
def modules(chromium):
    """Return a function from a live figure to a page that has its module as `lop`."""

    @cache
    def module(name):
        page = live.page_for_figures(chromium)
        live.show(page, name, places=0)
        return page

    return module


@pytest.fixture(scope="session")
def bare_pages(chromium):
    """Return a page for live figures on a desk, another on a phone, and what goes wrong there."""
    phone = {"view": "phone", "has_touch": True}
    pages = [live.page_for_figures(chromium, **options) for options in ({}, phone)]
    errors = []
    for page in pages:
        page.on("pageerror", lambda error: errors.append(str(error)))
    return *pages, errors


@pytest.fixture
def figure(bare_pages):
    """Return a function that shows a live figure alone on a page; an error there fails the test."""
    *pages, errors = bare_pages

    def figure(name, address="", *, phone=False, theme="light", motion="no-preference", **more):
        pages[phone].emulate_media(color_scheme=theme, reduced_motion=motion)
        return live.show(pages[phone], name, address, **more)

    yield figure
    found = errors.copy()
    errors.clear()
    assert found == []
