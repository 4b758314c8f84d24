"""Starts from a gradient against the matrices that they promise, AdaLoRA against a slow loop."""

import re
from functools import partial

import pytest
import torch
from spoilers import cases, judge
from torch import nn

from lop_utils import adapters, adaptive, compression, init, law
from lop_utils._gradients import Importance
from lop_utils.compression import low_rank_approximation

F64 = {"dtype": torch.float64}
SIZES = [(7, 7), (6, 9), (9, 6)]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


def linear(d_out=6, d_in=9):
    layer = nn.Linear(d_in, d_out, **F64)
    layer.weight.data.copy_(randn(d_out, d_in, seed=1))
    return layer


def holds(Q, A):
    """Return how far the columns of A leave the span of orthonormal Q."""
    torch.testing.assert_close(Q.T @ Q, torch.eye(Q.shape[1], **F64), rtol=0, atol=1e-13)
    return (A - Q @ (Q.T @ A)).abs().max().item()


# --- Starts


def test_first_gradients_are_what_backward_finds_and_leave_nothing():
    model = nn.Sequential(nn.Linear(4, 3, **F64), nn.Tanh(), nn.Linear(3, 2, **F64))
    model[0].weight.requires_grad_(False)
    loss = lambda model: model(randn(5, 4)).square().sum()  # noqa: E731
    with torch.no_grad():
        found = adaptive.first_gradients(model, ["0", "2"], loss)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    model.requires_grad_(True)
    loss(model).backward()
    assert torch.equal(found["0"], model[0].weight.grad)
    assert torch.equal(found["2"], model[2].weight.grad)


@pytest.mark.parametrize("size", SIZES)
def test_lora_one_starts_after_a_step_of_rank_r(size):
    G = randn(*size, seed=2)
    layer = adaptive.lora_one(linear(*size), G, 3, 2.0, eta=0.7)
    torch.testing.assert_close(layer.delta(), -0.7 * low_rank_approximation(G, 3))
    s_A, s_B = (torch.linalg.svdvals(W) for W in layer.factors)
    torch.testing.assert_close(s_A, s_B)


@pytest.mark.parametrize("size", SIZES)
def test_lora_ga_moves_first_as_the_full_weight_does_within_rank_2r(size):
    layer, G = linear(*size), randn(*size, seed=2)
    start = adaptive.lora_ga(layer, G, 2, 3.0, size=0.5)
    torch.testing.assert_close(start.weight, layer.weight, rtol=0, atol=1e-14)
    (start.weight * G).sum().backward()  # whose gradient in the weight is G
    A, B = start.factors
    first = 3.0 * (B.grad @ A + B @ A.grad)
    torch.testing.assert_close(first, 3.0**2 * 0.5**2 * low_rank_approximation(G, 4))


@pytest.mark.parametrize("size", SIZES)
def test_directions_of_deep_lora(size):
    G, k = randn(*size, seed=2), 4
    P, s, Qh = torch.linalg.svd(G, full_matrices=False)
    make = partial(adaptive.deep_lora_compressed, linear(*size), G, k, 1e-3)
    layer, again = make(generator=0), make(generator=1)
    for i, V in ((0, Qh[:2].T), (-1, P[:, :2])):
        found, other = (each.factors[i].detach() for each in (layer, again))
        found, other = (found.T, other.T) if i == 0 else (found, other)
        assert holds(found, V) < 1e-13 and holds(other, V) < 1e-13
        assert holds(found, other) > 0.1  # the rest is drawn
    assert [tuple(W.shape) for W in layer.factors[1:-1]] == [(k, k)] * 3
    eye = torch.eye(k, **F64)
    assert all(torch.equal(W, 1e-3 * eye) for W in layer.factors[1:-1])
    V, *inner, U = adaptive.deep_lora_aligned(linear(*size), G, k, 1e-3).factors
    assert holds(V.detach().T, Qh[:k].T) < 1e-13
    torch.testing.assert_close(U.T @ -G @ V.T, torch.diag(s[:k]), rtol=0, atol=1e-13)
    assert len(inner) == 3 and torch.equal(inner[0], 1e-3 * eye)


