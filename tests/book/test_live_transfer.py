"""The live figure of transfer: its valleys are those of the recursion, its starts of networks."""

from functools import partial

import pytest
import torch
from figure_page import button, drag, enter, said, setting, texts

from lop_utils.book import live as widgets
from lop_utils.book import width

F64 = torch.float64
D, N0, STEPS = 16, 32, 25
LAM = 1 / torch.arange(1, D + 1, dtype=F64)
TARGET = LAM.sqrt() / LAM.norm()
NTK, MUP = 0, 1
USUAL = {each["name"]: each["value"] for each in widgets.controls("transfer")}
VALLEY = """([settings, N, mup]) => {
  const drawn = lop.draws(settings.seed);
  const starts = drawn.map(({ start }) => lop.startOf(N, settings.gamma0, mup, start));
  const seen = drawn.map(({ data }) => lop.seenOf(settings, data));
  const list = ({ A, z, b, q }) => [[...A], z, [...b], q];
  const samples = seen.map(({ C, v }) => [C && [...C], [...v]]);
  return [[...lop.valley(settings, N, mup)], starts.map(list), samples, [...lop.ETAS]];
}"""
MANY = """([settings, N, mup, seeds]) => Array.from({ length: seeds }, (_, seed) => lop.draws(seed))
  .flat().map(({ start, data }) => {
    const { A, z, b } = lop.startOf(N, settings.gamma0, mup, start);
    const { C, v } = lop.seenOf(settings, data);
    return [...A, z, ...b, ...C, ...v];
  })"""
MARKS = ("0.01", "10⁻⁴", "10⁻⁶", "0.03", "0.1", "0.3", "1", "step size η")


@pytest.fixture(scope="module")
def module(modules):
    return modules("transfer")


@pytest.fixture
def transfer(figure):
    return partial(figure, "transfer")


def from_page(module, N, how, **change):
    """Return the valley, its starts as torch knows them, the gradients they see, the step sizes."""
    valley, starts, seen, etas = module.evaluate(VALLEY, [USUAL | change, N, how])
    A, z, b, q = (torch.tensor(each, dtype=F64) for each in zip(*starts, strict=True))
    C = torch.stack([LAM.diag() if C is None else tensor(C, D, D) for C, _ in seen])
    v = torch.stack([tensor(v, D) for _, v in seen])
    start = width.OneHidden(A.reshape(-1, D, D), z, b, q)
    return tensor(valley, -1), start, lambda b: v - (C @ b[..., None])[..., 0], tensor(etas, -1)


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=F64).reshape(shape)


@pytest.mark.parametrize("how", [NTK, MUP])
@pytest.mark.parametrize(
    ("N", "change"),
    [
        (32, {}),
        (2048, {}),
        (16384, {"gamma0": 0.25, "seed": 2}),
        (203, {"gamma0": 8, "seed": 3}),
        (32, {"data": 1}),
        (2048, {"data": 1, "P": 24, "delta": 1, "gamma0": 0.25}),
        (512, {"data": 1, "P": 500, "delta": 0, "gamma0": 8}),
    ],
)
def test_its_valleys_are_those_of_the_recursion(module, N, how, change):
    valley, start, downhill, etas = from_page(module, N, how, **change)
    *_, end = width.recursion(start.at(etas), downhill, STEPS)
    errors = (LAM * (end.b - TARGET).square()).sum(-1)
    wanted = errors.nan_to_num(1e3).clamp(max=1e3).log10()
    assert (valley - wanted.mean(-1)).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("how", "N", "gamma0", "P", "delta"), [(NTK, 32, 2, 24, 1), (MUP, 96, 0.5, 100, 0.3)]
)
def test_its_starts_and_samples_are_those_of_networks(module, how, N, gamma0, P, delta, generator):
    """In means and in spreads of what training sees, and of what of it hangs together."""
    seeds, draw = 250, partial(torch.randn, dtype=F64, generator=generator)
    runs, n = 4 * seeds, N / N0
    flat = module.evaluate(
        MANY, [USUAL | {"gamma0": gamma0, "P": P, "delta": delta, "data": 1}, N, how, seeds]
    )
    sizes = [D * D, 1, D, D * D, D]
    A, z, b, C, v = torch.tensor(flat, dtype=F64).split(sizes, 1)
    W, a = draw(runs, N, D), draw(runs, 1, N) / (gamma0 * N0 * (n if how == MUP else n**0.5))
    rates = [gamma0**2 * N0 * (n if how == MUP else 1), 1 / N]
    net = width.of_layers([W, a], rates)
    X = draw(runs, P, D) * LAM.sqrt()
    y = X @ TARGET + delta * draw(runs, P)

    def statistics(A, z, b, C, v):
        left = v - C @ TARGET
        values = (torch.linalg.eigvalsh(each) for each in (A, C))
        mixed = [
            (b * (A @ b[..., None])[..., 0]).sum(-1),
            (left**2 / LAM).sum(-1),
            b[:, 0] * b[:, 1],
        ]
        rows = [*values, A[:, 0], A[:, 1] ** 2, C[:, 2], b, b**2, v, left, left**2]
        singles = [z, z**2, z * b.square().sum(-1), *mixed]
        return torch.cat([*rows, *(each[:, None] for each in singles)], 1)

    one = statistics(A.reshape(-1, D, D), z[:, 0], b, C.reshape(-1, D, D), v)
    other = statistics(net.A, net.z, net.b, X.mT @ X / P, (X.mT @ y[..., None])[..., 0] / P)
    spread = ((one.var(0) + other.var(0)) / runs).sqrt()
    assert ((one.mean(0) - other.mean(0)).abs() < 5 * spread).all()
    assert net.q[0] == pytest.approx(from_page(module, N, how, gamma0=gamma0)[1].q[0])


