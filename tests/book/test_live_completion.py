"""Matrix completion, live: its numbers agree with torch, and a reader can paint what is seen."""

import re

import access
import pytest
import torch
from browser import VIEWS

from lop_utils import compression, descent, dln, losses, widgets

MODULE = widgets.module("completion")
NAMES = (
    "problem, networks, recovery, startScale, encode, decode, density, observe, leading, "
    "orthonormal, uniform, clamp, readAddress, controls"
)
PAGE = "book/compression/completion.html"
F64 = torch.float64
USUAL = {each["name"]: each["value"] for each in widgets.controls("completion")}
SIDE = USUAL["d"]
# What the figure's two networks start from and come to, and how far each layer has come.
RUN = """([settings, steps]) => {
  const asked = lop.problem(settings), nets = lop.networks(settings, asked);
  const layers = ({ P, Q, inner }) => [[...Q], inner.map((W) => [...W]), [...P]];
  const starts = nets.map(layers);
  nets.forEach((net) => { while (net.t < steps) net.advance(); });
  return {
    Phi: [...asked.Phi], A: [...asked.A], mask: [...asked.mask], dense: asked.dense, starts,
    ends: nets.map(layers), products: nets.map((net) => [...net.product()]),
    losses: nets.map((net) => net.loss),
    errors: nets.map((net) => lop.recovery(net.product(), asked)),
    rates: nets.map((net) => [net.eta, net.outerEta]),
  };
}"""
# At which step each error is first below 0.01, looked at as often as the figure does, and its end.
REACHED = """(settings) => {
  const asked = lop.problem(settings), nets = lop.networks(settings, asked);
  const every = Math.max(1, Math.round(settings.steps / 250));
  return nets.map((net) => {
    let first = null, error = 1;
    while (net.t < settings.steps && net.finite) {
      net.advance();
      if (net.t % every === 0) error = lop.recovery(net.product(), asked);
      if (first === null && error < 0.01) first = net.t;
    }
    return [first, error, net.loss, net.finite, asked.seen.values.length];
  });
}"""


@pytest.fixture(scope="module")
def module(chromium):
    """Return a page in which the module's functions are at hand."""
    page = chromium.new_page()
    page.set_content("<!doctype html><title>x</title>")
    code = f"{MODULE}\nglobalThis.lop = {{ {NAMES} }};"
    page.add_script_tag(content=code, type="module")
    page.wait_for_function("() => globalThis.lop")
    yield page
    page.close()


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=F64).reshape(*shape)


def layers(found, d, k):
    """Return the layers of a network of the figure as `lop_utils` has them, the first one first."""
    Q, inner, P = found
    return [tensor(Q, d, k).T, *(tensor(W, k, k) for W in inner), tensor(P, d, k)]


def painted(d, observed):
    """Return the text of a mask, written independently: bits in sixes, base64url."""
    bits = "".join("1" if observed(i, j) else "0" for i in range(d) for j in range(d))
    bits += "0" * (-len(bits) % 6)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(digits[int(bits[i : i + 6], 2)] for i in range(0, len(bits), 6))


GRID = [
    {},
    {"gamma": 0},
    {"gamma": 0.1, "p": 0.3, "target": 5},
    {"d": 32, "r": 2, "L": 2, "p": 0.4, "gamma": 0.3, "eta": 0.2},
    {"d": 64, "r": 1, "L": 4, "p": 0.3, "gamma": 2, "eta": 0.2, "sample": 9},
    {"d": 16, "r": 5, "L": 4, "p": 0.9, "gamma": 0.5, "eta": 0.1},
    {"d": 64, "r": 5, "L": 2, "p": 1, "gamma": 1, "eta": 0.05},
    {"d": 17, "r": 2, "p": 0.1, "eta": 0.1},
    {"d": 20, "r": 2, "painted": painted(20, lambda i, j: i < 12 or j == 3)},
]


