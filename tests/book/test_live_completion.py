"""Matrix completion, live: its numbers agree with torch, and a reader can paint what is seen."""

import re
from functools import partial

import pytest
import torch
from figure_page import button, enter, field, said, setting

from lop_utils import compression, descent, init, losses, networks
from lop_utils.book import live as widgets

F64 = torch.float64
USUAL = {each["name"]: each["value"] for each in widgets.controls("completion")}
SIDE = USUAL["d"]
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What the figure's two networks start from, and what they are after some steps.
RUN = """([settings, stops]) => {
  const asked = lop.problem(settings), nets = lop.networks(settings, asked);
  const layers = ({ P, Q, inner }) => [[...Q], inner.map((W) => [...W]), [...P]];
  return {
    Phi: [...asked.Phi], A: [...asked.A], mask: [...asked.mask], dense: asked.dense,
    rates: nets.map((net) => [net.eta, net.outerEta]),
    states: [0, ...stops].map((steps) => nets.map((net) => {
      while (net.t < steps) net.advance();
      const product = net.product();
      return { layers: layers(net), product: [...product], loss: net.loss,
        error: lop.recovery(product, asked) };
    })),
  };
}"""
# At which step each error is first below 0.01, looked at as often as the figure does, and its end;
# where only the race counts, until one is there.
REACHED = """([settings, race]) => {
  const asked = lop.problem(settings), every = Math.max(1, Math.round(settings.steps / 250));
  const nets = lop.networks(settings, asked).map((net) => ({ net, first: null, error: 1 }));
  for (let t = 1; t <= settings.steps && !(race && nets.some(({ first }) => first)); t++) {
    for (const each of nets) {
      if (!each.net.finite) continue;
      each.net.advance();
      if (t % every) continue;
      each.error = lop.recovery(each.net.product(), asked);
      if (each.error < 0.01) each.first ??= t;
    }
  }
  return nets.map(({ net, first, error }) =>
    [first, error, net.loss, net.finite, asked.seen.values.length]);
}"""


@pytest.fixture(scope="module")
def module(modules):
    return modules("completion")


@pytest.fixture
def completion(figure):
    return partial(figure, "completion")


def run(module, *stops, **change):
    """Return what `RUN` finds, with the target and the mask as tensors."""
    settings = {**USUAL, **change}
    found = module.evaluate(RUN, [settings, stops])
    d = settings["d"]
    for name in ("Phi", "A", "mask"):
        found[name] = tensor(found[name], d, d)
    return found


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=F64).reshape(*shape)


def layers(state, d, k):
    """Return the layers of a network of the figure as `lop_utils` has them, the first one first."""
    Q, inner, P = state["layers"]
    return [tensor(Q, d, k).T, *(tensor(W, k, k) for W in inner), tensor(P, d, k)]


def painted(d, observed):
    """Return the text of a mask, written independently: bits in sixes, base64url."""
    bits = "".join("1" if observed(i, j) else "0" for i in range(d) for j in range(d))
    bits += "0" * (-len(bits) % 6)
    return "".join(DIGITS[int(bits[i : i + 6], 2)] for i in range(0, len(bits), 6))


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
def test_both_networks_train_as_torch_trains_them(module, change):
    settings = {**USUAL, **change}
    d, k, stops = settings["d"], 2 * settings["r"], [1, 800]
    found = run(module, *stops, **change)
    Phi, rate = found["Phi"], settings["eta"] / found["dense"]
    loss = losses.masked(found["mask"].bool(), Phi)
    for i, gamma in enumerate((settings["gamma"], 1)):
        start, *states = (state[i] for state in found["states"])
        Ws = layers(start, d, k)
        assert len(Ws) == settings["L"] + (2 if i == 0 else 0)
        rates = [gamma * rate, *[rate] * (len(Ws) - 2), gamma * rate]
        assert found["rates"][i] == pytest.approx([rate, gamma * rate], rel=1e-15)
        trained = descent.train(Ws, loss, eta=rates, steps=stops[-1])
        wanted = [each for t, each in enumerate(trained) if t in stops]
        for steps, torchs, state in zip(stops, wanted, states, strict=True):
            for W, got, first in zip(torchs.Ws, layers(state, d, k), Ws, strict=True):
                scale = torch.linalg.matrix_norm(W, 2)
                assert (got - W).abs().max() <= 1e-9 * scale
                assert (first - W).abs().max() > 1e-7 * scale or gamma == 0 or steps == 1
            product = networks.end_to_end(torchs.Ws)
            scale = torch.linalg.matrix_norm(product, 2)
            assert (tensor(state["product"], d, d) - product).abs().max() <= 1e-9 * scale
            assert state["loss"] == pytest.approx(torchs.loss.item(), rel=1e-9, abs=1e-22)
            error = ((product - Phi).norm() / Phi.norm()).item()
            assert state["error"] == pytest.approx(error, rel=1e-7)


