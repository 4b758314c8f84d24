"""The live figure of the law: its numbers agree with torch, and a reader can play with it."""

from functools import partial

import pytest
import torch
from figure_page import button, drag, enter, field, said

from lop_utils import descent, init, losses, networks, rules

F64 = torch.float64
RUN = """([settings, M, stops]) => {
  const whole = () => lop.wholeStart(settings, lop.uniform(1));
  const start = M ? lop.coreStart(settings, Float64Array.from(M)) : whole();
  const first = [start.Ws.map((W) => [...W]), [...start.target]];
  const network = new lop.Network(settings, start);
  return [first, stops.map((steps) => {
    while (network.t < steps) network.advance();
    const all = (s, l) => [...s, ...Array(network.equal(l + 1)).fill(Math.abs(network.rhos[l]))];
    return [network.spectra().map(all), network.loss];
  })];
}"""
DRAWN = """([d, r, draws]) => {
  const random = lop.uniform(7);
  return Array.from({ length: draws }, () => [...lop.overlap(d, r, random)]);
}"""


@pytest.fixture(scope="module")
def module(modules):
    return modules("law")


@pytest.fixture
def law(figure):
    return partial(figure, "law")


def assert_trained(states, found, stops):
    """The page's singular values and losses are those of torch."""
    wanted = [state for t, state in enumerate(states) if t in stops]
    for state, (spectra, loss) in zip(wanted, found, strict=True):
        for W, got in zip(state.Ws, spectra, strict=True):
            values = torch.linalg.svdvals(W)
            got = torch.tensor(got, dtype=F64).sort(descending=True).values
            assert (got - values).abs().max() <= 1e-9 * values[0]
        assert loss == pytest.approx(state.loss.item(), rel=1e-9)


RULES = [rules.gradient_descent(), rules.momentum(0.9), rules.muon()]
GRID = [  # d, r, L, eps, eta, lam, steps
    (24, 3, 3, 0.1, 0.05, 0.0, 400),
    (24, 3, 3, 1.0, 0.05, 0.01, 400),
    (30, 5, 5, 0.3, 0.01, 0.0, 400),
    (12, 1, 2, 0.05, 0.1, 0.1, 400),
    (16, 4, 6, 0.5, 0.01, 0.001, 400),
    (40, 2, 4, 0.1, 0.03, 0.02, 400),
    # the ends of its sliders
    (12, 5, 6, 1.0, 0.01, 0.0, 2500),
    (200, 2, 3, 0.1, 0.14, 0.0, 150),
]
OTHERS = [  # they end before Muon, whose steps stay long, jumps about its goal: then rounding grows
    (30, 3, 3, 0.1, 0.01, 0.0, 150),
    (30, 3, 3, 0.1, 0.002, 0.1, 400),
    (24, 5, 4, 0.5, 0.003, 0.01, 200),
    (12, 1, 2, 0.05, 0.02, 0.0, 200),
    (30, 2, 6, 1.0, 0.001, 0.0, 300),
]


@pytest.mark.parametrize("outputs", [0, 1])
@pytest.mark.parametrize(
    ("method", "row"),
    [*((0, row) for row in GRID), *((method, row) for method in (1, 2) for row in OTHERS)],
)
def test_it_trains_as_torch_trains_the_wide_network(module, method, row, outputs, generator):
    """The whole network, d by d, on torch's side; the overlap of its start on the other."""
    d, r, L, eps, eta, lam, steps = row
    d_y = r if outputs else d
    sigma = torch.tensor(module.evaluate("(r) => [...lop.strengths(r)]", r), dtype=F64)
    U, V = (init.orthogonal((n, n), 1.0, generator=generator)[0][:, :r] for n in (d_y, d))
    Ws = init.orthogonal((d,) * L + (d_y,), eps, generator=generator)
    M = V.T @ (networks.end_to_end(Ws) / eps**L).T @ U
    settings = {"d": d, "r": r, "L": L, "eps": eps, "eta": eta, "lam": lam}
    settings |= {"method": method, "outputs": outputs}
    stops = [1, steps]
    (_, found) = module.evaluate(RUN, [settings, (M.T if outputs else M).flatten().tolist(), stops])
    loss = losses.squared_error(U * sigma @ V.T)
    states = descent.train(Ws, loss, RULES[method], eta=eta, lam=lam, steps=steps)
    assert_trained(states, found, stops)