@pytest.mark.parametrize("change", GRID, ids=lambda change: ",".join(change) or "usual")
@pytest.mark.parametrize("steps", [1, 800])
def test_both_networks_train_as_torch_trains_them(module, change, steps):
    settings = {**USUAL, **change}
    d, k, eta = settings["d"], 2 * settings["r"], settings["eta"]
    found = module.evaluate(RUN, [settings, steps])
    Phi, mask = tensor(found["Phi"], d, d), torch.tensor(found["mask"]).bool().reshape(d, d)
    rate = eta / found["dense"]
    for i, gamma in enumerate((settings["gamma"], 1)):
        Ws = layers(found["starts"][i], d, k)
        assert len(Ws) == settings["L"] + (2 if i == 0 else 0)
        rates = [gamma * rate, *[rate] * (len(Ws) - 2), gamma * rate]
        assert found["rates"][i] == pytest.approx([rate, gamma * rate], rel=1e-15)
        run = descent.gradient_descent(
            Ws, losses.masked_residual(mask, Phi), eta=rates, steps=steps
        )
        *_, last = run
        end = layers(found["ends"][i], d, k)
        for wanted, got, start in zip(last.Ws, end, Ws, strict=True):
            scale = torch.linalg.matrix_norm(wanted, 2)
            assert (got - wanted).abs().max() <= 1e-9 * scale
            assert (start - wanted).abs().max() > 1e-7 * scale or (gamma == 0 or steps == 1)
        wanted = dln.end_to_end(last.Ws)
        got = tensor(found["products"][i], d, d)
        assert (got - wanted).abs().max() <= 1e-9 * torch.linalg.matrix_norm(wanted, 2)
        assert found["losses"][i] == pytest.approx(last.loss.item(), rel=1e-9, abs=1e-22)
        error = ((wanted - Phi).norm() / Phi.norm()).item()
        assert found["errors"][i] == pytest.approx(error, rel=1e-7)


@pytest.mark.parametrize(
    "change", [{}, {"d": 64, "r": 5, "L": 2, "p": 0.3}, {"d": 16, "r": 2, "L": 4}, {"p": 1}]
)
def test_the_start_is_the_one_that_compress_reads_off_the_wide_network(module, change, generator):
    settings = {**USUAL, **change}
    d, r, L = settings["d"], settings["r"], settings["L"]
    k, eps, steps = 2 * r, 10 ** (L - 5), 300
    found = module.evaluate(RUN, [settings, steps])
    assert module.evaluate("(L) => lop.startScale(L)", L) == pytest.approx(eps, rel=1e-15)
    Phi, A = tensor(found["Phi"], d, d), tensor(found["A"], d, d)
    assert (A @ A.T - torch.eye(d)).abs().max() < 1e-13
    first = dln.orthogonal_init((d,) * L, eps, generator=generator)
    wide = [*first, eps ** (2 - L) * A @ dln.end_to_end(first).T]  # orthogonal, with product A
    assert (dln.end_to_end(wide) / eps**L - A).abs().max() < 1e-12
    mask = torch.tensor(found["mask"]).bool().reshape(d, d)
    surrogate = compression.truncate(mask * Phi / settings["p"], r)
    small = compression.compress(wide, surrogate, r, eps)
    Q, *inner, P = layers(found["starts"][0], d, k)
    assert (Q.T @ Q - small.V @ small.V.T).abs().max() < 1e-9
    assert (P @ P.T - small.U @ small.U.T).abs().max() < 1e-9
    assert (P @ Q - small.U @ small.V.T).abs().max() < 1e-9
    assert all(torch.equal(W, eps * torch.eye(k, dtype=F64)) for W in inner) and len(inner) == L
    rate, outer = found["rates"][0]
    run = descent.gradient_descent(
        compression.factors(small),
        losses.masked_residual(mask, Phi),
        eta=[outer, *[rate] * L, outer],
        steps=steps,
    )
    *_, last = run
    wanted = dln.end_to_end(last.Ws)
    got = tensor(found["products"][0], d, d)
    assert (got - wanted).abs().max() <= 1e-8 * torch.linalg.matrix_norm(wanted, 2)


