"""The rules fail where they should: small pages, each broken in one way."""

import access
import numpy as np
import page_rules as rules
import pytest
from browser import opened, serve, visit

FRAME = "<!doctype html><html><head>{}</head><body><article>{}</article></body></html>"


@pytest.fixture
def write(tmp_path):
    def write(body="", head="", name="page.html"):
        page = tmp_path / name
        page.write_text(FRAME.format(head, body), encoding="utf-8")
        return page

    return write


@pytest.mark.parametrize(
    ("href", "dead"),
    [
        ("missing.html", True),
        ("#nowhere", True),
        ("other.html#nowhere", True),
        ("../outside.html", True),
        ("#top", False),
        ("other.html#here", False),
    ],
)
def test_dead_links_are_found(write, tmp_path, href, dead):
    write("<p id='here'>", name="other.html")
    page = write(f"<p id='top'><a href='{href}'>x</a>")
    assert bool(rules.dead_links(page, tmp_path)) == dead


@pytest.mark.parametrize("alt", ["", "alt=''", "alt='../_images/ab12.svg'", "alt='figure'"])
def test_missing_alt_text_is_found(write, alt):
    assert rules.images_without_alt(write(f"<img src='x.svg' {alt}>"))


@pytest.mark.parametrize(
    "head",
    [
        "<script src='https://example.org/x.js'></script>",
        "<script src='//example.org/x.js'></script>",
        "<link rel='stylesheet' href='https://example.org/x.css'>",
        "<style>@import 'https://example.org/x.css';</style>",
        "<style>@font-face { src: url(https://example.org/x.woff) }</style>",
        "<script>const LATER = 'https://example.org/lib/index.js'</script>",
    ],
)
def test_remote_loads_are_found(write, head):
    assert rules.remote_loads(write(head=head))


@pytest.mark.parametrize(
    "body",
    [
        "<a href='https://jupyterhub.example.org/hub/user-redirect/git-pull'>JupyterHub</a>",
        "<script>const URL = '//unpkg.com/thebe@0.8'</script>",
        "<button class='thebe-launch-button'>Run</button>",
    ],
)
def test_launchers_are_found(write, body):
    assert rules.launchers(write(body))


def test_a_heavy_image_counts(write, tmp_path):
    (tmp_path / "heavy.svg").write_bytes(b" " * rules.WEIGHT)
    assert rules.weight(write("<img src='heavy.svg'>"), tmp_path) > rules.WEIGHT


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
        (WIDE, "phone", lambda seen: seen.measured["sideways"] > 0),
    ],
)
def test_what_is_wrong_in_a_view_is_seen(shown, body, view, wrong):
    assert wrong(shown(body, view))


def test_a_light_figure_is_seen_in_the_dark(shown):
    figure = shown("<div class='cell_output'><img src='x.svg'></div>", "dark").measured["figures"]
    assert figure[0]["filter"] == "none"


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


def figure(drawing):
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' width='200' height='100'>{drawing}</svg>"
    source = "data:image/svg+xml," + svg.replace("#", "%23").replace("<", "%3C").replace(">", "%3E")
    return f'<div class="cell_output"><img alt="" src="{source}"></div>'


AXES = "<path d='M10 5 V90 H190' fill='none' stroke='#444444'/>"


@pytest.mark.parametrize(
    ("drawing", "view", "faint"),
    [
        (AXES, "light", False),
        (AXES + "<path d='M20 20 H180' stroke='#eeeeee'/>", "light", True),
        (AXES + "<text x='50' y='50' fill='#bbbbbb'>label</text>", "light", True),
        (AXES, "dark", True),
    ],
)
def test_faint_figures_are_seen(shown, drawing, view, faint):
    paper = "<style>html[data-theme], body { background: canvas; color-scheme: light dark }</style>"
    assert bool(shown(paper + figure(drawing), view).faint) == faint


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
    assert found["first"] == 'a "Skip"'
    assert not (found["unreached"] or found["unmarked"] or found["mouseOnly"])
    assert found["presses"] == {"details:not(.option, [open]) > summary": True}


@pytest.mark.parametrize(
    ("body", "control"),
    [
        ("<button class='search-button__button'>x</button>", "button.search-button__button"),
        ("<button class='theme-switch-button'>x</button>", "button.theme-switch-button"),
        ("<button class='dropdown-toggle'>x</button>", "button.dropdown-toggle"),
        (
            "<details><summary onclick='event.preventDefault()'>x</summary>y</details>",
            "details:not(.option, [open]) > summary",
        ),
        (
            "<div class='toggle toggle-hidden'><button class='toggle-button'>x</button></div>",
            ".toggle-button",
        ),
    ],
)
def test_a_control_that_does_nothing_is_seen(by_keys, body, control):
    assert by_keys(body)["presses"] == {control: False}