@pytest.mark.parametrize(
    "change", [{}, {"d": 64, "r": 5, "L": 2, "p": 0.3}, {"d": 16, "r": 2, "L": 4}, {"p": 1}]
)
def test_the_start_is_the_one_that_compress_reads_off_the_wide_network(module, change, generator):
    settings = {**USUAL, **change}
    d, r, L = settings["d"], settings["r"], settings["L"]
    k, eps, steps = 2 * r, 10 ** (L - 5), 300
    found = run(module, steps, **change)
    (start, _), (end, _) = found["states"]
    assert module.evaluate("(L) => lop.startScale(L)", L) == pytest.approx(eps, rel=1e-15)
    Phi, A, mask = found["Phi"], found["A"], found["mask"].bool()
    assert (A @ A.T - torch.eye(d)).abs().max() < 1e-13
    first = init.orthogonal((d,) * L, eps, generator=generator)
    wide = [*first, eps ** (2 - L) * A @ networks.end_to_end(first).T]  # orthogonal, with product A
    assert (networks.end_to_end(wide) / eps**L - A).abs().max() < 1e-12
    surrogate = compression.low_rank_approximation(mask * Phi / settings["p"], r)
    small = compression.compress(wide, surrogate, r, eps)
    Q, *inner, P = layers(start, d, k)
    assert (Q.T @ Q - small.V @ small.V.T).abs().max() < 1e-9
    assert (P @ P.T - small.U @ small.U.T).abs().max() < 1e-9
    assert (P @ Q - small.U @ small.V.T).abs().max() < 1e-9
    assert all(torch.equal(W, eps * torch.eye(k, dtype=F64)) for W in inner) and len(inner) == L
    rate, outer = found["rates"][0]
    rates, loss = [outer, *[rate] * L, outer], losses.masked(mask, Phi)
    Ws = compression.with_outer_layers(small)
    *_, last = descent.train(Ws, loss, eta=rates, steps=steps)
    wanted, got = networks.end_to_end(last.Ws), tensor(end["product"], d, d)
    assert (got - wanted).abs().max() <= 1e-8 * torch.linalg.matrix_norm(wanted, 2)


def test_the_narrow_start_is_orthogonal_and_of_the_same_scale(module):
    first, *inner, last = layers(run(module, L=4)["states"][0][1], SIDE, 6)
    for gram in (first @ first.T, *(W @ W.T for W in inner), last.T @ last):
        assert (gram - 0.01 * torch.eye(6, dtype=F64)).abs().max() < 1e-15


def test_the_target_is_as_the_text_says(module):
    found, other, sampled = (
        run(module, r=5, **each) for each in ({}, {"target": 2}, {"sample": 2})
    )
    s = torch.linalg.svdvals(found["Phi"])
    assert (s[:5] - torch.linspace(1, 0.5, 5)).abs().max() < 1e-12 and s[5] < 1e-12
    assert not found["Phi"].equal(other["Phi"]) and found["mask"].equal(other["mask"])
    assert found["Phi"].equal(sampled["Phi"]) and not found["mask"].equal(sampled["mask"])


