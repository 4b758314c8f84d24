"""The pages as a reader meets them, in headless Chromium with the network off."""

import re
from functools import partial

import access
import pytest
from browser import faults, look, opened, reader
from page_rules import PAGES

# A page of each kind: with figures, with everything, with tables, with signatures, the search.
CHAPTER = "book/parsimony/law.html"
KINDS = [
    "book/intro.html",
    CHAPTER,
    "book/appendix/claims.html",
    "book/appendix/api/networks.html",
    "search.html",
]


@pytest.fixture(scope="module")
def book(served, chromium):
    """Return a function that looks at a page in some views; each but the first finds files kept."""
    page, notes = reader(chromium, served)
    yield partial(look, page, notes, served)
    page.context.close()


@pytest.mark.parametrize("page", [*PAGES, "search.html", "genindex.html"])
def test_a_page_is_whole_legible_and_asks_nobody_else(book, page):
    """Light, dark and on a phone: loaded once; of two pages one is dark first."""
    themes = ("light", "dark") if sum(page.encode()) % 2 else ("dark", "light")
    seen = book(page, *themes, "phone")
    found = {view: faults(view, each) for view, each in seen.items()}
    assert found == {view: [] for view in seen}


@pytest.mark.parametrize("page", KINDS)
def test_a_page_can_be_used_by_keyboard_alone(served, chromium, page):
    with opened(chromium, served, page, "light") as open_page:
        walked = access.walk(open_page)
        assert "Skip to main content" in walked.pop("first")
        assert walked == {"unreached": [], "unmarked": [], "mouseOnly": []}
        worked = access.presses(open_page)
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
