"""What a slide must satisfy, measured in the browser; nothing here knows pytest."""

from contextlib import contextmanager
from typing import NamedTuple

from browser import only

STAGE = {"width": 1280, "height": 720}
FOOT = 40  # of the stage, for number, arrows and progress
SMALLEST = 20  # pixels of the stage: a thirty-sixth of its height

# One slide as it is shown, in pixels of the stage.
MEASURE = r"""([width, height]) => {
  const slide = Reveal.getCurrentSlide(), scale = Reveal.getScale();
  const stage = document.querySelector(".reveal .slides").getBoundingClientRect();
  const shown = [...slide.querySelectorAll("*")].filter((each) =>
    !each.closest("aside, mjx-assistive-mml, style, script, noscript")
    && !each.parentElement.closest("mjx-container") && each.getClientRects().length);
  const place = (each) => {
    const box = each.getBoundingClientRect();
    const { left, top } = stage, sides = [box.left, box.top, box.right, box.bottom];
    return sides.map((x, i) => (x - (i % 2 ? top : left)) / scale);
  };
  const beyond = shown.flatMap((each) => {
    const [left, top, right, bottom] = place(each);
    if (left > -1 && top > -1 && right < width + 1 && bottom < height + 1) return [];
    const where = [left, top, right, bottom].map(Math.round);
    return [`${each.tagName.toLowerCase()} ${each.className}: ${where}`];
  });
  const own = (each) =>
    [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const small = shown.filter(own).map((each) => parseFloat(getComputedStyle(each).fontSize));
  const heading = slide.querySelector("h1, h2").cloneNode(true);
  heading.querySelectorAll("mjx-container").forEach((each) => each.replaceWith("…"));
  return {
    heading: heading.textContent.trim(),
    notes: slide.querySelector("aside.notes")?.textContent.trim() ?? "",
    beyond,
    smallest: Math.min(...small),
    raw: [...slide.querySelectorAll("span.math, div.math")]
      .filter((each) => !each.querySelector("mjx-container"))
      .map((each) => each.textContent.trim()),
    wrong: [...slide.querySelectorAll("mjx-merror")].map((each) => each.textContent),
    pictures: [...slide.querySelectorAll("img")]
      .map((each) => [each.complete && each.naturalWidth > 0, each.alt]),
  };
}"""


class Deck(NamedTuple):
    """The slides on show: the page, the requests that left its folder, the errors."""

    page: object
    outside: list[str]
    errors: list[str]


@contextmanager
def showing(browser, folder, name="index.html"):
    """Open the slides as files, every other request refused; yield them."""
    outside, errors = [], []
    context = browser.new_context(viewport=STAGE)
    context.route("**/*", only(folder.as_uri(), outside))
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(f"{folder.as_uri()}/{name}", wait_until="load")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    yield Deck(page, outside, errors)
    context.close()


def measure(page):
    """Measure the slide that is shown."""
    return page.evaluate(MEASURE, [STAGE["width"], STAGE["height"] - FOOT])


def problems(slide):
    """Say what is wrong with one slide."""
    wrong = [f"beyond the stage: {each}" for each in slide["beyond"]]
    wrong += [f"not typeset: {each}" for each in slide["raw"] + slide["wrong"]]
    for loaded, alt in slide["pictures"]:
        wrong += [] if loaded else ["a picture is not there"]
        wrong += [] if len(alt) >= 12 else [f"alternative text: {alt!r}"]
    if slide["smallest"] < SMALLEST:
        wrong.append(f"letters of {slide['smallest']:g} pixels, wanted {SMALLEST} or more")
    return wrong