def test_the_narrow_start_is_orthogonal_and_of_the_same_scale(module):
    found = module.evaluate(RUN, [{**USUAL, "L": 4}, 0])
    first, *inner, last = layers(found["starts"][1], SIDE, 6)
    for gram in (first @ first.T, *(W @ W.T for W in inner), last.T @ last):
        assert (gram - 0.01 * torch.eye(6, dtype=F64)).abs().max() < 1e-15


def test_the_target_is_as_the_text_says(module):
    found = module.evaluate(RUN, [{**USUAL, "r": 5}, 0])
    s = torch.linalg.svdvals(tensor(found["Phi"], SIDE, SIDE))
    assert (s[:5] - torch.linspace(1, 0.5, 5)).abs().max() < 1e-12 and s[5] < 1e-12
    other = module.evaluate(RUN, [{**USUAL, "r": 5, "target": 2}, 0])
    assert found["Phi"] != other["Phi"] and found["mask"] == other["mask"]
    sampled = module.evaluate(RUN, [{**USUAL, "r": 5, "sample": 2}, 0])
    assert found["Phi"] == sampled["Phi"] and found["mask"] != sampled["mask"]


def test_the_density_of_a_mask_is_its_largest_singular_value_over_d(module):
    for change in ({}, {"p": 0.05}, {"painted": painted(SIDE, lambda i, j: i < 30 and j < 20)}):
        settings = {**USUAL, **change}
        found = module.evaluate(RUN, [settings, 0])
        mask = tensor(found["mask"], SIDE, SIDE)
        wanted = torch.linalg.svdvals(mask)[0].item() / SIDE
        assert found["dense"] == pytest.approx(wanted, rel=0.01)
        if not settings["painted"]:
            assert wanted == pytest.approx(mask.mean().item(), rel=0.15 if "p" not in change else 1)
    assert module.evaluate(RUN, [USUAL, 0])["dense"] == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("d", [16, 17, 64])
def test_a_mask_goes_into_an_address_and_back(module, d, generator):
    mask = torch.rand(d, d, generator=generator) < 0.5
    text = painted(d, lambda i, j: mask[i, j])
    assert module.evaluate("(mask) => lop.encode(mask)", mask.flatten().int().tolist()) == text
    back = module.evaluate("([text, d]) => [...lop.decode(text, d)]", [text, d])
    assert torch.equal(torch.tensor(back).bool().reshape(d, d), mask)
    assert module.evaluate("([text, d]) => lop.decode(text, d)", [text[1:], d]) is None
    form = next(each["form"] for each in widgets.controls("completion") if "form" in each)
    assert re.fullmatch(form, text)


def test_what_a_few_painted_entries_leave_open_is_filled_up(module):
    """Less than r directions are seen: the start is orthonormal all the same, and nothing grows."""
    none, one, row = lambda i, j: False, lambda i, j: i == j == 7, lambda i, j: i == 4
    for observed in (none, one, row):
        settings = {**USUAL, "painted": painted(SIDE, observed)}
        found = module.evaluate(RUN, [settings, 300])
        Q, *_, P = layers(found["starts"][0], SIDE, 6)
        assert (Q @ Q.T - torch.eye(6)).abs().max() < 1e-12
        assert (P.T @ P - torch.eye(6)).abs().max() < 1e-12
        assert all(error == pytest.approx(1, abs=0.1) for error in found["errors"])


