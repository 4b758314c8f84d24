"""The built book and a browser, once a session.

`make test` has built everything before pytest starts. Alone, a test lets make build what is missing
or out of date.
"""

import os
from functools import cache
from pathlib import Path

import figure_page
import pytest
from browser import serve
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
def modules(chromium):
    """Return a function from a live figure to a page that has its module as `lop`."""

    @cache
    def module(name):
        page = figure_page.page_for_figures(chromium)
        figure_page.show(page, name, places=0)
        return page

    return module


@pytest.fixture(scope="session")
def bare_pages(chromium):
    """Return a page for live figures on a desk, another on a phone, and what goes wrong there."""
    phone = {"view": "phone", "has_touch": True}
    pages = [figure_page.page_for_figures(chromium, **options) for options in ({}, phone)]
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
        return figure_page.show(pages[phone], name, address, **more)

    yield figure
    found = errors.copy()
    errors.clear()
    assert found == []
