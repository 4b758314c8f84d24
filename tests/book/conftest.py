"""The built book and a browser, once a session.

`make test` has built everything before pytest starts. Alone, a test lets make build what is missing
or out of date.
"""

import os
from functools import cache
from pathlib import Path

import access
import pytest
from browser import opened, serve, visits
from chromium import HOW_TO_GET, find_chromium, launch
from outputs import Build, made, make
from page_rules import ROOT


@pytest.fixture(scope="session")
def build() -> Build:
    """Build the book, if it is not up to date."""
    return make("_build/.book")


@pytest.fixture(scope="session")
def html(build) -> Path:
    """Return the folder of the built pages."""
    if build.code:
        pytest.skip("the book was not built, see test_build.py")
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def colab(html) -> Path:
    """Return the folder of the notebooks for Colab, which the build of the pages writes too."""
    return ROOT / "_build" / "colab"


@pytest.fixture(scope="session")
def slides(html) -> Path:
    """Return the folder of the slides."""
    return made("_build/slides/index.html").parent


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
def seen(served, chromium):
    """Return a function that opens a page in a view, each once for all rules."""
    # Of two themes one is loaded, the other switched to: half the pages load dark, half light.
    both = cache(lambda page: visits(chromium, served, page, *themes(page)))
    phone = cache(lambda page: visits(chromium, served, page, "phone"))
    return lambda page, view: (phone if view == "phone" else both)(page)[view]


def themes(page):
    """Return the theme in which to load a page, and the one to switch to."""
    return ("light", "dark") if sum(page.encode()) % 2 else ("dark", "light")


@pytest.fixture(scope="session")
def by_keyboard(served, chromium):
    """Return a function that goes through a page by keyboard alone, once for all rules."""

    @cache
    def go(page):
        with opened(chromium, served, page, "light") as open_page:
            return {**access.walk(open_page), "presses": access.presses(open_page)}

    return go
