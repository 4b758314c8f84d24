"""The pages as a reader meets them, in headless Chromium with the network off."""

import re

import access
import pytest
from browser import opened
from page_rules import PAGES

every_page = pytest.mark.parametrize("page", PAGES)
every_view = pytest.mark.parametrize("view", ["light", "dark", "phone"])
both_themes = pytest.mark.parametrize("view", ["light", "dark"])
# A page of each kind: with figures, with everything, with tables, with signatures, the search.
CHAPTER = "book/parsimony/law.html"
KINDS = [
    "book/intro.html",
    CHAPTER,
    "book/appendix/claims.html",
    "book/appendix/api/networks.html",
    "search.html",
]
each_kind = pytest.mark.parametrize("page", KINDS)


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
        if figure["photograph"]:  # keeps its colours
            assert figure["filter"] == "none", figure["source"]
            continue
        assert figure["filter"] == "invert(0.9294) hue-rotate(180deg)", figure["source"]
        assert figure["background"] == "rgba(0, 0, 0, 0)", figure["source"]


@every_page
@both_themes
def test_figures_are_legible(seen, page, view):
    assert seen(page, view).faint == []


@both_themes
@pytest.mark.parametrize("page", [*PAGES, "search.html", "genindex.html"])
def test_axe_finds_nothing_serious(seen, page, view):
    assert seen(page, view).violations == []


@each_kind
def test_tab_reaches_everything(by_keyboard, page):
    assert by_keyboard(page)["unreached"] == []


@each_kind
def test_the_focus_is_seen(by_keyboard, page):
    assert by_keyboard(page)["unmarked"] == []


@each_kind
def test_nothing_needs_a_mouse(by_keyboard, page):
    assert by_keyboard(page)["mouseOnly"] == []


@each_kind
def test_the_first_stop_skips_to_the_text(by_keyboard, page):
    assert "Skip to main content" in by_keyboard(page)["first"]


@each_kind
def test_enter_works_every_control(by_keyboard, page):
    worked = by_keyboard(page)["presses"]
    assert [control for control, does in worked.items() if not does] == []
    # it has a control of each kind: search, theme, source, option of a quiz, solution, menu
    if page == CHAPTER:
        assert worked.keys() == access.PRESSES.keys()


def test_an_option_of_a_quiz_opens_and_closes_by_keyboard(served, chromium):
    with opened(chromium, served, CHAPTER, "light") as page:
        quiz = page.locator(".bd-article .quiz").first
        options, answers = quiz.locator("summary"), quiz.locator("details > p")
        assert options.count() == answers.count() >= 3
        options.first.focus()
        for opened_now, key in enumerate(["Enter", "Tab", "Space"]):
            assert answers.locator("visible=true").count() == min(opened_now, 1)
            page.keyboard.press(key)
        shown = [each.is_visible() for each in answers.all()]
        assert shown == [True, True] + [False] * (len(shown) - 2)
        assert re.match(r"(Yes|No|Nearly)\. ", answers.first.inner_text())
        page.keyboard.press("Space")
        assert answers.locator("visible=true").count() == 1


def test_a_printed_chapter_has_all_options_of_its_quizzes_and_the_answers_seen(served, chromium):
    with opened(chromium, served, CHAPTER, "light") as page:
        options = page.locator(".bd-article .quiz summary")
        options.nth(1).click()
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert all(each.is_visible() for each in options.all())
        shown = [each.is_visible() for each in page.locator(".bd-article .quiz details > p").all()]
        assert shown == [i == 1 for i in range(options.count())]


def test_a_printed_chapter_has_the_solutions_that_were_opened_and_no_buttons(served, chromium):
    with opened(chromium, served, CHAPTER, "light") as page:
        solutions = page.locator(".bd-article .solution")
        solutions.first.locator(".toggle-button").click()
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert solutions.count() >= 4
        assert [each.is_visible() for each in solutions.all()] == [True] + [False] * (
            solutions.count() - 1
        )
        for other in ("#jb-print-toc", ".lop-cite", ".toggle-button", "details.hide > summary"):
            assert page.locator(other).count() and not page.locator(f"{other}:visible").count()
        assert page.locator(".bd-article .cell_output img:visible").count()
