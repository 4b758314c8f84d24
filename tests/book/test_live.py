"""The live figure of the law: its numbers agree with torch, and a reader can play with it."""

import re

import access
import pytest
import torch
from browser import VIEWS

from lop_utils import descent, dln, losses, widgets

NAMES = ("Network", "overlap", "uniform", "clamp", "readAddress", "strengths", "singularValues")
PAGES = ["book/intro.html", "book/parsimony/law.html"]
F64 = torch.float64
RUN = """([settings, M, steps]) => {
  const network = new lop.Network(settings, Float64Array.from(M));
  while (network.t < steps) network.advance();
  return [network.spectra().map((s) => [...s]), network.rho, network.loss];
}"""
DRAWN = """([d, r, draws]) => {
  const random = lop.uniform(7);
  return Array.from({ length: draws }, () => [...lop.overlap(d, r, random)]);
}"""


@pytest.fixture(scope="module")
def module(chromium):
    """Return a page in which the module's functions are at hand."""
    page = chromium.new_page()
    page.set_content("<!doctype html><title>x</title>")
    code = f"{widgets.module('law')}\nglobalThis.lop = {{ controls, {', '.join(NAMES)} }};"
    page.add_script_tag(content=code, type="module")
    page.wait_for_function("() => globalThis.lop")
    yield page
    page.close()


@pytest.mark.parametrize(
    ("d", "r", "L", "eps", "eta", "lam"),
    [
        (24, 3, 3, 0.1, 0.05, 0.0),
        (24, 3, 3, 1.0, 0.05, 0.01),
        (30, 5, 5, 0.3, 0.01, 0.0),
        (12, 1, 2, 0.05, 0.1, 0.1),
        (16, 4, 6, 0.5, 0.01, 0.001),
        (40, 2, 4, 0.1, 0.03, 0.02),
    ],
)
@pytest.mark.parametrize("steps", [1, 400])
def test_it_trains_as_torch_trains_the_wide_network(
    module, d, r, L, eps, eta, lam, steps, generator
):
    """The whole network, d by d, on torch's side; the overlap of its start on the other."""
    sigma = torch.tensor(module.evaluate("(r) => [...lop.strengths(r)]", r), dtype=F64)
    U, V = (dln.orthogonal_init((d, d), 1.0, generator=generator)[0][:, :r] for _ in "UV")
    Ws = dln.orthogonal_init((d,) * (L + 1), eps, generator=generator)
    M = V.T @ (dln.end_to_end(Ws) / eps**L).T @ U
    residual = losses.matrix_residual(U * sigma @ V.T)
    *_, last = descent.gradient_descent(Ws, residual, eta=eta, lam=lam, steps=steps)
    settings = {"d": d, "r": r, "L": L, "eps": eps, "eta": eta, "lam": lam}
    spectra, rho, loss = module.evaluate(RUN, [settings, M.flatten().tolist(), steps])
    for W, core in zip(last.Ws, spectra, strict=True):
        wanted = torch.linalg.svdvals(W)
        found = torch.tensor([*core, *[rho] * (d - 2 * r)], dtype=F64).sort(descending=True).values
        assert (found - wanted).abs().max() <= 1e-9 * wanted[0]
    assert loss == pytest.approx(last.loss.item(), rel=1e-9)


def test_it_trains_as_torch_at_the_ends_of_its_sliders(module, generator):
    for d, r, L, eps, eta, steps in ((40, 5, 6, 1.0, 0.01, 5000), (200, 2, 3, 0.1, 0.14, 400)):
        test_it_trains_as_torch_trains_the_wide_network(
            module, d, r, L, eps, eta, 0.0, steps, generator
        )