def test_what_the_text_says_of_it_is_so(module):
    """The numbers beside the figure in the chapter."""

    def reached(**change):
        return module.evaluate(REACHED, {**USUAL, **change})

    (first, end, *_), (narrow, narrow_end, *_) = reached()
    assert (first, narrow) == (1000, 1712) and end < 1e-5 and narrow_end < 1e-5
    frozen, same = reached(gamma=0)
    assert frozen[0] is None and frozen[1] == pytest.approx(0.44, abs=0.005)
    assert same[0] == narrow
    slow = reached(gamma=0.1)[0][0]
    assert narrow < slow < 2000
    assert reached(p=1, gamma=0)[0][1] < 1e-5
    flat, flat_narrow = reached(L=2)
    assert flat_narrow[0] < flat[0] and flat_narrow[1] / flat[1] == pytest.approx(1400, rel=0.3)
    nine_tenths = reached(p=0.9, gamma=0)[0]
    assert nine_tenths[1] == pytest.approx(0.15, abs=0.005)
    few = reached(p=0.1, steps=3000)
    assert few[0][4] == 250
    for start, (below, error, loss, finite, _) in zip(
        module.evaluate(RUN, [{**USUAL, "p": 0.1}, 0])["losses"], few, strict=True
    ):
        assert below is None and finite and error > 1 and loss < 0.01 * start
    draws = [reached(target=n, sample=n, steps=3000) for n in range(1, 21)]
    assert all(compressed[0] < other[0] for compressed, other in draws)
    fewer = [reached(target=n, sample=n, steps=3000, p=0.3) for n in range(1, 21)]
    quicker = sum(
        compressed[0] is not None and (other[0] is None or compressed[0] < other[0])
        for compressed, other in fewer
    )
    assert quicker == 12
    assert [n for n, (compressed, _) in enumerate(fewer, 1) if compressed[0] is None] == [6, 20]
    (late, unsettled, *_), (quick, *_) = reached(eta=0.6)
    assert late is None and unsettled > 0.3 and quick == pytest.approx(864, abs=8)
    mask = tensor(module.evaluate(RUN, [USUAL, 0])["mask"], SIDE, SIDE)
    hole = painted(SIDE, lambda i, j: mask[i, j] and not (20 <= i <= 28 and 20 <= j <= 28))
    band = painted(SIDE, lambda i, j: mask[i, j] and not 22 <= i <= 24)
    assert all(error < 1e-5 for _, error, *_ in reached(painted=hole))
    for below, error, loss, *_ in reached(painted=band):
        assert below is None and 0.2 < error < 0.3 and loss < 1e-10


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("", {"d": 48, "gamma": 1, "painted": ""}),
        ("#completion:d=20&r=2&gamma=0.2&target=7", {"d": 20, "r": 2, "gamma": 0.2, "target": 7}),
        ("#completion:d=1e9&r=99&L=-4&steps=1e12", {"d": 64, "r": 5, "L": 2, "steps": 3000}),
        ("#completion:p=0&gamma=-3&eta=Infinity", {"p": 0.02, "gamma": 0, "eta": 0.3}),
        ("#completion:painted=<b>&p=NaN", {"painted": "", "p": 0.5}),
        (f"#completion:painted={'A' * 684}", {"painted": ""}),
        (f"#completion:painted={'A' * 384}", {"painted": "A" * 384}),
        ("#completion:painted=AA%0AAA", {"painted": ""}),
        ("#law:d=20", {"d": 48}),
    ],
)
def test_what_an_address_says_is_kept_within_bounds(module, address, wanted):
    settings = module.evaluate(
        "(hash) => lop.readAddress('completion', lop.controls, hash)", address
    )
    assert {name: settings[name] for name in wanted} == wanted
    assert all(isinstance(settings[name], str) == (name == "painted") for name in USUAL)


