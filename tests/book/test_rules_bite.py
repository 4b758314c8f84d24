"""The rules fail where they should: small pages, each broken in one way."""

import access
import numpy as np
import page_rules as rules
import pytest
from browser import faults, opened, serve, visit

FRAME = "<!doctype html><html><head></head><body><article>{}</article></body></html>"


@pytest.fixture
def write(tmp_path):
    def write(body, name="page.html"):
        page = tmp_path / name
        page.write_text(FRAME.format(body), encoding="utf-8")
        return page

    return write


def dead(page):
    return rules.dead_links(page, page.parent)


def heavy(page):
    return rules.weight(page, page.parent) > rules.WEIGHT


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        (dead, "<a href='missing.html'>x</a>"),
        (dead, "<a href='#nowhere'>x</a>"),
        (dead, "<a href='other.html#nowhere'>x</a>"),
        (dead, "<a href='../outside.html'>x</a>"),
        (heavy, "<img src='heavy.svg'>"),
        (rules.images_without_alt, "<img src='x.svg'>"),
        (rules.images_without_alt, "<img src='x.svg' alt=''>"),
        (rules.images_without_alt, "<img src='x.svg' alt='../_images/ab12.svg'>"),
        (rules.images_without_alt, "<img src='x.svg' alt='figure'>"),
        (rules.remote_loads, "<script src='https://example.org/x.js'></script>"),
        (rules.remote_loads, "<script src='//example.org/x.js'></script>"),
        (rules.remote_loads, "<link rel='stylesheet' href='https://example.org/x.css'>"),
        (rules.remote_loads, "<style>@import 'https://example.org/x.css';</style>"),
        (rules.remote_loads, "<style>@font-face { src: url(https://example.org/x) }</style>"),
        (rules.remote_loads, "<script>const LATER = 'https://example.org/index.js'</script>"),
        (rules.launchers, "<a href='https://jupyterhub.example.org/hub/git-pull'>Hub</a>"),
        (rules.launchers, "<script>const URL = '//unpkg.com/thebe@0.8'</script>"),
        (rules.launchers, "<button class='thebe-launch-button'>Run</button>"),
    ],
)
def test_what_is_wrong_in_a_file_is_found(write, tmp_path, rule, body):
    (tmp_path / "heavy.svg").write_bytes(b" " * rules.WEIGHT)
    write("<p id='here'>", name="other.html")
    good = "<p id='top'><a href='#top'>x</a><a href='other.html#here'>y</a>"
    good += "<img src='x.svg' alt='A curve that falls'>"
    assert not rule(write(good, name="good.html"))
    assert rule(write(body))


DRAWN = (
    "<figure id='f'><svg class='lop-diagram' role='img' aria-labelledby='t d' viewBox='0 0 900 9'>"
    "<title id='t'>A</title><desc id='d'>B</desc><text class='x' font-size='2'>y</text></svg>"
    "<span class='caption-number'>Fig. 1</span></figure><a class='reference' href='#f'>Fig. 1</a>"
)


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("role='img'", "", "title"),
        ("'t d'", "'t'", "title"),
        (">A<", "><", "title"),
        ("text", "path", "text"),
        ("caption-number", "", "number"),
        ("'#f'", "'#g'", "reference"),
        ("class='x'", "fill='#0072b2'", "colour"),
    ],
)
def test_what_is_wrong_with_a_diagram_is_found(write, right, wrong, fault):
    assert rules.drawings(write(DRAWN, name="good.html")) == []
    (found,) = rules.drawings(write(DRAWN.replace(right, wrong)))
    assert fault in found


@pytest.fixture
def shown(write, tmp_path, chromium):
    def shown(body, view="light"):
        page = write(body)
        with serve(tmp_path) as base:
            return visit(chromium, base, page.name, view)

    return shown


WIDE = "<table><tr>" + "<td>thirty_characters_without_a_gap" * 5


@pytest.mark.parametrize(
    ("body", "view", "wrong"),
    [
        (r"<span class='math'>\(x^2\)</span>", "light", lambda seen: seen.measured["raw"]),
        (r"<p>as \(x\) grows</p>", "light", lambda seen: seen.measured["raw"]),
        (r"<p>as $\rho_t$ grows</p>", "light", lambda seen: seen.measured["raw"]),
        ("<mjx-merror>Undefined</mjx-merror>", "light", lambda seen: seen.measured["mathErrors"]),
        ("<script>nowhere.to.be.found()</script>", "light", lambda seen: seen.errors),
        ("<img src='missing.svg'>", "light", lambda seen: seen.missing),
        ("<img src='http://192.0.2.1/x.svg'>", "light", lambda seen: seen.outside),
        (DRAWN, "light", lambda seen: "letters" in str(faults("light", seen))),
        (WIDE, "phone", lambda seen: seen.measured["sideways"] > 0),
        (
            "<div class='cell_output'><img src='x.svg'></div>",
            "dark",
            lambda seen: seen.measured["figures"][0]["filter"] == "none",
        ),
    ],
)
def test_what_is_wrong_in_a_view_is_seen(shown, body, view, wrong):
    assert wrong(shown(body, view))