def test_what_the_text_says_of_it_is_so(module):
    """The numbers beside the figure, in the introduction and in the chapter."""

    def trained(steps=400, **change):
        settings = {"d": 1000, "r": 3, "L": 3, "eps": 0.1, "eta": 0.05, "lam": 0.0, **change}
        M = module.evaluate(
            "([d, r]) => [...lop.overlap(d, r, lop.uniform(1))]", [settings["d"], 3]
        )
        spectra, rho, loss = module.evaluate(RUN, [settings, M, steps])
        return torch.tensor(spectra[1], dtype=F64), rho, loss

    usual, wide = trained(), trained(d=2000)
    assert (wide[0] - usual[0]).abs().max() < 1e-3
    assert wide[2] == pytest.approx(2 * usual[2], rel=0.02)
    assert trained(eps=1.0)[1] == pytest.approx(1 / 3, abs=5e-3)
    for L in (2, 4, 6):
        values, rho, _ = trained(L=L)
        assert (values > rho * (1 + 1e-9)).sum() == (values < rho * (1 - 1e-9)).sum() == 3
    settled = usual[0][0]
    assert abs(trained(2000, eta=0.15)[0][0] - settled) < 1e-3
    jumping, line, _ = trained(2000, eta=0.16)
    assert abs(jumping[0] - settled) > 0.05 and line == pytest.approx(0.097, abs=1e-3)
    (core, rho, _), (decayed, low, _) = (trained(5000, eps=1.0, lam=lam) for lam in (0.0, 0.01))
    assert rho == pytest.approx(0.18, abs=5e-3) and rho / low == pytest.approx(7, abs=0.5)
    assert (decayed[:3] / core[:3] - 1).abs().max() < 0.01 and (decayed[3:] < 0.03).all()


@pytest.mark.parametrize(("d", "r"), [(6, 3), (7, 3), (12, 1), (50, 5)])
def test_the_overlap_is_a_block_of_a_random_orthogonal_matrix(module, d, r, generator):
    draws = 4000
    found = torch.tensor(module.evaluate(DRAWN, [d, r, draws]), dtype=F64).reshape(-1, r, r)
    wanted = torch.stack(
        [dln.orthogonal_init((d, d), 1.0, generator=generator)[0][:r, :r] for _ in range(draws)]
    )
    error = (1 / d / draws) ** 0.5
    assert found.mean(0).abs().max() < 5 * error
    assert (found.square().mean(0) - 1 / d).abs().max() < 0.15 / d
    # what no turn of the rows or columns changes
    values, known = torch.linalg.svdvals(found), torch.linalg.svdvals(wanted)
    spread = (2 * known.var(0) / draws).sqrt()
    assert ((values.mean(0) - known.mean(0)).abs() < 5 * spread).all()
    assert (values.std(0) / known.std(0) - 1).abs().max() < 0.12


def test_singular_values_are_exact_where_they_are_small(module, generator):
    W = torch.randn(8, 8, dtype=F64, generator=generator) * torch.logspace(0, -9, 8, dtype=F64)
    found = module.evaluate("(W) => [...lop.singularValues(W, 8)]", W.flatten().tolist())
    wanted = torch.linalg.svdvals(W)
    assert (torch.tensor(found, dtype=F64) / wanted - 1).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("", {"d": 1000, "eps": 0.1, "seed": 1}),
        ("#law:d=50&r=2&eps=0.2", {"d": 50, "r": 2, "eps": 0.2}),
        ("#law:d=1e9&r=-3&L=2.4&eta=NaN", {"d": 2000, "r": 1, "L": 2, "eta": 0.05}),
        ("#law:eps=Infinity&lam=<b>&steps=alert(1)&seed=", {"eps": 0.1, "lam": 0, "steps": 400}),
        ("#other:d=50", {"d": 1000}),
    ],
)
def test_what_an_address_says_is_kept_within_bounds(module, address, wanted):
    settings = module.evaluate("(hash) => lop.readAddress('law', lop.controls, hash)", address)
    assert {name: settings[name] for name in wanted} == wanted
    assert all(isinstance(value, int | float) for value in settings.values())


@pytest.fixture
def figure(served, chromium):
    """Return a function that opens the figure on a page; errors fail the test."""
    errors, contexts = [], []

    def figure(page=PAGES[1], view="light", address="", **options):
        context = chromium.new_context(**{**VIEWS[view], **options})
        contexts.append(context)
        opened = context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{served}/{page}{address}", wait_until="load")
        live = opened.locator(".lop-live")
        if options.get("java_script_enabled", True):
            settled(live, "After 400 steps" if not address else "After")
        return live

    yield figure
    for context in contexts:
        context.close()
    assert errors == []


def settled(live, text):
    live.locator(".lop-live-status").filter(has_text=text).wait_for(timeout=20_000)
    return live.locator(".lop-live-status").inner_text()


def field(live, label):
    return live.get_by_label(label, exact=True)


@pytest.mark.parametrize("page", PAGES)
def test_it_shows_the_law_when_the_page_opens(figure, page):
    said = settled(figure(page), "400 steps")
    assert "3 singular values above ρ, 3 below, and 994 equal to ρ = 0.0998" in said