@pytest.fixture
def figure(served, chromium):
    """Return a function that opens the figure on its page; errors fail the test."""
    errors, contexts = [], []

    def figure(view="light", address="", **options):
        context = chromium.new_context(**{**VIEWS[view], **options})
        contexts.append(context)
        opened = context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{served}/{PAGE}{address}", wait_until="load")
        live = opened.locator("#live-completion")
        if options.get("java_script_enabled", True):
            settled(live, "of ")
            # Formulas above that are typeset late would move the picture under the pointer.
            opened.wait_for_function("() => globalThis.MathJax?.startup?.promise")
            opened.evaluate("() => MathJax.startup.promise.then(() => null)")
        return live

    yield figure
    for context in contexts:
        context.close()
    assert errors == []


def settled(live, text):
    live.locator(".lop-live-status").filter(has_text=text).wait_for(timeout=30_000)
    return live.locator(".lop-live-status").inner_text().replace("\u00a0", " ")


def field(live, label):
    return live.get_by_label(label, exact=True)


def setting(live, name):
    return live.evaluate("(e, name) => e.lopStage.settings[name]", name)


def mask(live):
    """Return the painted mask, read independently, or None where none is painted."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bits = "".join(f"{digits.index(each):06b}" for each in setting(live, "painted"))
    d = setting(live, "d")
    return torch.tensor([int(bit) for bit in bits[: d * d]]).bool().reshape(d, d) if bits else None


RESTS = """async (canvas) => {
  canvas.scrollIntoView({ block: "center", behavior: "instant" });
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  for (let calm = 0, last = null; calm < 20; ) { // frames, in which nothing above it moves
    await frame();
    const { y } = canvas.getBoundingClientRect();
    calm = y === last ? calm + 1 : 0;
    last = y;
  }
}"""


def places(live, *entries):
    """Return where on the screen entries of the observed matrix are, on a page of any width."""
    canvas = live.locator("canvas")
    canvas.evaluate(RESTS)
    box = canvas.bounding_box()
    side = (box["width"] - 40) / 3 if box["width"] >= 480 else 0.7 * box["width"]
    cell, x, y = side / setting(live, "d"), box["x"], box["y"] + 24
    return [(x + (column + 0.5) * cell, y + (row + 0.5) * cell) for row, column in entries]


def drag(live, start, end):
    start, end = places(live, start, end)
    live.page.mouse.move(*start)
    live.page.mouse.down()
    live.page.mouse.move(*end, steps=4)
    live.page.mouse.up()


def test_it_says_what_has_come_of_both_networks_when_the_page_opens(figure):
    live = figure()
    said = settled(live, "After 2000 steps")
    assert "compressed 8.5 · 10⁻⁷ (first below 0.01 at step 1000)" in said
    assert "narrow 3.7 · 10⁻⁶ (first below 0.01 at step 1712)" in said
    assert said.endswith("1145 of 2304 entries are observed, to determine r(2d − r) = 279 numbers.")
    assert "Arrow keys" in live.locator("canvas").get_attribute("aria-label")


def test_typing_and_sliders_change_it(figure):
    live = figure()
    field(live, "outer γ").fill("0")
    field(live, "outer γ").press("Enter")
    assert "compressed 0.438, narrow 3.7" in settled(live, "0.438")
    field(live, "width d").fill("-7")
    field(live, "width d").press("Enter")
    assert "of 256 entries" in settled(live, "of 256")
    assert field(live, "width d").input_value() == "16"
    slider = field(live, "share p, slider")
    slider.focus()
    live.page.keyboard.press("Home")
    assert "r(2d − r) = 87 numbers: too few." in settled(live, "too few")
    live.page.keyboard.press("End")
    settled(live, "256 of 256 entries")


def test_a_stroke_with_the_mouse_hides_entries_and_trains_anew(figure):
    live = figure(address="#completion:p=1&steps=300")
    settled(live, "2304 of 2304")
    drag(live, (10, 10), (10, 30))
    settled(live, f"{2304 - 3 * 23} of 2304")
    wanted = torch.ones(48, 48, dtype=torch.bool)
    wanted[9:12, 9:32] = False
    assert torch.equal(mask(live), wanted)
    drag(live, (11, 12), (40, 12))  # begins on a hidden entry: shows
    wanted[10:42, 11:14] = True
    settled(live, f"{wanted.sum()} of 2304")
    assert torch.equal(mask(live), wanted)
    drag(live, (30, 45), (30, 60))  # out over the edge
    wanted[29:32, 44:48] = False
    settled(live, f"{wanted.sum()} of 2304")
    assert torch.equal(mask(live), wanted)
    live.get_by_role("button", name="Copy link").click()
    settled(live, "The link is")
    address = live.page.evaluate("location.hash")
    again = figure(address=address)
    settled(again, f"{wanted.sum()} of 2304")
    assert torch.equal(mask(again), wanted)
    field(again, "share p").fill("0.5")
    field(again, "share p").press("Enter")
    settled(again, "1145 of 2304")
    assert mask(again) is None


def hinted(live, text):
    live.locator(".lop-live-hint").filter(has_text=text).wait_for(timeout=10_000)


def test_the_picture_is_painted_by_keys(figure):
    live = figure(address="#completion:p=1&steps=300&d=20&r=2")
    settled(live, "400 of 400")
    live.locator("canvas").evaluate(RESTS)
    live.locator("canvas").focus()
    for key in (*["ArrowDown"] * 3, *["ArrowRight"] * 5, "ArrowUp", "ArrowLeft"):
        live.page.keyboard.press(key)
    hinted(live, "Row 3, column 5: observed.")
    live.page.keyboard.press(" ")
    settled(live, "391 of 400")
    wanted = torch.ones(20, 20, dtype=torch.bool)
    wanted[1:4, 3:6] = False
    assert torch.equal(mask(live), wanted)
    live.page.keyboard.press("ArrowLeft")
    hinted(live, "Row 3, column 4: hidden.")
    for _ in range(30):
        live.page.keyboard.press("ArrowUp")
    hinted(live, "Row 1, column 4: observed.")
    scrolled = live.page.evaluate("scrollY")
    live.page.keyboard.press("ArrowDown")
    live.page.wait_for_timeout(200)
    assert live.page.evaluate("scrollY") == scrolled
    live.page.keyboard.press("Tab")
    assert not live.locator("canvas").evaluate("(e) => e.matches(':focus')")


def touch(live, points):
    session = live.page.context.new_cdp_session(live.page)

    def send(kind, *at):
        touched = [{"x": x, "y": y} for x, y in at]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})

    send("touchStart", points[0])
    for point in points[1:]:
        send("touchMove", point)
    send("touchEnd")


def test_on_a_phone_a_finger_paints_sideways_and_scrolls_up_and_down(figure):
    live = figure(view="phone", has_touch=True, address="#completion:p=1&steps=300")
    settled(live, "2304 of 2304")
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert live.page.evaluate(fits)
    touch(live, places(live, *((20, column) for column in range(10, 31, 2))))
    wanted = torch.ones(48, 48, dtype=torch.bool)
    wanted[19:22, 9:32] = False
    settled(live, f"{wanted.sum()} of 2304")
    assert torch.equal(mask(live), wanted)
    ((x, y),) = places(live, (40, 20))
    before = live.page.evaluate("scrollY")
    touch(live, [(x, y - 20 * i) for i in range(12)])
    live.page.wait_for_timeout(500)
    assert live.page.evaluate("scrollY") > before + 50
    settled(live, f"{wanted.sum()} of 2304")
    assert torch.equal(mask(live), wanted)
    ((x, y),) = places(live, (5, 5))
    live.page.touchscreen.tap(x, y)
    settled(live, f"{wanted.sum() - 9} of 2304")


def test_its_buttons(figure):
    live = figure(address="#completion:steps=500")
    live.get_by_role("button", name="Reset").click()
    assert "compressed 1, narrow 1." in settled(live, "After 0 steps")
    live.get_by_role("button", name="Step").click()
    settled(live, "After 1 step:")
    live.get_by_role("button", name="Play").click()
    settled(live, "After 500 steps")
    live.get_by_role("button", name="Hide all").click()
    assert settled(live, "Nothing") == (
        "Nothing is observed: paint some entries, or take a new sample."
    )
    live.get_by_role("button", name="Play").click()
    live.get_by_role("button", name="New sample").click()
    settled(live, "After 500 steps")
    assert mask(live) is None and setting(live, "sample") != 1
    live.get_by_role("button", name="New target").click()
    settled(live, "After 500 steps")
    assert setting(live, "target") != 1


def test_a_step_that_is_too_large_is_called_so(figure):
    said = settled(figure(address="#completion:eta=1&L=4"), "beyond all bounds")
    assert re.match(
        r"After \d+ steps the (compressed|narrow) network is beyond all bounds: this step η, or "
        r"rate γ, is too large\. 1145 of 2304 entries",
        said,
    )


def test_a_mask_of_another_size_counts_for_nothing(figure):
    live = figure(address=f"#completion:d=20&steps=100&painted={'A' * 384}")
    assert " 0 of" not in settled(live, "of 400 entries")


def test_where_motion_is_unwanted_it_is_still_complete(figure):
    settled(figure(reduced_motion="reduce"), "After 2000 steps")


def test_without_scripts_a_picture_stands_there(figure):
    live = figure(java_script_enabled=False)
    assert live.locator("img").is_visible()
    assert live.locator("img").evaluate("(image) => image.naturalWidth") > 0


PIXELS = """(canvas) => {
  const { width, height } = canvas, ratio = width / canvas.clientWidth;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const side = (canvas.clientWidth - 40) / 3, cell = side / 48;
  return [0, 1, 2].map((n) => Array.from({ length: 48 * 48 }, (_, i) => {
    const x = n * (side + 20) + (i % 48 + 0.5) * cell, y = 24 + (Math.floor(i / 48) + 0.5) * cell;
    const at = 4 * (Math.floor(y * ratio) * width + Math.floor(x * ratio));
    return [...data.slice(at, at + 4)];
  }));
}"""


@pytest.mark.parametrize("view", ["light", "dark"])
def test_the_maps_show_the_entries(figure, module, view):
    """What is hidden is left out; blue is positive, orange negative; what is strong is solid."""
    live = figure(view=view)
    settled(live, "After 2000")
    drawn = torch.tensor(live.locator("canvas").evaluate(PIXELS), dtype=F64)
    found = module.evaluate(RUN, [USUAL, 0])
    Phi, seen = tensor(found["Phi"], SIDE * SIDE), torch.tensor(found["mask"]).bool()
    assert (drawn[0, :, 3] == 0).equal(~seen)
    strong = Phi.abs() > 1.5 * Phi.square().mean().sqrt()
    for picture, where in zip(drawn, (strong & seen, strong, strong), strict=True):
        bluish = picture[:, 2] > picture[:, 0]
        assert bluish[where].equal(Phi[where] > 0)
        alpha = picture[where, 3]
        assert (alpha > 0.6 * 255).all()
    faint = seen & (Phi.abs() < 0.1 * Phi.square().mean().sqrt())
    assert faint.any() and (drawn[0, faint, 3] < 0.3 * 255).all()


@pytest.mark.parametrize("view", ["light", "dark"])
def test_its_colours_stand_out(figure, view):
    live = figure(view=view)
    style = "(e, name) => getComputedStyle(e).getPropertyValue(`--lop-live-${name}`).trim()"
    colours = [live.evaluate(style, name) for name in ("ink", "third", "fourth", "rises", "falls")]
    numbers = [[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in colours]
    paper = live.page.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = [int(part) for part in re.findall(r"\d+", paper)[:3]]
    assert min(access.contrast(each, paper) for each in numbers) >= 4.5
