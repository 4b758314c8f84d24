"""The pages as a reader meets them, in headless Chromium with the network off."""

import pytest
from page_rules import PAGES

every_page = pytest.mark.parametrize("page", PAGES)
every_view = pytest.mark.parametrize("view", ["light", "dark", "phone"])


@every_page
@every_view
def test_no_request_leaves_the_machine(seen, page, view):
    assert seen(page, view).outside == []


@every_page
@every_view
def test_no_script_error(seen, page, view):
    assert seen(page, view).errors == []


@every_page
@every_view
def test_nothing_is_missing(seen, page, view):
    assert seen(page, view).missing == []


@every_page
def test_mathematics_renders(seen, page):
    measured = seen(page, "light").measured
    assert measured["raw"] == []
    assert measured["mathErrors"] == []


@every_page
def test_no_sideways_scroll_on_a_phone(seen, page):
    assert seen(page, "phone").measured["sideways"] <= 0


@every_page
@every_view
def test_figures_show(seen, page, view):
    assert [
        figure["source"] for figure in seen(page, view).measured["figures"] if not figure["shown"]
    ] == []


@every_page
def test_figures_belong_to_the_dark_page(seen, page):
    measured = seen(page, "dark").measured
    assert measured["theme"] == "dark"
    # inverting white by 0.9294 gives 18 of 255, which is this background
    assert measured["background"] == "rgb(18, 18, 18)"
    for figure in measured["figures"]:
        assert figure["filter"] == "invert(0.9294) hue-rotate(180deg)", figure["source"]
        assert figure["background"] == "rgba(0, 0, 0, 0)", figure["source"]