@pytest.mark.parametrize(
    ("body", "view", "rule"),
    [
        ("<button></button>", "light", "button-name"),
        ("<details><summary>more</summary><img src='x.svg'></details>", "light", "image-alt"),
        ("<p style='color: #bbb; background: #fff'>pale</p>", "light", "color-contrast"),
        ("<div class='toggle toggle-hidden'><a href='#'></a></div>", "light", "link-name"),
        ("<p style='color: #444; background: #121212'>dark</p>", "dark", "color-contrast"),
    ],
)
def test_what_axe_calls_serious_is_found(shown, body, view, rule):
    found = shown("<style>.toggle-hidden { display: none }</style>" + body, view).violations
    assert any(each.startswith(rule) for each in found)


AXES = "<path d='M10 5 V90 H190' fill='none' stroke='#444444'/>"


@pytest.mark.parametrize(
    ("drawing", "view", "faint"),
    [
        ("", "light", False),
        ("<path d='M20 20 H180' stroke='#eeeeee'/>", "light", True),
        ("<text x='50' y='50' fill='#bbbbbb'>label</text>", "light", True),
        ("", "dark", True),
    ],
)
def test_faint_figures_are_seen(shown, drawing, view, faint):
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' width='200' height='100'>{AXES}{drawing}</svg>"
    source = "data:image/svg+xml," + svg.replace("#", "%23").replace("<", "%3C").replace(">", "%3E")
    paper = "<style>html[data-theme], body { background: canvas; color-scheme: light dark }</style>"
    body = f'{paper}<div class="cell_output"><img alt="" src="{source}"></div>'
    assert bool(shown(body, view).faint) == faint


def test_a_pale_curve_does_not_pass_with_the_axis_that_it_crosses():
    picture = np.full((60, 60, 3), 255, dtype=np.uint8)
    picture[:, 30] = (60, 60, 60)
    assert access.faint(picture, (255, 255, 255)) == []
    picture[29:31, :] = (255, 220, 80)  # crosses the axis: one piece with it
    picture[:, 30] = (60, 60, 60)
    assert access.faint(picture, (255, 255, 255))
    assert access.faint(picture, (255, 255, 255), raster=True) == []
    assert access.contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.fixture
def by_keys(write, tmp_path, chromium):
    def by_keys(body):
        page = write(body)
        with serve(tmp_path) as base, opened(chromium, base, page.name, "light") as open_page:
            return {**access.walk(open_page), "presses": access.presses(open_page)}

    return by_keys


TRAP = "<button onkeydown='event.key === \"Tab\" && event.preventDefault()'>trap</button>"
FOLDED = "details:not(.option, [open]) > summary"


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (TRAP + "<a href='#x'>behind it</a>", "unreached"),
        ("<a href='#x' style='outline: none'>unseen</a>", "unmarked"),
        ("<div style='opacity: 0.1'><a href='#x'>hardly seen</a></div>", "unmarked"),
        ("<div onclick='go()'>press me</div>", "mouseOnly"),
        ("<span style='cursor: pointer'>press me</span>", "mouseOnly"),
    ],
)
def test_what_the_keyboard_misses_is_seen(by_keys, body, rule):
    assert by_keys(body)[rule]


def test_a_good_page_passes_by_keyboard(by_keys):
    found = by_keys("<a href='#x'>Skip</a><details><summary>more</summary><p>x</p></details>")
    assert found["first"] == 'a "Skip"' and found["presses"] == {FOLDED: True}
    assert not (found["unreached"] or found["unmarked"] or found["mouseOnly"])


def test_controls_that_do_nothing_are_seen(by_keys):
    found = by_keys(
        "<button class='search-button__button'>x</button>"
        "<button class='theme-switch-button'>x</button><button class='dropdown-toggle'>x</button>"
        "<details><summary onclick='event.preventDefault()'>x</summary>y</details>"
        "<div class='toggle toggle-hidden'><button class='toggle-button'>x</button></div>"
    )
    controls = ("search-button__button", "theme-switch-button", "dropdown-toggle")
    wanted = [*(f"button.{name}" for name in controls), FOLDED, ".toggle-button"]
    assert found["presses"] == dict.fromkeys(wanted, False)
