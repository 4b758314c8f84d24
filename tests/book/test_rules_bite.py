"""The rules fail where they should: small pages, each broken in one way."""

import page_rules as rules
import pytest
from browser import serve, visit

FRAME = "<!doctype html><html><head>{head}</head><body><article>{body}</article></body></html>"


@pytest.fixture
def write(tmp_path):
    def write(body="", head="", name="page.html"):
        page = tmp_path / name
        page.write_text(FRAME.format(head=head, body=body), encoding="utf-8")
        return page

    return write


@pytest.mark.parametrize(
    "href", ["missing.html", "#nowhere", "other.html#nowhere", "../outside.html"]
)
def test_dead_links_are_found(write, tmp_path, href):
    write("<p id='here'>", name="other.html")
    assert rules.dead_links(write(f"<a href='{href}'>x</a>"), tmp_path)


def test_good_links_pass(write, tmp_path):
    write("<p id='here'>", name="other.html")
    page = write("<p id='top'><a href='#top'>x</a><a href='other.html#here'>y</a>")
    assert rules.dead_links(page, tmp_path) == []


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
        "<a href='https://colab.research.google.com/github/a/b/blob/main/x.ipynb'>Colab</a>",
        "<a href='https://mybinder.org/v2/gh/a/b/main'>Binder</a>",
        "<script>initThebe()</script>",
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


@pytest.mark.parametrize(
    "body",
    [r"<span class='math'>\(x^2\)</span>", r"<p>as \(x\) grows</p>", r"<p>as $\rho_t$ grows</p>"],
)
def test_raw_mathematics_is_seen(shown, body):
    assert shown(body).measured["raw"]


def test_an_error_of_mathjax_is_seen(shown):
    assert shown("<mjx-merror>Undefined control sequence</mjx-merror>").measured["mathErrors"]


def test_a_script_error_is_seen(shown):
    assert shown("<script>nowhere.to.be.found()</script>").errors


def test_a_missing_file_is_seen(shown):
    assert shown("<img src='missing.svg'>").missing


def test_a_request_to_elsewhere_is_refused_and_seen(shown):
    assert shown("<img src='http://192.0.2.1/x.svg'>").outside == ["http://192.0.2.1/x.svg"]


def test_a_wide_table_is_seen_on_a_phone(shown):
    wide = "<table><tr>" + "<td>thirty characters without a gap".replace(" ", "_") * 5
    assert shown(wide, "phone").measured["sideways"] > 0


def test_a_light_figure_is_seen_in_the_dark(shown):
    figure = shown("<div class='cell_output'><img src='x.svg'></div>", "dark").measured["figures"]
    assert figure[0]["filter"] == "none"
