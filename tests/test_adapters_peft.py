"""LoRA and AdaLoRA against peft on the same weights, and what peft does without saying so."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lop_utils import adapters, adaptive

peft = pytest.importorskip("peft", reason="peft is not installed (the extra peft)")

F64 = {"dtype": torch.float64}
D, R, NAMES = 6, 4, ["query", "up"]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


class Model(nn.Module):
    """Two named layers, and outputs as those of transformers where ``answer`` says so."""

    def __init__(self, answer=lambda y: y):
        super().__init__()
        self.query, self.up = nn.Linear(D, D, **F64), nn.Linear(D, 9, **F64)
        for i, p in enumerate(self.parameters()):
            p.data = randn(*p.shape, seed=i)
        self.answer = answer

    def forward(self, x):
        return self.answer(self.up(torch.tanh(self.query(x))))


def paired(config, make, answer=lambda y: y):
    """Return our model and theirs with the same factors, as pairs of ours and theirs."""
    ours, theirs = Model(), peft.get_peft_model(Model(answer), config).double()
    found = adapters.adapt(ours, NAMES, make)
    pairs = []
    for i, name in enumerate(NAMES):
        layer = theirs.base_model.model.get_submodule(name)
        kinds = ("lora_A", "lora_E", "lora_B") if hasattr(layer, "lora_E") else ("lora_A", "lora_B")
        for kind, W in zip(kinds, found[name].factors, strict=True):
            other = getattr(layer, kind)["default"]
            other = other if isinstance(other, nn.Parameter) else other.weight
            W.data = randn(*W.shape, seed=10 * i + len(pairs))
            other.data = W.data.reshape(other.shape).clone()
            pairs.append((W, other))
    return ours, theirs, pairs


def same(a, b, tolerance=1e-13):
    torch.testing.assert_close(a, b.reshape(a.shape), rtol=tolerance, atol=tolerance)


def ada_config(**changed):
    how = dict(init_r=R, target_r=2, tinit=2, tfinal=3, deltaT=2, total_step=12, lora_alpha=16)
    return peft.AdaLoraConfig(target_modules=NAMES, **how | changed)


ADA = partial(adaptive.AdaLoRA, r=R, scale=16 / (R + 1e-5))


@pytest.mark.parametrize(
    "config, make",
    [
        (
            peft.LoraConfig(r=R, lora_alpha=16, target_modules=NAMES),
            partial(adapters.lora, r=R, scale=16 / R),
        ),
        (
            peft.LoraConfig(r=R, lora_alpha=16, use_rslora=True, target_modules=NAMES),
            partial(adapters.lora, r=R, scale=16 / R**0.5),
        ),
        (ada_config(), ADA),
    ],
    ids=["lora", "rslora", "adalora"],
)
def test_features_gradients_and_merged_weights_are_those_of_peft(config, make):
    ours, theirs, pairs = paired(config, make)
    x = randn(5, D, seed=50)
    same(ours(x), theirs(x))
    for model in (ours, theirs):
        model(x).square().sum().backward()
    for W, other in pairs:
        same(W.grad, other.grad)
    adaptive.prune(ours, {n: torch.ones(R, dtype=torch.bool) for n in NAMES}) if make is ADA else 0
    merged = theirs.merge_and_unload()
    adapters.merge(ours)
    for name in NAMES:
        same(ours.get_submodule(name).weight, merged.get_submodule(name).weight)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_lora_starts_as_in_peft(shape):
    config = peft.LoraConfig(r=R, target_modules=["0"])
    theirs = peft.get_peft_model(nn.Sequential(nn.Linear(*shape)), config)
    layer = theirs.base_model.model[0]
    A, B = adapters.lora(nn.Linear(*shape), R, 1.0, generator=0).factors
    bound = shape[0] ** -0.5
    for ours, other in ((A, layer.lora_A), (B, layer.lora_B)):
        assert ours.shape == other["default"].weight.shape
    for drawn in (A, layer.lora_A["default"].weight):
        assert 0.7 * bound < drawn.abs().max() <= bound
    assert not B.any() and not layer.lora_B["default"].weight.any()


def test_allocation_over_steps_is_that_of_peft():
    config = ada_config()
    ours, theirs, pairs = paired(config, ADA)
    rates = dict(lr=1e-2, weight_decay=0.0)
    mine = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], **rates)
    other = torch.optim.AdamW([V for _, V in pairs], **rates)
    total, target, worth, masks, ranks = 2 * R, 2 * config.target_r, None, None, []
    for step in range(config.total_step):
        x = randn(5, D, seed=100 + step)
        for model, optimiser in ((ours, mine), (theirs, other)):
            optimiser.zero_grad()
            model(x).square().sum().backward()
            optimiser.step()
        theirs.base_model.update_and_allocate(step)

        ends = config.total_step - config.tfinal
        if step < ends:
            worth = adaptive.importance(ours, worth)
        keep = adaptive.budget(
            step, total, target, warmup=config.tinit, final=config.tfinal, steps=config.total_step
        )
        if step == ends or (config.tinit < step < ends and step % config.deltaT == 0):
            masks = adaptive.allocate(worth, keep)
            adaptive.prune(ours, masks)
        elif step > ends:
            adaptive.prune(ours, masks)
        for W, V in pairs:
            same(W, V, 1e-11)
        E = [W for W, _ in pairs if W.ndim == 1]
        ranks.append(sum(int(W.count_nonzero()) for W in E))
    pattern = {n.split(".")[0]: m for n, m in config.rank_pattern.items()}
    assert {name: mask.tolist() for name, mask in masks.items()} == pattern
    # The ranks that peft reports between two allocations are gone one step later, and real only
    # at the end, where it prunes at every step.
    assert ranks[4] < 2 * R and ranks[5] == 2 * R
    assert ranks[-3:] == [target] * 3


def test_peft_divides_by_the_first_rank_and_lets_the_optimiser_train_it():
    _, theirs, _ = paired(ada_config(tinit=0), ADA)
    trained = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    rank = trained["base_model.model.query.ranknum.default"]
    for step in range(10):
        theirs(randn(5, D, seed=step)).square().sum().backward()
        theirs.base_model.update_and_allocate(step)
    assert theirs.base_model.model.query.lora_E["default"].count_nonzero() < R
    assert rank.item() == R and rank.grad.abs() > 0
    torch.optim.SGD(trained.values(), lr=1e-6).step()
    assert rank.item() != R


def test_peft_fails_where_no_rank_is_to_go():
    config = ada_config(target_r=R)
    _, theirs, _ = paired(config, ADA)
    with pytest.raises(RuntimeError, match="kthvalue"):
        for step in range(config.total_step):
            theirs(randn(2, D)).sum().backward()
            theirs.base_model.update_and_allocate(step)
    assert adaptive.budget(6, 8, 8, warmup=2, final=3, steps=12) == 8
    ours, _, _ = paired(ada_config(), ADA)
    ours(randn(2, D)).sum().backward()
    assert all(mask.all() for mask in adaptive.allocate(adaptive.importance(ours), 8).values())


def test_peft_asks_for_gradients_that_zero_grad_took():
    _, theirs, _ = paired(ada_config(), ADA)
    with pytest.raises(TypeError, match="NoneType"):
        theirs.base_model.update_and_allocate(1)


def test_the_penalty_is_that_of_peft_which_seldom_adds_it():
    x = randn(5, D, seed=50)
    with_loss = lambda y: SimpleNamespace(loss=y.square().sum())  # noqa: E731
    ours, theirs, _ = paired(ada_config(), ADA, with_loss)
    value = ours(x).square().sum()
    same(theirs.base_model(x).loss, value + 0.5 * adaptive.orthogonality(ours))
    same(theirs(x).loss, value)  # without a task_type the model that adds it is passed by
    _, theirs, _ = paired(ada_config(), ADA)
    same(theirs.base_model(x).square().sum(), value)  # outputs without a loss


def test_peft_never_says_that_nothing_was_allocated():
    ours, theirs, _ = paired(ada_config(), ADA)
    theirs.merge_and_unload()  # all ranks, in silence
    with pytest.raises(RuntimeError, match="wanted an allocation, none was made"):
        adapters.merge(ours)


def test_lora_ga_of_peft_has_our_directions_and_the_size_of_the_gradient_in_b():
    model, x = nn.Sequential(nn.Linear(D, 9)), randn(5, D).float().requires_grad_()
    loss = lambda model: model(x).square().sum()  # noqa: E731
    G = adaptive.first_gradients(model, "0", loss)["0"]
    start = adaptive.lora_ga(model[0], G, 2, 4.0, size=1.0)
    config = peft.LoraConfig(
        r=2,
        lora_alpha=8,
        target_modules=["0"],
        init_lora_weights="lora_ga",
        lora_ga_config=peft.LoraGAConfig(scale="unit"),
    )
    peft.tuners.lora.preprocess_loraga(model, config, lambda: loss(model).backward())
    layer = peft.get_peft_model(model, config).base_model.model[0]
    A, B = (getattr(layer, kind)["default"].weight for kind in ("lora_A", "lora_B"))
    s = torch.linalg.svdvals(G)
    for ours, theirs, sizes in zip(start.factors, (A, B), (torch.ones(2), s[2:4]), strict=True):
        M = ours.T @ theirs if ours.shape[0] > ours.shape[1] else ours @ theirs.T
        torch.testing.assert_close(M.abs(), torch.diag(sizes), rtol=1e-4, atol=1e-3)
