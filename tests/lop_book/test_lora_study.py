"""The study of the chapter on LoRA: arms side by side are what they would be alone."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lop_utils import adapters, adaptive
from lop_utils.book import lora_study, lora_task
from lop_utils.book.lora_study import Arm

SIZES = dict(n=6, seeds=2, steps=3, head=0.01)
ETAS = [0.01, 0.1]


@pytest.fixture(scope="module")
def task():
    draw = torch.Generator().manual_seed(0)
    X, y = torch.randn(40, 4, 4, generator=draw), torch.arange(40) % 2
    model = lora_task.pretrained(X, y, epochs=1, seed=0)
    return lora_task.Task(model, X, y, val=4, test=6)


def test_a_model_follows_its_seed_and_leaves_the_generator_of_torch_alone(task):
    state = torch.random.get_rng_state()
    models = [lora_task.pretrained(task.X, task.y, epochs=1, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    first, again, other = (model(task.X) for model in models)
    assert torch.equal(first, again) and not torch.allclose(first, other)


def alone(task, arm, seed, eta):
    """Train one run by torch's AdamW, from the model of that seed; return it and its last loss."""
    part = lora_task.sample(task, SIZES["n"], seed)
    heads = lora_task.fitted_heads(task, part[None], steps=SIZES["steps"], eta=SIZES["head"])
    model = lora_task.with_head(task, heads, 0)
    first = {"gradients": lora_task.gradients(task, heads, 0, part, arm.names)} if arm.first else {}
    draw = {"generator": seed} if arm.random else {}
    adapters.adapt(model, arm.names, arm.make, **first, **draw)
    groups = [
        dict(group, first=group["lr"])
        for group in adapters.parameter_groups(model, eta, arm.ratios or 1.0)
    ]
    groups.append({"params": list(model.head.parameters()), "first": SIZES["head"]})
    model.head.requires_grad_(True)
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    for t in range(SIZES["steps"]):
        for group in optimiser.param_groups:
            group["lr"] = group["first"] * (1 - t / SIZES["steps"])
        optimiser.zero_grad()
        loss = F.cross_entropy(model(task.X[part]), task.y[part])
        loss.backward()
        optimiser.step()
    return model, loss.item()


DEEP = partial(adaptive.deep_lora_compressed, k=4, eps=0.1)
GA = partial(adaptive.lora_ga, r=2, scale=1.0, size=1.0)


@pytest.mark.parametrize(
    "arm",
    [
        lora_study.product_arm(2, 4, False),
        lora_study.product_arm(3, None, True, names=["q", "fc2"]),
        Arm(DEEP, ratios=[0.1, 1, 1, 1, 0.1], first=True),
        Arm(GA, first=True, random=False),  # a base of its own for each seed
    ],
)
def test_runs_side_by_side_are_what_they_are_alone(task, arm):
    found = lora_study.few_shot(task, arm, ETAS, **SIZES)
    for seed in range(SIZES["seeds"]):
        for place, eta in enumerate(ETAS):
            model, loss = alone(task, arm, seed, eta)
            assert found.loss[place, seed].item() == pytest.approx(loss, rel=1e-4)
            for name, delta in found.deltas.items():
                torch.testing.assert_close(
                    delta[place, seed], model.get_submodule(name).delta(), rtol=1e-3, atol=1e-5
                )
            right = (model(task.X[:10]).argmax(-1) == task.y[:10]).float()
            assert found.val[place, seed].item() == pytest.approx(right[:4].mean().item())
            assert found.test[place, seed].item() == pytest.approx(right[4:].mean().item())


def test_the_head_alone_is_an_arm_and_counts_nothing(task):
    found = lora_study.compare(task, {"head": (Arm(None), [1.0])}, **SIZES)["head"]
    assert found["count"] == 0 and found["test"].shape == (1, 2) and "deltas" not in found


@pytest.mark.parametrize(("rule", "eta"), [("gd", 0.5), ("muon", 0.01)])
def test_other_rules_move_the_factors_as_they_say(task, rule, eta):
    arm = lora_study.product_arm(2, 4, False, ["q"])._replace(rule=rule)
    found = lora_study.few_shot(task, arm, [eta], **{**SIZES, "steps": 1})
    model = adapters_of_seed(task, arm, 1)
    B, A = (model.blocks[0].q.factors[l] for l in (1, 0))
    if rule == "gd":  # of B alone: at B = 0 no gradient passes to A
        wanted = -eta * B.grad
    else:
        U, _, Vh = torch.linalg.svd(B.grad, full_matrices=False)
        wanted = -eta * U @ Vh  # five steps of Newton and Schulz come within a third of it
    moved = found.deltas["blocks.0.q"][0, 1] @ A.detach().mT  # rows of A are orthonormal
    assert (moved - wanted).norm() <= (1e-4 if rule == "gd" else 0.35) * wanted.norm()


def adapters_of_seed(task, arm, seed):
    part = lora_task.sample(task, SIZES["n"], seed)
    heads = lora_task.fitted_heads(task, part[None], steps=1, eta=SIZES["head"])
    model = lora_task.with_head(task, heads, 0)
    adapters.adapt(model, arm.names, arm.make, generator=seed)
    F.cross_entropy(model(task.X[part]), task.y[part]).backward()
    return model


def test_a_head_of_zeros_lets_no_gradient_through(task):
    part = lora_task.sample(task, SIZES["n"], 0)
    heads = lora_task.fitted_heads(task, part[None], steps=5, eta=0.1)
    zeros = {name: 0 * W for name, W in heads.items()}
    assert all(not G.any() for G in lora_task.gradients(task, zeros, 0, part).values())
    assert all(G.any() for G in lora_task.gradients(task, heads, 0, part).values())


def test_samples_are_balanced_and_leave_those_alone_that_judge(task):
    chosen = lora_task.sample(task, 6, 3)
    assert len(set(chosen.tolist())) == 6 and chosen.min() >= 10
    assert task.y[chosen].bincount().tolist() == [3, 3]


def test_all_principal_angles_of_both_sides(generator):
    Q = torch.linalg.qr(torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)).Q
    s = torch.tensor([3.0, 2.0, 0, 0, 0, 0]).double()
    turned = Q[0][:, [0, 2, 1, 3, 4, 5]]  # one left direction of two is kept, both right ones are
    A, B = Q[0] * s @ Q[1].mT, turned * s @ Q[1].mT
    cosines = lora_study.angles(A, B, 2)
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double())