def test_typing_dragging_and_keys_change_it(figure):
    live = figure()
    field(live, "rank r").fill("2")
    field(live, "rank r").press("Enter")
    assert "2 singular values above ρ, 2 below, and 996 equal" in settled(live, "996 equal")
    slider = field(live, "width d, slider")
    live.page.evaluate("() => MathJax.startup.promise")  # until then the page still moves
    slider.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = slider.bounding_box()
    mouse = live.page.mouse
    mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + 2, box["y"] + box["height"] / 2, steps=5)
    mouse.up()
    width = int(field(live, "width d").input_value())
    assert width < 20
    settled(live, f"and {width - 4} equal")
    slider.focus()
    live.page.keyboard.press("End")
    assert "and 1996 equal" in settled(live, "1996")
    field(live, "start ε").fill("-7")
    field(live, "start ε").press("Enter")
    assert field(live, "start ε").input_value() == "0.01"


def test_its_buttons(figure):
    live = figure()
    live.get_by_role("button", name="Reset").click()
    assert (
        "After 0 steps: in layer 2, 0 singular values above ρ, 0 below, and 1000 equal"
        in settled(live, "After 0")
    )
    live.get_by_role("button", name="Step").click()
    settled(live, "After 1 step:")
    live.get_by_role("button", name="Play").click()
    live.get_by_role("button", name="Pause").click()
    steps = int(re.search(r"After (\d+) step", settled(live, "After")).group(1))
    assert 1 <= steps < 400
    live.get_by_role("button", name="Play").click()
    settled(live, "After 400 steps")
    live.get_by_role("button", name="New start").click()
    settled(live, "After 400 steps")
    live.get_by_role("button", name="Copy link").click()
    settled(live, "The link is")
    address = live.page.evaluate("location.hash")
    assert address.startswith("#law:d=1000&r=3&L=3") and "seed=1&" not in f"{address}&"


def test_a_shared_link_opens_the_same_figure(figure):
    live = figure(address="#law:d=100&r=1&L=2&eps=0.05&eta=0.1&steps=200&layer=1")
    assert "After 200 steps: in layer 1, 1 singular value above" in settled(live, "200 steps")
    assert field(live, "width d").input_value() == "100"


def test_a_layer_that_the_network_lacks_is_its_last(figure):
    live = figure(address="#law:L=2&layer=5")
    assert "in layer 2" in settled(live, "After 400")
    assert field(live, "layer l").input_value() == "2"
    field(live, "depth L").fill("4")
    field(live, "depth L").press("Enter")
    field(live, "layer l").fill("4")
    field(live, "layer l").press("Enter")
    assert "in layer 4" in settled(live, "in layer 4")
    field(live, "depth L").fill("3")
    field(live, "depth L").press("Enter")
    assert "in layer 3" in settled(live, "in layer 3")


def test_a_step_that_is_too_large_is_called_so(figure):
    assert "this step η is too large" in settled(
        figure(address="#law:eta=0.5&eps=1&L=6"), "too large"
    )


def test_where_motion_is_unwanted_it_is_still_complete(figure):
    settled(figure(reduced_motion="reduce"), "After 400 steps")


def test_on_a_phone_it_is_tapped_and_fits(figure):
    live = figure(view="phone", has_touch=True)
    live.get_by_role("button", name="Reset").tap()
    settled(live, "After 0 steps")
    assert live.page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def test_without_scripts_a_picture_stands_there(figure):
    live = figure(java_script_enabled=False)
    assert live.locator("img").is_visible()
    assert live.locator("img").evaluate("(image) => image.naturalWidth") > 0


@pytest.mark.parametrize("view", ["light", "dark"])
def test_its_colours_stand_out(figure, view):
    live = figure(view=view)
    names = ["ink", "rises", "falls", "rest"]
    style = "(e, name) => getComputedStyle(e).getPropertyValue(`--lop-live-${name}`).trim()"
    colours = [live.evaluate(style, name) for name in names]
    numbers = [[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in colours]
    paper = live.page.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = [int(part) for part in re.findall(r"\d+", paper)[:3]]
    assert min(access.contrast(each, paper) for each in numbers) >= 4.5
    drawn = live.locator("canvas").evaluate(
        """(canvas) => [...new Uint32Array(canvas.getContext("2d")
          .getImageData(0, 0, canvas.width, canvas.height).data.buffer)].filter(Boolean).length"""
    )
    assert drawn > 3000