def test_it_agrees_with_the_chapter(module):
    """The best steps that the chapter's claims hold, over twenty networks of another draw."""
    for how, wanted in ((NTK, (0.42, 0.84, 1.41, 1.68)), (MUP, (0.42,) * 4)):
        for N, eta in zip((32, 128, 512, 2048), wanted, strict=True):
            valley, *_, etas = from_page(module, N, how)
            assert etas[valley.argmin()] == pytest.approx(eta, rel=0.01)


@pytest.mark.parametrize(
    ("address", "ntk", "mup"),
    [
        ("gamma0=8&N=10000", "1.7, 16 times as long", "0.11, it stays."),
        ("gamma0=0.25", "1.4, it stays, up to the grid", "1.7, it stays."),
        (
            "gamma0=0.25&data=1",
            "1.2, it stays, up to the grid",
            "0.21, shorter by a factor of 6.7.",
        ),
    ],
)
def test_what_the_text_says_of_it_is_so(transfer, address, ntk, mup):
    answer = said(transfer(f"shown=1&{address}"))
    assert f"under NTK: {ntk}; your guess" in answer and answer.endswith(f"Under muP: {mup}")


def test_a_narrow_network_that_starts_at_zero_has_the_short_step_of_a_wide_one(module):
    """On few noisy samples and with little learning of features: the text says it, too."""
    lazy = {"gamma0": 0.25, "data": 1}
    _, start, downhill, etas = from_page(module, N0, MUP, **lazy)
    *_, end = width.recursion(start._replace(b=0 * start.b).at(etas), downhill, STEPS)
    short = etas[(LAM * (end.b - TARGET).square()).sum(-1).log10().nan_to_num(3).mean(-1).argmin()]
    valley, *_ = from_page(module, N0, MUP, **lazy)
    assert short < 0.3 and etas[valley.argmin()] > 1.1


def written(live):
    return [text for text, *_ in texts(live, 720)[0]]


def test_one_guesses_before_the_answer_is_drawn(transfer):
    live = transfer()
    assert "2048" not in written(live) and "your guess" in written(live)
    assert said(live).startswith(
        "The best step at width 32 is 0.42. Where will it be at width 2048"
    )
    box = live.locator("canvas").bounding_box()
    at = {"x": 50 + 0.8 * (box["width"] - 124) / 2, "y": 100}
    live.locator("canvas").click(position=at)
    guess = setting(live, "guess")
    assert guess == pytest.approx(2 ** (0.8 * 8 - 6.5), rel=0.05)
    button(live, "Show the wide networks").click()
    answer = said(live)
    assert "At width 2048 under NTK: 1.7, 4 times as long" in answer
    assert (
        f"your guess, {guess:.2g}, was a factor of 1.8 too short. Under muP: 0.42, it stays"
        in answer
    )
    live.locator("canvas").click(position={"x": 100, "y": 100})
    assert setting(live, "guess") == guess and {"your guess", "2048"} < set(written(live))
    button(live, "Guess again").click()
    assert "Where will it be" in said(live)


def test_axes_stay_while_a_control_moves(transfer):
    live = transfer("shown=1")
    marks = [each for each in texts(live, 720)[0] if each[0] in MARKS]
    assert len(marks) == 18
    before = said(live)
    for label in ("width N", "γ₀", "guess η"):
        drag(live, label, 0.5, 0.9)
        assert [each for each in texts(live, 720)[0] if each[0] in MARKS] == marks
        assert said(live) != before
        before = said(live)


def test_samples_are_asked_for_by_touching_them(transfer):
    live = transfer("shown=1")
    live.locator("summary").click()
    enter(live, "samples P", "30")
    assert said(live).startswith("On 30 samples with noise 0.5, the best step at width 32")
    live.get_by_role("combobox").select_option("unlimited")
    assert said(live).startswith("The best step")
    button(live, "New networks").click()
    assert setting(live, "seed") != 1


def test_fingers_find_what_they_touch(transfer):
    live = transfer(phone=True)
    live.locator("summary").tap()
    for each in live.locator("button, input, select, summary").all():
        box = each.bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44
    assert live.evaluate("(root) => root.scrollWidth <= root.clientWidth")