@pytest.mark.parametrize("outputs", [0, 1])
@pytest.mark.parametrize("row", OTHERS)
def test_adam_trains_a_whole_network_as_torch_does(module, row, outputs):
    _, r, L, eps, eta, lam, steps = row
    settings = {"r": r, "L": L, "eps": eps, "eta": eta, "lam": lam, "method": 3}
    stops = [1, steps]
    (Ws, target), found = module.evaluate(RUN, [settings | {"outputs": outputs}, None, stops])
    k = round(len(target) ** 0.5)
    Ws, (Phi,) = (
        [torch.tensor(W, dtype=F64).reshape(k, k) for W in flat] for flat in (Ws, [target])
    )
    if outputs:  # rows of zeros stand for no outputs
        assert not Ws[-1][r:].any() and not Phi[r:].any()
        Ws[-1], Phi = Ws[-1][:r], Phi[:r]
    for W in Ws:
        assert (W @ W.T - eps**2 * torch.eye(len(W), dtype=F64)).abs().max() < 1e-14
    known = torch.tensor(module.evaluate("(r) => [...lop.strengths(r)]", r), dtype=F64)
    assert (torch.linalg.svdvals(Phi)[:r] - known).abs().max() < 1e-13
    adam = rules.from_torch(torch.optim.Adam)
    states = descent.train(Ws, losses.squared_error(Phi), adam, eta=eta, lam=lam, steps=steps)
    assert_trained(states, found, stops)


def test_what_the_text_says_of_it_is_so(module):
    """The numbers beside the figure, in the introduction and in the chapter."""

    def trained(steps=400, **change):
        settings = {"d": 1000, "r": 3, "L": 3, "eps": 0.1, "eta": 0.05, "lam": 0.0, **change}
        overlap = "([d, r]) => [...lop.overlap(d, r, lop.uniform(1))]"
        M = module.evaluate(overlap, [settings["d"], 3])
        _, ((spectra, loss),) = module.evaluate(RUN, [settings, M, [steps]])
        return torch.tensor(spectra[1][:6], dtype=F64), spectra[1][-1], loss

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
    Q, R = torch.linalg.qr(torch.randn(draws, d, d, dtype=F64, generator=generator))
    wanted = (Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None])[:, :r, :r]
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


def test_it_shows_the_law_at_first(law):
    counts = "3 singular values above ρ, 3 below, and 994 equal to ρ = 0.0998"
    assert said(law()).startswith(f"After 400 steps: in layer 2, {counts}")


def test_typing_dragging_and_keys_change_it(law):
    live = law()
    enter(live, "rank r", "2")
    assert "2 singular values above ρ, 2 below, and 996 equal" in said(live)
    drag(live, "width d", 0.9, 0.01)
    width = int(field(live, "width d").input_value())
    assert width < 20 and f"and {width - 4} equal" in said(live)
    field(live, "width d, slider").press("End")
    assert "and 1996 equal" in said(live)
    button(live, "Reset").click()
    assert "in layer 2, 0 singular values above ρ, 0 below, and 2000 equal" in said(live)
    live.get_by_role("combobox", name="method").select_option("Adam")
    assert "of Adam, which has no core" in said(live)


def test_a_layer_that_the_network_lacks_is_its_last(law):
    live = law("L=2&layer=5")
    assert "in layer 2" in said(live) and field(live, "layer l").input_value() == "2"
    enter(live, "depth L", "4")
    enter(live, "layer l", "4")
    assert "in layer 4" in said(live)
    enter(live, "depth L", "3")
    assert "in layer 3" in said(live) and field(live, "layer l").input_value() == "3"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "method=1",
            "of momentum, β = 0.9: in layer 2, 3 singular values above ρ, 3 below, and 994",
        ),
        ("method=2&eta=0.01&steps=100", "of Muon, exact in the core: in layer 2, "),
        (
            "method=3",
            "of Adam, which has no core, on a network of width 20, whatever d: in layer 2, ",
        ),
        ("outputs=1", "in layer 2, 3 singular values above ρ, 3 below, and 994 equal to ρ = 0.1."),
        ("outputs=1&layer=3", "in layer 3, the last, 3 singular values, and no ρ. Loss"),
    ],
)
def test_it_says_which_method_and_which_case(law, address, sentence):
    assert sentence in said(law(address))


def test_a_step_that_is_too_large_is_called_so(law):
    assert "this step η is too large" in said(law("eta=0.5&eps=1&L=6"))


def test_on_a_phone_it_is_tapped(law):
    live = law(phone=True)
    button(live, "Reset").tap()
    assert "After 0 steps" in said(live)
