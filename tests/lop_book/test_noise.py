"""The determinant's law holds to rounding for every plain step, and only for plain ones."""

import pytest
import torch

from lop_utils import descent, losses, networks, rules
from lop_utils.book import noise

F64 = {"dtype": torch.float64}
N, P, K, WIDTH, STEPS = 12, 3, 2, 6, 300


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


X, Y = randn(P, N, seed=0), randn(K, N, seed=1)
TWO = [randn(WIDTH, P, seed=2) / 2, randn(K, WIDTH, seed=3) / 2]
RUNS = networks.stack([TWO, [-W.flip(0) for W in TWO]])
DEEP = [randn(P, P, seed=4), *TWO, randn(K, K, seed=5)]
RELU = [torch.relu, None, None]  # layers 2 and 3 of DEEP are one


def minibatches(make=losses.least_squares):
    return losses.Minibatches(make, X, Y, batch=3, generator=7)


def of_network(X, Y):
    return losses.network(X, Y, RELU)


@pytest.mark.parametrize(
    ("Ws", "loss", "eta", "more", "pair"),
    [
        (TWO, losses.least_squares(X, Y), 5e-3, {}, 1),
        (TWO, minibatches(), 2e-3, {}, 1),
        (TWO, minibatches(), lambda t: 1e-3 * (1 + t % 3), {"lam": 0.5}, 1),
        (RUNS, minibatches(), torch.tensor([1e-3, 2e-3], **F64), {"lam": 0.5}, 1),
        (RUNS, losses.least_squares(X, Y), 5e-3, {"lam": 0.1}, 1),
        (DEEP, minibatches(), 1e-4, {}, 2),
        (DEEP, minibatches(of_network), 1e-4, {}, 2),
    ],
)
def test_the_law_holds_for_every_plain_step(Ws, loss, eta, more, pair):
    law = noise.DeterminantLaw(loss, eta=eta, pair=pair, **more)
    run = descent.train(Ws, law, eta=eta, steps=STEPS, every=50, **more)
    found = descent.record(
        run, measured=lambda it: noise.log_det(it.Ws, pair), law=lambda it: law.predicted
    )
    measured = found["measured"] - found["measured"][0]
    assert measured[-1].abs().min() > 1e-5  # there is something to predict
    torch.testing.assert_close(found["law"], measured, rtol=0, atol=1e-11)


def test_the_network_trains_as_without_the_law():
    # DEEP has no activation between layers 2 and 3, and the loss of the whole knows all four.
    whole = losses.network(X, Y, [torch.relu, None, None, None])
    law = noise.DeterminantLaw(of_network(X, Y), eta=1e-4, pair=2)
    ends = [list(descent.train(DEEP, loss, eta=1e-4, steps=20))[-1].Ws for loss in (whole, law)]
    for W, other in zip(*ends, strict=True):
        torch.testing.assert_close(W, other, rtol=1e-12, atol=1e-12)


def test_momentum_has_another_law():
    loss = losses.least_squares(X, Y)
    law = noise.DeterminantLaw(loss, eta=1e-3)
    *_, last = descent.train(TWO, law, rules.momentum(0.9), eta=1e-3, steps=STEPS)
    assert (law.predicted - noise.log_det(last.Ws) + noise.log_det(TWO)).abs() > 1e-3


def test_a_step_asked_for_twice_counts_once():
    law = noise.DeterminantLaw(losses.least_squares(X, Y), eta=5e-3)
    assert law.predicted == 0
    grads = [law(TWO).grads for _ in range(2)][-1]
    assert law.predicted == 0
    moved = [W - 5e-3 * G for W, G in zip(TWO, grads, strict=True)]
    law(moved)
    change = noise.log_det(moved) - noise.log_det(TWO)
    torch.testing.assert_close(law.predicted, change, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.log_det([W[..., :1, :] for W in TWO[:1]] + [TWO[1][:, :1]]), "least 5"),
        (lambda: noise.theta(TWO, 2), "pair: wanted 1 <= pair < L = 2, got 2"),
        (lambda: noise.theta(TWO, 0), "pair: wanted 1 <= pair < L = 2, got 0"),
        (lambda: noise.DeterminantLaw(minibatches(), eta=0.0), "eta"),
        (lambda: noise.DeterminantLaw(minibatches(), eta=0.1, lam=-1.0), "lam"),
        (lambda: noise.DeterminantLaw(minibatches(), eta=0.1, pair=2)(TWO), "pair"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