def test_the_density_of_a_mask_is_its_largest_singular_value_over_d(module):
    block = painted(SIDE, lambda i, j: i < 30 and j < 20)
    for change, near in (({}, 0.15), ({"p": 0.05}, 1), ({"painted": block}, None)):
        found = run(module, **change)
        wanted = torch.linalg.svdvals(found["mask"])[0].item() / SIDE
        assert found["dense"] == pytest.approx(wanted, rel=0.01)
        assert near is None or wanted == pytest.approx(found["mask"].mean().item(), rel=near)
    assert run(module)["dense"] == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("d", [16, 17, 64])
def test_a_mask_goes_into_an_address_and_back(module, d, generator):
    mask = torch.rand(d, d, generator=generator) < 0.5
    text = painted(d, lambda i, j: mask[i, j])
    assert module.evaluate("(mask) => lop.encode(mask)", mask.flatten().int().tolist()) == text
    back = module.evaluate("([text, d]) => [...lop.decode(text, d)]", [text, d])
    assert tensor(back, d, d).bool().equal(mask)
    assert module.evaluate("([text, d]) => lop.decode(text, d)", [text[1:], d]) is None


def test_a_painted_mask_in_an_address_is_one_or_nothing(module):
    read = "([controls, hash]) => lop.readAddress('completion', controls, hash).painted"
    for text in ("", "<b>", "A" * 684, "AA%0AAA", "A" * 384):
        asked = [widgets.controls("completion"), f"#completion:painted={text}"]
        assert module.evaluate(read, asked) == (text if len(text) == 384 else "")


def test_what_a_few_painted_entries_leave_open_is_filled_up(module):
    """Less than r directions are seen: the start is orthonormal all the same, and nothing grows."""
    none, one, row = lambda i, j: False, lambda i, j: i == j == 7, lambda i, j: i == 4
    for observed in (none, one, row):
        start, end = run(module, 300, painted=painted(SIDE, observed))["states"]
        Q, *_, P = layers(start[0], SIDE, 6)
        assert (Q @ Q.T - torch.eye(6)).abs().max() < 1e-12
        assert (P.T @ P - torch.eye(6)).abs().max() < 1e-12
        assert all(net["error"] == pytest.approx(1, abs=0.1) for net in end)


def test_what_the_text_says_of_it_is_so(module):
    """The numbers beside the figure in the chapter."""

    def reached(race=False, **change):
        return module.evaluate(REACHED, [{**USUAL, **change}, race])

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
    assert reached(p=0.9, gamma=0)[0][1] == pytest.approx(0.15, abs=0.005)
    few = reached(p=0.1, steps=3000)
    assert few[0][4] == 250
    starts = run(module, p=0.1)["states"][0]
    for start, (below, error, loss, finite, _) in zip(starts, few, strict=True):
        assert below is None and finite and error > 1 and loss < 0.01 * start["loss"]
    races = [reached(race=True, target=n, sample=n, steps=3000) for n in range(1, 21)]
    assert all(compressed[0] and not other[0] for compressed, other in races)
    races = [reached(race=True, target=n, sample=n, steps=3000, p=0.3) for n in range(1, 21)]
    assert sum(bool(compressed[0] and not other[0]) for compressed, other in races) == 12
    lost = [n for n, (compressed, _) in enumerate(races, 1) if not compressed[0]]
    fewer = {n: reached(target=n, sample=n, steps=3000, p=0.3)[0][0] for n in lost}
    assert [n for n, first in fewer.items() if first is None] == [6, 20]
    (late, unsettled, *_), (quick, *_) = reached(eta=0.6)
    assert late is None and unsettled > 0.3 and quick == pytest.approx(864, abs=8)
    mask = run(module)["mask"]
    hole = painted(SIDE, lambda i, j: mask[i, j] and not (20 <= i <= 28 and 20 <= j <= 28))
    band = painted(SIDE, lambda i, j: mask[i, j] and not 22 <= i <= 24)
    assert all(error < 1e-5 for _, error, *_ in reached(painted=hole))
    for below, error, loss, *_ in reached(painted=band):
        assert below is None and 0.2 < error < 0.3 and loss < 1e-10


