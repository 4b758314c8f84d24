"""Mini-batches against the whole: drawn evenly, right on average, at the cost of what they hold."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lop_utils.losses import Minibatches, ValueAndGradients, least_squares, network
from lop_utils.networks import stack

F64 = {"dtype": torch.float64}
DX, DY, N = 5, 3, 7


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


X, Y = randn(DX, N, seed=3), randn(DY, N, seed=4)
WS = [randn(4, DX, seed=7), randn(6, 4, seed=8), randn(DY, 6, seed=9)]


def of_labels(X, Y):
    """A loss whose value says which samples it was given."""
    return lambda Ws: ValueAndGradients(Y.flatten(), [1.0 * X])


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 6, 12])
def test_a_batch_is_drawn_without_replacement_and_evenly(batch):
    n, draws = 12, 2000
    loss = Minibatches(
        of_labels, torch.ones(1, n), torch.arange(1.0, n + 1)[None], batch=batch, generator=0
    )
    counts, pairs = torch.zeros(n), torch.zeros(n, n)
    for _ in range(draws):
        drawn = (loss([]).value * batch / n).round().long() - 1  # the weight is N / batch
        assert len(drawn) == batch == len(set(drawn.tolist()))
        counts[drawn] += 1
        pairs[drawn[:, None], drawn] += 1
        assert torch.equal(loss([]).grads[0], torch.full((1, batch), n / batch))
    p = batch / n
    assert (counts / draws - p).abs().max() <= 5 * (p * (1 - p) / draws) ** 0.5
    p = batch * (batch - 1) / n / (n - 1)  # of two samples together
    off = pairs[~torch.eye(n, dtype=torch.bool)] / draws
    assert (off - p).abs().max() <= 6 * (p * (1 - p) / draws) ** 0.5


def test_minibatches_are_unbiased_and_follow_their_generator():
    Ws, full = WS, least_squares(X, Y)(WS)

    def once(seed, make=least_squares):
        return Minibatches(make, X, Y, batch=1, generator=seed)(Ws)

    found = {once(seed).value.item(): once(seed) for seed in range(60)}
    assert len(found) == N  # as many as samples
    assert sum(found) / N == pytest.approx(full.value.item(), rel=1e-13)
    for l, G in enumerate(full.grads):
        mean = sum(it.grads[l] for it in found.values()) / N
        assert (mean - G).abs().max() < 1e-12 * G.abs().max()
    assert once(torch.Generator().manual_seed(3)).value == once(3).value
    torch.manual_seed(3)
    assert Minibatches(least_squares, X, Y, batch=1)(Ws).value == once(3).value
    assert Minibatches(least_squares, X, Y, batch=1).generator is torch.default_generator
    together = Minibatches(least_squares, X, Y, batch=2, generator=3)(stack([Ws, Ws]))
    assert together.value[0] == together.value[1]  # the same samples for all runs
    everything = Minibatches(lambda X, Y: network(X, Y, [None] * 3), X, Y, batch=N)(Ws)
    assert everything.value.item() == pytest.approx(full.value.item(), rel=1e-13)


def test_label_noise_is_drawn_anew_for_every_call_and_run():
    delta, draws = 0.3, 4000

    def labels(X, Y):
        return lambda Ws: ValueAndGradients(Y, [X])

    noisy = Minibatches(labels, X, Y, batch=N, noise=delta, generator=0)
    runs = stack([WS, WS])
    order = torch.stack([noisy(runs).value for _ in range(2)])
    assert order.shape == (2, 2, DY, N) and len(order.flatten().unique()) == 4 * DY * N
    fixed = Minibatches(
        labels, torch.ones(1, 1), torch.zeros(1, 1), batch=1, noise=delta, generator=0
    )
    drawn = torch.stack([fixed(WS).value for _ in range(draws)])
    assert drawn.mean().abs() < 5 * delta / draws**0.5
    assert (drawn.std() / delta - 1).abs() < 5 / (2 * draws) ** 0.5
    # The gradient is that of the labels which the noise made, for each run.
    for make in (least_squares, lambda X, Y: network(X, Y, [None] * 3)):
        value, grads = Minibatches(make, X, Y, batch=N, noise=delta, generator=5)(runs)
        generator = torch.Generator().manual_seed(5)
        drawn = torch.randperm(N, generator=generator)
        noise = torch.randn(2, DY, N, generator=generator, **F64)
        for run in range(2):
            once = least_squares(X[:, drawn], Y[:, drawn] + delta * noise[run])(WS)
            assert value[run].item() == pytest.approx(once.value.item(), rel=1e-12)
            for G, H in zip(grads, once.grads, strict=True):
                assert (G[run] - H).abs().max() < 1e-12 * H.abs().max()


@pytest.mark.parametrize("make", [least_squares, lambda X, Y: network(X, Y, [None] * 3)])
@pytest.mark.parametrize("Ws", [WS, stack([WS, WS, WS])], ids=["one", "three"])
def test_labels_of_other_runs_are_refused(make, Ws):
    with pytest.raises(ValueError, match=r"^Y: wanted one of all runs or one of each of \("):
        make(X, torch.stack([Y, Y]))(Ws)


class Sizes(TorchDispatchMode):
    """Which operations see a tensor of more numbers than that, and how large their results are."""

    def __init__(self, more_than):
        super().__init__()
        self.limit, self.seen, self.made = more_than, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        if any(isinstance(A, torch.Tensor) and A.numel() > self.limit for A in flat):
            self.seen.append(func.__name__)
        made = [A.numel() for A in torch.utils._pytree.tree_leaves(found) if hasattr(A, "numel")]
        self.made = max([self.made, *made])
        return found


@pytest.mark.parametrize("n", [1000, 100_000])
def test_a_step_costs_what_its_batch_costs(n):
    loss = Minibatches(least_squares, torch.ones(DX, n, **F64), torch.ones(DY, n, **F64), batch=4)
    with Sizes(more_than=500) as sizes:
        loss(WS)
    # The whole of the data is indexed, once each, and nothing else is done with it.
    assert sizes.seen == ["index.Tensor"] * 2 and sizes.made <= 5056  # a generator's state


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Minibatches(None, X, Y, batch=1, noise=-1), "noise: wanted noise >= 0, got -1"),
        (lambda: Minibatches(None, X, Y, batch=0), "batch: wanted batch >= 1, got 0"),
        (lambda: Minibatches(None, X, Y, batch=8), "batch: wanted at most N = 7 samples, got 8"),
        (
            lambda: Minibatches(None, X, Y[:, 1:], batch=1),
            r"Y: wanted shape \(3, 7\), got \(3, 6\)",
        ),
    ],
)
def test_what_is_refused_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