def test_the_aligned_start_is_that_of_an_aligned_wide_network():
    Phi, eps = low_rank_approximation(randn(7, 7, seed=2), 3), 0.1
    layer = adaptive.deep_lora_aligned(linear(7, 7), -Phi, 3, eps)
    small = compression.compress(init.aligned(Phi, 3, eps, generator=0), Phi, 3, eps)
    wide = eps**3 * small.U @ small.V.T
    torch.testing.assert_close(layer.delta(), wide, rtol=0, atol=1e-15)


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_gradient_descent_follows_the_theorem(lam):
    """Whitened inputs, an update of rank k/2 to find: the core computes what a wide one does."""
    d, k, eps, eta, steps = 9, 4, 0.3, 0.05, 60
    layer = linear(d, d)
    X = torch.linalg.qr(randn(20, d, seed=3)).Q  # rows are samples: X^T X = I
    missing = low_rank_approximation(randn(d, d, seed=4), k // 2)
    Y = layer(X).detach() + X @ missing.T
    model = nn.Sequential(layer)
    loss = lambda model: (model(X) - Y).square().sum() / 2  # noqa: E731
    gradients = adaptive.first_gradients(model, "0", loss)
    torch.testing.assert_close(gradients["0"], -missing)

    make = partial(adaptive.deep_lora_compressed, k=k, eps=eps)
    adapters.adapt(model, "0", make, gradients=gradients, generator=5)
    V, *_, U = model[0].factors
    groups = adapters.parameter_groups(model, eta, [0, 1, 1, 1, 0])
    optimiser = torch.optim.SGD(groups, weight_decay=lam)

    # The wide update that the same seed draws: its first layer is Haar, the others eps I.
    (first,) = init.orthogonal((d, d), eps, generator=5)
    wide = [first, *[eps * torch.eye(d, **F64)] * 2]
    wide = [W.clone().requires_grad_() for W in wide]
    small = compression.compress([W.detach() for W in wide], missing, k // 2, eps)
    rhos = law.rho_recursion(eps=eps, eta=eta, lam=lam, L=3, steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(model).backward()
        optimiser.step()
        value = (X @ (wide[2] @ wide[1] @ wide[0]).T - X @ missing.T).square().sum() / 2
        for W, G in zip(wide, torch.autograd.grad(value, wide), strict=True):
            W.data = (1 - eta * lam) * W.data - eta * G
    product = (wide[2] @ wide[1] @ wide[0]).detach()
    assert torch.linalg.norm(product - missing) < 0.9 * torch.linalg.norm(missing)
    core = model[0].delta().detach()
    rest = rhos[-1] ** 3 * small.complement
    torch.testing.assert_close(core + rest, product, rtol=0, atol=1e-12)
    torch.testing.assert_close(U.detach() @ V.detach(), small.U @ small.V.T, rtol=0, atol=1e-13)


def budgeted(**how):
    return adaptive.budget(**how)


def groups(eta, ratios):
    model, _ = adalora()
    return [group["lr"] for group in adapters.parameter_groups(model, eta, ratios)]


STARTS = {
    adaptive.lora_one: dict(r=2, scale=2.0, eta=0.1),
    adaptive.lora_ga: dict(r=2, scale=2.0, size=0.5),
    adaptive.deep_lora_compressed: dict(k=2, eps=0.3, L=2, generator=1),
    adaptive.deep_lora_aligned: dict(k=2, eps=0.3, L=2),
}
MAKES = {
    adapters.lora: dict(r=2, scale=2.0, generator=1),
    adapters.deep_lora: dict(width=2, eps=0.3, L=3, generator=1),
    adapters.low_rank: dict(r=2, generator=1),
    adapters.low_rank_spectral: dict(r=2),
    adaptive.AdaLoRA: dict(r=2, scale=2.0, generator=1),
    adapters.Adapter: dict(factors=[randn(2, 9), randn(6, 2)], scale=2.0),
    adapters.LowRank: dict(factors=[randn(2, 9), randn(6, 2)]),
}
ROWS = {make.__name__: (partial(make, linear()), how) for make, how in MAKES.items()}
ROWS |= {
    make.__name__: (partial(make, linear()), {"G": randn(6, 9, seed=2), **how})
    for make, how in STARTS.items()
}
ROWS |= {
    "budget": (budgeted, dict(step=4, start=8, target=2, warmup=1, final=2, steps=9)),
    "parameter_groups": (groups, dict(eta=0.1, ratios=0.5)),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_answer_is_right_or_refused_by_name(name):
    (call, valid), wrong = ROWS[name], {}
    but = "generator: (minus|none)|(eta|ratios): (large|tiny)|ratios: list"
    for what, (argument, spoiler) in cases(valid, but).items():
        try:
            judge(call, valid, argument, spoiler, also=("factors", "2 r", "Phi", "budget"))
        except Exception as error:
            wrong[what] = f"{type(error).__name__}: {error}"[:300]
    assert wrong == {}


# --- AdaLoRA


def adalora(r=3, seed=0):
    model = nn.Sequential(nn.Linear(4, 30, **F64), nn.Tanh(), nn.Linear(30, 6, **F64))
    found = adapters.adapt(model, ["0", "2"], partial(adaptive.AdaLoRA, r=r, scale=2.0))
    for i, layer in enumerate(found.values()):
        for j, W in enumerate(layer.factors):
            W.data = randn(*W.shape, seed=seed + 3 * i + j)
    return model, found


def stepped(model, step):
    model.zero_grad()
    model(randn(8, 4, seed=step)).square().sum().backward()


def test_importance_against_a_slow_loop():
    beta, worth, memory = 0.6, None, {}
    model, found = adalora()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(3):
        stepped(model, step)
        worth = adaptive.importance(model, worth, beta=beta)
        for name, layer in found.items():
            for j, W in enumerate(layer.factors):
                for at, w in enumerate(W.flatten().tolist()):
                    now = abs(w * W.grad.flatten()[at].item())
                    mean, spread = memory.get((name, j, at), (0.0, 0.0))
                    mean = beta * mean + (1 - beta) * now
                    memory[name, j, at] = mean, beta * spread + (1 - beta) * abs(now - mean)
        optimiser.step()
    for (name, j, at), slow in memory.items():
        pair = [each[name][j].flatten()[at].item() for each in worth]
        assert pair == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("size", [0.2, 1.0])  # each part of a score decides in one of them
def test_allocation_against_a_slow_loop(size):
    model, found = adalora()
    sizes = {name: [W.shape for W in layer.factors] for name, layer in found.items()}
    worth = [
        {
            n: [randn(*s, seed=seed + i).abs() for i, s in enumerate(each)]
            for n, each in sizes.items()
        }
        for seed in (1, 10)
    ]
    for each in worth[0].values():
        each[1] *= size
    scores = {}
    for name, ((_, d_in), _, (d_out, _)) in sizes.items():
        value = lambda j, *at: worth[0][name][j][at].item() * worth[1][name][j][at].item()  # noqa: B023, E731
        for i in range(3):
            across = sum(value(0, i, j) for j in range(d_in)) / d_in
            down = sum(value(2, j, i) for j in range(d_out)) / d_out
            scores[name, i] = value(1, i) + across + down
    best, worth = sorted(scores, key=scores.get, reverse=True), Importance(*worth)
    for keep in range(8):
        masks = adaptive.allocate(worth, keep)
        kept = {(name, i) for name, mask in masks.items() for i in range(3) if mask[i]}
        assert kept == set(best[:keep])
    before = {name: layer.factors[1].clone() for name, layer in found.items()}
    masks = adaptive.allocate(worth, 2)
    assert adaptive.prune(model, masks) == {n: int(mask.sum()) for n, mask in masks.items()}
    for name, layer in found.items():
        assert torch.equal(layer.factors[1], before[name] * masks[name])


def test_ranks_come_back_by_momentum_unless_pruned_again():
    model, found = adalora()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    worth = None
    for step in range(3):
        stepped(model, step)
        worth = adaptive.importance(model, worth)
        optimiser.step()
    masks = adaptive.allocate(worth, 2)
    assert sum(adaptive.prune(model, masks).values()) == 2
    stepped(model, 3)
    optimiser.step()
    assert sum(layer.rank() for layer in found.values()) == 6
    assert sum(adaptive.prune(model, masks).values()) == 2


def test_what_was_never_allocated_says_so():
    model, found = adalora()
    for call in (found["0"].rank, partial(adapters.merge, model)):
        with pytest.raises(RuntimeError, match="AdaLoRA: wanted an allocation, none was made"):
            call()
    adaptive.prune(model, {name: torch.ones(3, dtype=torch.bool) for name in found})
    other, again = adalora()
    other.load_state_dict(model.state_dict())  # which knows of the allocation
    assert again["0"].rank() == 3
    adapters.merge(model)


def test_orthogonality():
    model, found = adalora()
    slow = [
        torch.linalg.norm(M - torch.eye(3, **F64))
        for layer in found.values()
        for M in (
            layer.factors[0] @ layer.factors[0].T,
            layer.factors[2].T @ layer.factors[2],
        )
    ]
    torch.testing.assert_close(adaptive.orthogonality(model), sum(slow) / 4)
    for layer in found.values():
        layer.factors[0].data = torch.eye(3, layer.in_features, **F64)
        layer.factors[2].data = torch.eye(layer.out_features, 3, **F64)
    penalty = adaptive.orthogonality(model)
    penalty.backward()
    assert penalty == 0 and not found["0"].factors[0].grad.any()  # and no NaN where it is least


MODEL, FOUND = adalora()
ZERO = torch.zeros(6, 9, **F64)
THIN = randn(6, 1) @ randn(1, 9)


def gradients(loss, names="0"):
    return lambda: adaptive.first_gradients(nn.Sequential(nn.Linear(2, 2)), names, loss)


def schedule(**changed):
    how = dict(step=1, start=8, target=4, warmup=1, final=2, steps=10)
    return lambda: adaptive.budget(**how | changed)


def nothing_moved():
    model, _ = adalora()
    model(randn(8, 4)).mul(0.0).sum().backward()
    return adaptive.allocate(adaptive.importance(model), 2)


@pytest.mark.parametrize(
    "call, message",
    [
        (gradients(lambda model: 3.0), "loss: wanted one number with a graph back to the model's"),
        (gradients(lambda model: model[0].weight), "loss: wanted one number with a graph back"),
        (gradients(lambda model: model[0].bias.sum()), "names: wanted layers that the loss depen"),
        (gradients(lambda model: model[0].weight.sum() / 0), "gradient of '0': wanted finite"),
        (lambda: adaptive.lora_one(linear(), ZERO, 1, 1.0, 0.1), "G: wanted a gradient, got zero"),
        (
            lambda: adaptive.lora_one(linear(), THIN, 2, 1.0, 0.1),
            "G: wanted a rank of at least 2, ",
        ),
        (lambda: adaptive.lora_ga(linear(), ZERO + 1, 4, 1.0, 0.1), "2 r: wanted at most 6, got 8"),
        (
            lambda: adaptive.deep_lora_compressed(linear(), THIN, 3, 0.1),
            "k: wanted an even number ",
        ),
        (
            lambda: adaptive.deep_lora_compressed(linear(), THIN, 6, 0.1),
            "k: wanted an even number ",
        ),
        (lambda: adaptive.deep_lora_aligned(linear(), ZERO, 2, 0.1), "G: wanted a gradient, got z"),
        (lambda: adaptive.importance(adalora()[0]), "model: wanted gradients, '0' has none; call "),
        (lambda: adaptive.importance(nn.ReLU()), "model: wanted one with layers of AdaLoRA, got "),
        (nothing_moved, "worth: wanted some importance, got zero"),
        (lambda: adaptive.prune(MODEL, {}), "masks: wanted one for '0', got none"),
        (
            lambda: adaptive.prune(MODEL, dict.fromkeys("02", torch.ones(2, dtype=torch.bool))),
            "masks['0']: wanted 3 of bool, got torch.bool of shape (2,)",
        ),
        (schedule(target=9), "budget: wanted target <= start and warmup + final < steps"),
        (schedule(final=9), "budget: wanted target <= start and warmup + final < steps"),
        (schedule(step=-1), "step: wanted step >= 0, got -1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
