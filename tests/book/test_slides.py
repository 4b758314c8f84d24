"""The lecture as slides: what a room would see, over file:// in headless Chromium."""

import re

import pytest
from find_rules import ADDRESS
from page_rules import ROOT, soup
from slide_rules import measure, problems, showing

SOURCE = (ROOT / "book" / "teaching" / "lecture.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^##? (.*)$", re.sub(r"^```.*?^```$", "", SOURCE, flags=re.S | re.M), re.M)
MINUTES = re.compile(r"(\d+) minutes?\.")


@pytest.fixture(scope="module")
def shown(slides, chromium):
    """Go through all slides by keyboard; return each as measured, and what went wrong."""
    with showing(chromium, slides) as deck:
        found = []
        for _ in range(deck.page.evaluate("Reveal.getTotalSlides()")):
            found.append(measure(deck.page))
            deck.page.keyboard.press("ArrowRight")
        return found, list(deck.outside), list(deck.errors)


@pytest.fixture
def first(slides, chromium):
    """Open the slides, and show the one with the theorem."""
    with showing(chromium, slides) as deck:
        deck.page.evaluate(f"Reveal.slide({theorem()})")
        yield deck.page


def theorem():
    return next(i for i, heading in enumerate(HEADINGS) if "a small core" in heading)


def test_there_is_a_slide_for_each_heading_and_no_two_are_alike(shown):
    found, _, _ = shown
    assert [slide["heading"] for slide in found] == [
        re.sub(r"\$[^$]*\$", "…", heading) for heading in HEADINGS
    ]
    assert len(set(HEADINGS)) == len(HEADINGS)
    assert 18 <= len(found) <= 24


def test_every_slide_fits_the_stage_and_can_be_read(shown):
    found, _, _ = shown
    wrong = {slide["heading"]: problems(slide) for slide in found}
    assert {heading: what for heading, what in wrong.items() if what} == {}


def test_no_request_leaves_the_folder_and_nothing_fails(shown):
    _, outside, errors = shown
    assert outside == errors == []


def test_the_notes_say_for_how_long_and_fill_a_lecture(shown):
    found, _, _ = shown
    minutes = [MINUTES.match(slide["notes"]) for slide in found]
    assert all(minutes), [slide["heading"] for slide in found if not MINUTES.match(slide["notes"])]
    total = sum(int(each[1]) for each in minutes)
    assert 40 <= total <= 55
    assert f"the sum is {total}." in SOURCE


def test_the_page_has_the_same_notes_as_text(html, shown):
    found, _, _ = shown
    boxes = soup(html / "book" / "teaching" / "lecture.html").select("article .admonition.notes")
    texts = [" ".join(box.get_text().split()).removeprefix("Notes ") for box in boxes]
    assert texts == [" ".join(slide["notes"].split()) for slide in found]


def test_what_is_for_readers_of_the_page_is_on_no_slide(slides):
    page = soup(slides / "index.html")
    assert page.select(".admonition, details, .cell_input, .copybtn") == []
    assert "How to use this page" not in page.get_text()


def test_links_lead_to_the_published_pages(slides):
    links = [link["href"] for link in soup(slides / "index.html").select("a[href]")]
    assert f"{ADDRESS}book/parsimony/law.html" in links
    assert all(link.startswith(ADDRESS) for link in links)


def test_the_page_leads_to_the_slides_where_they_are_published(html):
    page = soup(html / "book" / "teaching" / "lecture.html")
    assert page.select(f'article a[href="{ADDRESS}slides/"]')


def test_the_keyboard_goes_on_and_back(slides, chromium):
    def here():
        return deck.page.evaluate("Reveal.getIndices().h")

    with showing(chromium, slides) as deck:
        visited = [here()]
        for key in ("ArrowRight", "PageDown", "Space", "ArrowLeft", "PageUp", "End", "Home"):
            deck.page.keyboard.press(key)
            visited.append(here())
    assert visited == [0, 1, 2, 3, 2, 1, len(HEADINGS) - 1, 0]


def test_the_live_figure_is_played_with_and_does_not_turn_the_page(slides, chromium):
    with showing(chromium, slides) as deck:
        page = deck.page
        number = next(i for i, heading in enumerate(HEADINGS) if "played with" in heading)
        page.evaluate(f"Reveal.slide({number})")
        says = "(text) => document.querySelector('.lop-live-status').innerText.includes(text)"
        page.wait_for_function(says, arg="994 equal")
        page.locator(".lop-live-controls input[type=number]").first.fill("500")
        page.keyboard.press("Enter")
        page.wait_for_function(says, arg="494 equal")
        page.locator(".lop-live-controls input[type=range]").first.press("ArrowLeft")
        assert page.evaluate("Reveal.getIndices().h") == number
        page.mouse.click(1200, 40)
        page.keyboard.press("ArrowRight")
        assert page.evaluate("Reveal.getIndices().h") == number + 1
        assert deck.errors == []


def test_the_second_window_shows_the_notes(slides, chromium):
    with showing(chromium, slides) as deck:
        deck.page.keyboard.press("ArrowRight")
        with deck.page.context.expect_page() as opened:
            deck.page.keyboard.press("s")
        notes = opened.value.locator(".speaker-controls-notes .value")
        notes.get_by_text("Write the product on the board").wait_for()
        deck.page.keyboard.press("ArrowRight")
        notes.get_by_text("count hands").wait_for()


# The rules bite

BROKEN = {
    "a list that is too long": (
        "slide.innerHTML += '<p>one line more</p>'.repeat(20)",
        "beyond the stage: p",
    ),
    "a figure that is too wide": (
        "slide.innerHTML += '<div style=\"width: 1400px\">x</div>'",
        "beyond the stage: div",
    ),
    "a formula that was not set": (
        "slide.innerHTML += '<span class=\"math\">\\\\(x\\\\)</span>'",
        "not typeset",
    ),
    "a picture that is missing": (
        'slide.innerHTML += \'<img src="gone.svg" alt="a picture of it">\'',
        "a picture is not there",
    ),
    "a picture without words": (
        'slide.innerHTML += \'<img src="data:," alt="figure">\'',
        "alternative text: 'figure'",
    ),
    "small print": (
        "slide.innerHTML += '<p style=\"font-size: 12px\">small</p>'",
        "letters of 12 pixels",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_slide_is_found(first, name):
    assert problems(measure(first)) == []
    change, message = BROKEN[name]
    first.evaluate(f"() => {{ const slide = Reveal.getCurrentSlide(); {change}; }}")
    assert any(found.startswith(message) for found in problems(measure(first)))


def test_what_comes_from_elsewhere_is_found(slides, chromium):
    sick = slides / "sick.html"
    text = (slides / "index.html").read_text(encoding="utf-8")
    remote = '<script src="https://cdn.example.org/mathjax.js"></script></head>'
    sick.write_text(text.replace("</head>", remote), encoding="utf-8")
    try:
        with showing(chromium, slides, sick.name) as deck:
            assert deck.outside == ["https://cdn.example.org/mathjax.js"]
    finally:
        sick.unlink()