# --- Playing with it ------------------------------------------------------------------------------


def mask_of(live):
    """Return the painted mask, read independently, or None where none is painted."""
    bits = "".join(f"{DIGITS.index(each):06b}" for each in setting(live, "painted"))
    d = setting(live, "d")
    return torch.tensor([int(bit) for bit in bits[: d * d]]).bool().reshape(d, d) if bits else None


def places(live, *entries):
    """Return where on the screen entries of the observed matrix are, on a page of any width."""
    box = live.locator("canvas").bounding_box()
    side = (box["width"] - 40) / 3 if box["width"] >= 480 else 0.7 * box["width"]
    cell, x, y = side / setting(live, "d"), box["x"], box["y"] + 24
    return [(x + (column + 0.5) * cell, y + (row + 0.5) * cell) for row, column in entries]


def stroke(live, start, end):
    start, end = places(live, start, end)
    live.page.mouse.move(*start)
    live.page.mouse.down()
    live.page.mouse.move(*end, steps=4)
    live.page.mouse.up()


def shows(live, wanted):
    """Say whether the figure observes what is wanted, and has trained on it."""
    return mask_of(live).equal(wanted) and f"{wanted.sum()} of {wanted.numel()}" in said(live)


def test_it_says_what_has_come_of_both_networks_at_first(completion):
    live = completion()
    assert said(live).startswith("After 2000 steps: ")
    assert "compressed 8.5 · 10⁻⁷ (first below 0.01 at step 1000)" in said(live)
    assert "narrow 3.7 · 10⁻⁶ (first below 0.01 at step 1712)" in said(live)
    rest = "1145 of 2304 entries are observed, to determine r(2d − r) = 279 numbers."
    assert said(live).endswith(rest)
    assert "Arrow keys" in live.locator("canvas").get_attribute("aria-label")
    enter(live, "outer γ", "0")
    assert "compressed 0.438, narrow 3.7" in said(live)


def test_typing_and_keys_change_it(completion):
    live = completion("d=16&steps=100")
    field(live, "share p, slider").press("Home")
    assert "r(2d − r) = 87 numbers: too few." in said(live)
    field(live, "share p, slider").press("End")
    assert "256 of 256 entries" in said(live)
    button(live, "Hide all").click()
    assert said(live) == "Nothing is observed: paint some entries, or take a new sample."
    button(live, "Play").click()
    button(live, "New sample").click()
    assert "After 100 steps" in said(live)
    assert mask_of(live) is None and setting(live, "sample") != 1


def test_a_stroke_with_the_mouse_hides_entries_and_trains_anew(completion):
    live = completion("p=1&steps=100")
    wanted = torch.ones(48, 48, dtype=torch.bool)
    stroke(live, (10, 10), (10, 30))
    wanted[9:12, 9:32] = False
    assert shows(live, wanted)
    stroke(live, (11, 12), (40, 12))  # begins on a hidden entry: shows
    wanted[10:42, 11:14] = True
    assert shows(live, wanted)
    stroke(live, (30, 45), (30, 60))  # out over the edge
    wanted[29:32, 44:48] = False
    assert shows(live, wanted)
    again = completion(f"p=1&steps=100&painted={setting(live, 'painted')}")
    assert shows(again, wanted)
    enter(again, "share p", "0.5")
    assert "1145 of 2304" in said(again) and mask_of(again) is None


