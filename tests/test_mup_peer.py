"""Microsoft's `mup` takes the steps of the book's exponents, and stumbles where the book says."""

import copy

import pytest
import torch
from torch import nn

from lop_utils import descent, losses, networks, rules
from lop_utils.book import width

mup = pytest.importorskip("mup", reason="the extra mup is not installed")

F64 = {"dtype": torch.float64}
BASE, D, T = 32, 8, 25
LAM = 1 / torch.arange(1, D + 1, **F64)
AIM = LAM.sqrt() / LAM.norm()
ROOT = LAM.sqrt().diag()  # inputs whose sum of squares is a mean over the population
ETAS = 2.0 ** torch.arange(-4, 0.1, 0.5)


@losses.of_product
def population(W):
    R = W - AIM
    return 0.5 * (LAM * R.square()).sum((-2, -1)), LAM * R


def linear(N, hidden):
    inner = [nn.Linear(N, N, bias=False, **F64) for _ in range(hidden - 1)]
    last = mup.MuReadout(N, 1, bias=False, output_mult=1 / BASE, **F64)
    return nn.Sequential(nn.Linear(D, N, bias=False, **F64), *inner, last)


def theirs(N, hidden):
    """Return their network with the start that torch and they draw."""
    with torch.random.fork_rng():
        torch.manual_seed(N + hidden)
        # delta says what grows: the base beside itself would have no width.
        shapes = dict(base=linear(BASE, hidden), delta=linear(64, hidden))
        return mup.set_base_shapes(linear(N, hidden), **shapes)


def run(net, optimiser):
    """Yield what their network computes and its features, at each step."""
    for _ in range(T + 1):
        h = net[0](ROOT)
        f = net[1:](h)[:, 0]
        yield (f / LAM.sqrt()).detach(), (h.T / LAM.sqrt()).detach()
        optimiser.zero_grad()
        (0.5 * (f - ROOT @ AIM).square().sum()).backward()
        optimiser.step()


SMALL = {"eps": 1e-30}  # multipliers scale gradients, and Adam's eps would notice
METHODS = {
    # Their method, ours, our steps at n = 1 (input, hidden, output) and their powers of n; last,
    # what their output layer, BASE n times as large as ours, wants at n = 1.
    "SGD": (mup.MuSGD, {}, rules.gradient_descent(), (BASE, 1, 1 / BASE), (1, 0, -1), BASE),
    "Adam": (
        mup.MuAdam,
        SMALL,
        rules.from_torch(torch.optim.Adam, **SMALL),
        (1, 1 / BASE, 1 / BASE),
        (0, -1, -1),
        1,
    ),
}


@pytest.mark.parametrize("hidden", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_coordinates_and_so_the_best_step_are_the_same(method, hidden):
    optimiser, options, rule, constants, powers, last = METHODS[method]
    layers, best = [0, *[1] * (hidden - 1), 2], []
    for N in (32, 128, 512):
        ends, n = [], N / BASE
        for eta in ETAS.tolist():
            net = theirs(N, hidden)
            *inner, V = (layer.weight for layer in net)
            Ws = [*(W.detach().clone() for W in inner), V.detach() / (n * BASE)]
            lrs = [*(eta * constants[l] for l in layers[:-1]), eta * last]
            groups = [{"params": [W], "lr": lr} for W, lr in zip((*inner, V), lrs, strict=True)]
            rates = [eta * constants[l] * n ** powers[l] for l in layers]
            ours = descent.train(Ws, population, rule, eta=rates, steps=T)
            for it, (b, W) in zip(
                ours, run(net, optimiser(groups, lr=0.0, **options)), strict=True
            ):
                for mine, other in ((networks.end_to_end(it.Ws)[0], b), (it.Ws[0], W)):
                    # Steps that are too long for a while multiply rounding, too.
                    assert (mine - other).abs().max() < 1e-10 * mine.abs().max(), (N, eta, it.t)
            ends.append((it.loss.item(), population([b[None]]).value.item()))
        best.append(torch.tensor(ends).argmin(0).tolist())
    assert all(mine == other for mine, other in best)
    if method == "SGD":  # where it transfers; Adam's ends are noisy after 25 steps of one length
        assert max(best)[0] - min(best)[0] <= 1
    assert abs(3 * BASE * (n * BASE * Ws[-1]).square().mean() - 1) < 0.2  # its start


def test_the_chapters_comparison_finds_them_equal():
    generator = torch.Generator().manual_seed(0)
    W, a = (torch.randn(2, *s, generator=generator, **F64) for s in ((64, D), (1, 64)))
    how = dict(etas=ETAS[:3], base=BASE, gamma0=2.0, T=9)
    found = width.beside_mup([W, a / 128], LAM, AIM, **how)
    assert 0 < found["gap"] < 1e-13
    for pair in (found["ends"], found["moved"]):
        torch.testing.assert_close(pair[0], pair[1], rtol=1e-6, atol=0)
    assert (found["ends"][:, 2] < found["ends"][:, 0]).all() and found["moved"].min() > 0.01


def test_a_step_size_by_place_is_refused_with_a_key_error():
    net = theirs(64, 1)
    for optimiser in (mup.MuAdam, mup.MuSGD):
        with pytest.raises(KeyError, match="lr"):
            optimiser(net.parameters(), 1e-3)
        assert optimiser(net.parameters(), lr=1e-3)


def test_a_copy_has_forgotten_what_grows_until_it_is_told():
    net = theirs(64, 1)
    twin = copy.deepcopy(net)
    for forgetful in (twin, torch.optim.swa_utils.AveragedModel(net)):
        with pytest.raises(AssertionError, match="set_base_shapes"):
            forgetful(ROOT)
    with pytest.raises(AssertionError, match="infshape"):
        mup.MuSGD(twin.parameters(), lr=1e-3)
    shapes = dict(base=linear(BASE, 1), delta=linear(2 * BASE, 1))
    mup.set_base_shapes(twin, **shapes, rescale_params=False)
    assert torch.equal(twin(ROOT), net(ROOT))
