"""The live figure of the law: its numbers agree with torch, and a reader can play with it."""

from functools import partial

import pytest
import torch
from figure_page import button, drag, enter, field, said

from lop_utils import descent, init, losses, networks

F64 = torch.float64
RUN = """([settings, M, stops]) => {
  const network = new lop.Network(settings, Float64Array.from(M));
  return stops.map((steps) => {
    while (network.t < steps) network.advance();
    return [network.spectra().map((s) => [...s]), network.rho, network.loss];
  });
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


@pytest.mark.parametrize(
    ("d", "r", "L", "eps", "eta", "lam", "steps"),
    [
        (24, 3, 3, 0.1, 0.05, 0.0, 400),
        (24, 3, 3, 1.0, 0.05, 0.01, 400),
        (30, 5, 5, 0.3, 0.01, 0.0, 400),
        (12, 1, 2, 0.05, 0.1, 0.1, 400),
        (16, 4, 6, 0.5, 0.01, 0.001, 400),
        (40, 2, 4, 0.1, 0.03, 0.02, 400),
        # the ends of its sliders
        (12, 5, 6, 1.0, 0.01, 0.0, 2500),
        (200, 2, 3, 0.1, 0.14, 0.0, 150),
    ],
)
def test_it_trains_as_torch_trains_the_wide_network(
    module, d, r, L, eps, eta, lam, steps, generator
):
    """The whole network, d by d, on torch's side; the overlap of its start on the other."""
    sigma = torch.tensor(module.evaluate("(r) => [...lop.strengths(r)]", r), dtype=F64)
    U, V = (init.orthogonal((d, d), 1.0, generator=generator)[0][:, :r] for _ in "UV")
    Ws = init.orthogonal((d,) * (L + 1), eps, generator=generator)
    M = V.T @ (networks.end_to_end(Ws) / eps**L).T @ U
    loss = losses.squared_error(U * sigma @ V.T)
    states = descent.train(Ws, loss, eta=eta, lam=lam, steps=steps)
    settings = {"d": d, "r": r, "L": L, "eps": eps, "eta": eta, "lam": lam}
    stops = [1, steps]
    found = module.evaluate(RUN, [settings, M.flatten().tolist(), stops])
    wanted = [state for t, state in enumerate(states) if t in stops]
    for state, (spectra, rho, loss) in zip(wanted, found, strict=True):
        for W, core in zip(state.Ws, spectra, strict=True):
            values = torch.linalg.svdvals(W)
            got = torch.tensor([*core, *[rho] * (d - 2 * r)], dtype=F64).sort(descending=True)
            assert (got.values - values).abs().max() <= 1e-9 * values[0]
        assert loss == pytest.approx(state.loss.item(), rel=1e-9)


def test_what_the_text_says_of_it_is_so(module):
    """The numbers beside the figure, in the introduction and in the chapter."""

    def trained(steps=400, **change):
        settings = {"d": 1000, "r": 3, "L": 3, "eps": 0.1, "eta": 0.05, "lam": 0.0, **change}
        overlap = "([d, r]) => [...lop.overlap(d, r, lop.uniform(1))]"
        M = module.evaluate(overlap, [settings["d"], 3])
        ((spectra, rho, loss),) = module.evaluate(RUN, [settings, M, [steps]])
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


def test_a_layer_that_the_network_lacks_is_its_last(law):
    live = law("L=2&layer=5")
    assert "in layer 2" in said(live) and field(live, "layer l").input_value() == "2"
    enter(live, "depth L", "4")
    enter(live, "layer l", "4")
    assert "in layer 4" in said(live)
    enter(live, "depth L", "3")
    assert "in layer 3" in said(live) and field(live, "layer l").input_value() == "3"


def test_a_step_that_is_too_large_is_called_so(law):
    assert "this step η is too large" in said(law("eta=0.5&eps=1&L=6"))


def test_on_a_phone_it_is_tapped(law):
    live = law(phone=True)
    button(live, "Reset").tap()
    assert "After 0 steps" in said(live)