def test_the_picture_is_painted_by_keys(completion):
    live = completion("p=1&steps=100&d=20&r=2")
    canvas, hint = live.locator("canvas"), live.locator(".lop-live-hint")
    for key in (*["ArrowDown"] * 3, *["ArrowRight"] * 5, "ArrowUp", "ArrowLeft"):
        canvas.press(key)
    assert hint.inner_text() == "Row 3, column 5: observed."
    canvas.press(" ")
    wanted = torch.ones(20, 20, dtype=torch.bool)
    wanted[1:4, 3:6] = False
    assert shows(live, wanted)
    canvas.press("ArrowLeft")
    assert hint.inner_text() == "Row 3, column 4: hidden."
    for _ in range(30):
        canvas.press("ArrowUp")
    assert hint.inner_text() == "Row 1, column 4: observed."
    scrolled = live.page.evaluate("scrollY")
    canvas.press("ArrowDown")
    live.page.wait_for_timeout(200)
    assert live.page.evaluate("scrollY") == scrolled
    canvas.press("Tab")
    assert not canvas.evaluate("(e) => e.matches(':focus')")


def touch(live, points):
    """Draw with a finger through points."""
    session = live.page.context.new_cdp_session(live.page)

    def send(kind, *at):
        touched = [{"x": x, "y": y} for x, y in at]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})

    send("touchStart", points[0])
    for point in points[1:]:
        send("touchMove", point)
    send("touchEnd")
    session.detach()


def test_on_a_phone_a_finger_paints_sideways_and_scrolls_up_and_down(completion):
    live = completion("p=1&steps=100", phone=True)
    live.locator("canvas").scroll_into_view_if_needed()
    touch(live, places(live, *((20, column) for column in range(10, 31, 2))))
    wanted = torch.ones(48, 48, dtype=torch.bool)
    wanted[19:22, 9:32] = False
    assert shows(live, wanted)
    ((x, y),) = places(live, (40, 20))
    before = live.page.evaluate("scrollY")
    touch(live, [(x, y - 20 * i) for i in range(12)])
    live.page.wait_for_timeout(500)  # until it rests
    assert live.page.evaluate("scrollY") > before + 50
    assert shows(live, wanted)
    live.page.touchscreen.tap(*places(live, (40, 30))[0])
    wanted[39:42, 29:32] = False
    assert shows(live, wanted)


def test_a_step_that_is_too_large_is_called_so(completion):
    assert re.match(
        r"After \d+ steps the (compressed|narrow) network is beyond all bounds: this step η, or "
        r"rate γ, is too large\. 1145 of 2304 entries",
        said(completion("eta=1&L=4")),
    )


def test_a_mask_of_another_size_counts_for_nothing(completion):
    assert " 0 of" not in said(completion(f"d=20&steps=100&painted={'A' * 384}"))


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


def test_the_maps_show_the_entries(completion, module):
    """What is hidden is left out; blue is positive, orange negative; what is strong is solid."""
    found = run(module)
    Phi, seen = found["Phi"].flatten(), found["mask"].flatten().bool()
    usual = Phi.square().mean().sqrt()
    strong, faint = Phi.abs() > 1.5 * usual, seen & (Phi.abs() < 0.1 * usual)
    live = completion()
    for theme in ("light", "dark"):
        live.page.emulate_media(color_scheme=theme)
        drawn = tensor(live.locator("canvas").evaluate(PIXELS), 3, -1, 4)
        assert (drawn[0, :, 3] == 0).equal(~seen)
        for picture, where in zip(drawn, (strong & seen, strong, strong), strict=True):
            bluish = picture[:, 2] > picture[:, 0]
            assert bluish[where].equal(Phi[where] > 0)
            assert (picture[where, 3] > 0.6 * 255).all()
        assert faint.any() and (drawn[0, faint, 3] < 0.3 * 255).all()
