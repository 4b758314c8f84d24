"""Adapters on a transformer of torch: what they compute, count, and leave behind when merged."""

import copy
import re
from functools import partial, reduce

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from lop_utils import adapters, adaptive, init
from lop_utils.compression import low_rank_approximation

F64 = {"dtype": torch.float64}
D, WIDE, R = 8, 12, 2
NAMES = ["self_attn.out_proj", "linear1", "linear2"]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


X = randn(3, 5, D)


def encoder(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layer = nn.TransformerEncoderLayer(D, 2, WIDE, dropout=0.0, batch_first=True, **F64)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def loss(model):
    return model(X).square().sum() / 2


def three(linear, generator):
    dims = (linear.in_features, R, R, linear.out_features)
    return adapters.LowRank(linear, init.orthogonal(dims, 0.5, generator=generator))


# What makes an adapter, what it asks for, and how many numbers it has for (d_out, d_in).
MAKES = {
    "lora": (partial(adapters.lora, r=R, scale=2.0), "draws", lambda m, n: R * (m + n)),
    "deep": (
        partial(adapters.deep_lora, width=R, eps=0.3),
        "draws",
        lambda m, n: R * (m + n) + R * R,
    ),
    "one": (partial(adaptive.lora_one, r=R, scale=2.0, eta=0.1), "G", lambda m, n: R * (m + n)),
    "ga": (partial(adaptive.lora_ga, r=R, scale=2.0, size=0.3), "G", lambda m, n: R * (m + n)),
    "compressed": (
        partial(adaptive.deep_lora_compressed, k=R, eps=0.3),
        "G draws",
        lambda m, n: R * (m + n) + 3 * R * R,
    ),
    "aligned": (
        partial(adaptive.deep_lora_aligned, k=R, eps=0.3, L=2),
        "G",
        lambda m, n: R * (m + n) + 2 * R * R,
    ),
    "adalora": (
        partial(adaptive.AdaLoRA, r=R, scale=2.0),
        "draws",
        lambda m, n: R * (m + n + 1),
    ),
    "low-rank": (partial(adapters.low_rank, r=R), "draws", lambda m, n: R * (m + n) + m),
    "spectral": (partial(adapters.low_rank_spectral, r=R), "", lambda m, n: R * (m + n) + m),
    "three": (three, "draws", lambda m, n: R * (m + n) + R * R + m),
}


def adapted(name, seed=0, moved=True):
    """Return an encoder and its adapters, whose factors have left their start."""
    model, (make, asks, _) = encoder(), MAKES[name]
    found = adapters.adapt(
        model,
        NAMES,
        make,
        gradients=adaptive.first_gradients(model, NAMES, loss) if "G" in asks else None,
        generator=seed if "draws" in asks else None,
    )
    for i, layer in enumerate(found.values()):
        for W in layer.factors if moved else []:
            W.data += 0.2 * randn(*W.shape, seed=seed + i)
    return model, found


@pytest.mark.parametrize("name", MAKES)
def test_what_is_merged_computes_the_same(name):
    plain = encoder()
    sizes = {n: m.weight.shape for n, m in plain.named_modules() if isinstance(m, nn.Linear)}
    model, found = adapted(name)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n.split(".factors.")[0].removesuffix(".bias") for n in trained} == set(found)
    for place, layer in found.items():
        assert layer.count() == MAKES[name][2](*sizes[place])
        x = randn(4, layer.in_features)
        torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias, rtol=0, atol=1e-13)
    before = model(X)
    assert (before - plain(X)).abs().max() > 1e-2
    if name == "adalora":  # see test_adaptive for what it says without
        adaptive.prune(model, {n: torch.ones(R, dtype=torch.bool) for n in found})
    adapters.merge(model)
    assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    assert all(isinstance(model.get_submodule(n), nn.Linear) for n in sizes)
    for mode in (True, False):  # in evaluation torch reads the weights and calls no layer
        model.train(mode)
        torch.testing.assert_close(model(X), before, rtol=0, atol=1e-12)


def test_the_update_is_the_product_of_the_factors():
    layer = adapters.Adapter(nn.Linear(4, 3, **F64), [randn(2, 4), randn(2), randn(3, 2)], 0.5)
    A, E, B = (W.detach().numpy() for W in layer.factors)
    slow = sum(0.5 * E[i] * B[:, i : i + 1] * A[i : i + 1] for i in range(2))
    assert abs(layer.delta().detach().numpy() - slow).max() < 1e-15
    assert str(layer).startswith("Adapter(\n  4, 3, scale=0.5")


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", ["lora", "compressed", "adalora", "three"])
def test_models_in_torch_that_read_weights_see_the_update(name, mode):
    model, _ = adapted(name)
    with torch.no_grad():
        fast = model.train(mode)(X)
    torch.testing.assert_close(fast, model(X), rtol=0, atol=1e-13)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch's attention
@pytest.mark.parametrize("name", MAKES)
def test_seeds_train_side_by_side(name):
    models = [adapted(name, seed)[0] for seed in range(3)]
    params, buffers = stack_module_state(models)
    trained = {n: p for n, p in params.items() if models[0].get_parameter(n).requires_grad}
    frozen = {n: p for n, p in params.items() if n not in trained}
    call = lambda own, rest, others: functional_call(  # noqa: E731
        models[0], own | rest | others, (X,)
    )
    value = lambda *state: call(*state).square().sum() / 2  # noqa: E731
    together = vmap(grad(value))(trained, frozen, buffers)
    for seed, model in enumerate(models):
        loss(model).backward()
        for n, W in model.named_parameters():
            if W.requires_grad:
                torch.testing.assert_close(together[n][seed], W.grad, rtol=1e-10, atol=1e-12)


def test_a_seed_goes_on_from_layer_to_layer():
    _, found = adapted("lora", moved=False)
    first, second = (found[f"layers.{i}.linear1"].factors[0] for i in range(2))
    assert not torch.equal(first, second)
    _, again = adapted("lora", moved=False)
    assert torch.equal(second, again["layers.1.linear1"].factors[0])
    assert first.abs().max() < D**-0.5 and not found["layers.0.linear1"].factors[1].any()


def test_shared_layers_stay_one_and_earlier_adapters_learn_on():
    model = nn.Sequential(nn.Linear(4, 4, **F64), nn.ReLU(), nn.Linear(4, 4, **F64))
    model.append(model[0])
    x = randn(2, 4)
    found = adapters.adapt(model, ["0", "3"], partial(adapters.lora, r=1, scale=1.0))
    assert model[0] is model[3] is found["0"] is found["3"]
    adapters.adapt(model, "2", partial(adapters.lora, r=2, scale=1.0))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 8 + 16
    model[0].factors[1].data += 1.0
    before = model(x)
    adapters.merge(model)
    assert model[0] is model[3]
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-13)
    assert not any(p.requires_grad for p in model.parameters())


def test_groups_have_a_rate_for_each_factor():
    model, found = adapted("compressed")
    model.layers[0].norm1.requires_grad_(True)
    groups = adapters.parameter_groups(model, 0.5, [0.1, 1, 1, 1, 0.1])
    sizes = {group["lr"]: len(group["params"]) for group in groups}
    assert sizes == {0.05: 2 * len(found), 0.5: 3 * len(found) + 2}
    (inner,) = adapters.parameter_groups(model, 0.5, [0, 1, 1, 1, 0])
    assert {*inner["params"]} == {*groups[0]["params"]} or len(inner["params"]) == sizes[0.5]
    torch.optim.AdamW(groups).step()


def test_low_rank_starts():
    linear = nn.Linear(9, 7, **F64)
    layer = adapters.low_rank(linear, 4, generator=0)
    A, B = layer.factors
    assert 0.8 / 3 < A.abs().max() < 1 / 3 and 0.8 / 2 < B.abs().max() < 1 / 2
    assert torch.equal(layer.bias, linear.bias) and layer.bias is not linear.bias
    layer = adapters.low_rank_spectral(linear, 4)
    torch.testing.assert_close(layer.weight, low_rank_approximation(linear.weight.detach(), 4))
    s_A, s_B = (torch.linalg.svdvals(W) for W in layer.factors)
    torch.testing.assert_close(s_A, s_B)
    wide = adapters.deep_lora(linear, 7, 1e-2, L=4, generator=0)
    product = reduce(lambda P, W: W @ P, wide.factors)
    torch.testing.assert_close(product @ product.T, 1e-16 * torch.eye(7, **F64))


def broken(linear):
    if linear.out_features == D:
        raise RuntimeError("no adapter here")
    return adapters.lora(linear, 1, 1.0)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (broken, RuntimeError, "no adapter here"),
        (
            lambda linear: linear,
            TypeError,
            "make: wanted an Adapter or LowRank of 'layers",
        ),
        (partial(adapters.lora, r=9, scale=1.0), ValueError, "r: wanted at most 8, got 9"),
    ],
)
def test_a_model_that_cannot_be_adapted_stays_as_it_was(make, error, message):
    model = encoder()
    before = [(n, id(m)) for n, m in model.named_modules()]
    with pytest.raises(error, match="^" + re.escape(message)):
        adapters.adapt(model, NAMES[1:], make)
    assert before == [(n, id(m)) for n, m in model.named_modules()]
    assert all(p.requires_grad for p in model.parameters())


def told(model, names, make=None, **more):
    return lambda: adapters.adapt(model, names, make or MAKES["lora"][0], **more)


LINEAR = nn.Linear(4, 3, **F64)
ENCODER, PLAIN = adapted("lora")[0], encoder()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (told(PLAIN, []), ValueError, "names: wanted at least one name of a layer, got none"),
        (
            told(PLAIN, ["linear1", "liner2"]),
            ValueError,
            "names: wanted ends of names of Linear layers, got 'liner2'; the model has linear2, ",
        ),
        (told(PLAIN, "norm1"), ValueError, "names: wanted ends of names of Linear layers, got 'n"),
        (
            told(PLAIN, "query"),
            ValueError,
            "names: wanted ends of names of Linear layers, got 'query'; the model has linear1, lin",
        ),
        (told(ENCODER, "linear1"), ValueError, "names: 'linear1' is adapted already; merge(model)"),
        (told(ENCODER, "linear1.linear"), ValueError, "names: wanted ends of names of Linear lay"),
        (
            told(nn.ReLU(), "a"),
            ValueError,
            "names: wanted ends of names of Linear layers, got 'a'; ",
        ),
        (told(3, "a"), TypeError, "model: wanted Module, got int"),
        (told(PLAIN, None), TypeError, "names: wanted Iterable, got NoneType"),
        (told(PLAIN, "linear1", 3), TypeError, "make: wanted Callable, got int"),
        (
            lambda: adaptive.first_gradients(PLAIN, "linear1", 3),
            TypeError,
            "loss: wanted Callable, got int",
        ),
        (
            told(PLAIN, "linear1", gradients={}),
            ValueError,
            "gradients: wanted one of 'layers.0.linear1', got none",
        ),
        (lambda: adapters.merge(PLAIN), ValueError, "model: wanted a module that holds adapters, "),
        (
            lambda: adapters.parameter_groups(PLAIN, 0.1, 1),
            ValueError,
            "model: wanted one with lay",
        ),
        (
            lambda: adapters.parameter_groups(ENCODER, 0.1, [1, 1, 1]),
            ValueError,
            "ratios: wanted one or L = 2 factors, got 3",
        ),
        (
            lambda: adapters.parameter_groups(ENCODER, 0.0, 1),
            ValueError,
            "eta: wanted eta > 0, got",
        ),
        (lambda: adapters.lora(nn.ReLU(), 1, 1.0), TypeError, "linear: wanted Linear, got ReLU"),
        (lambda: adapters.lora(LINEAR, 1, 0.0), ValueError, "scale: wanted scale > 0, got 0.0"),
        (lambda: adapters.lora(LINEAR, 0, 1.0), ValueError, "r: wanted r >= 1, got 0"),
        (lambda: adapters.deep_lora(LINEAR, 2, 1.0, L=1), ValueError, "L: wanted L >= 2, got 1"),
        (lambda: adapters.deep_lora(LINEAR, 4, 1.0), ValueError, "width: wanted at most 3, got 4"),
        (
            lambda: adapters.lora(LINEAR.to(torch.bfloat16), 1, 1.0),
            TypeError,
            "linear: wanted float32 or float64, got torch.bfloat16; see model.float()",
        ),
        (
            lambda: adapters.lora(nn.LazyLinear(3), 1, 1.0),
            ValueError,
            "linear: wanted a weight that is a parameter, got one yet to be computed",
        ),
        (
            lambda: adapters.Adapter(nn.Linear(4, 3, **F64), [randn(2, 4), randn(2, 2)]),
            ValueError,
            "factors: wanted a product (3, 4), got (2, 4)",
        ),
        (
            lambda: adapters.Adapter(nn.Linear(4, 3), [randn(2, 4), randn(3, 2)]),
            ValueError,
            "factors: wanted torch.float32 on cpu as linear, got torch.float64 on cpu",
        ),
        (
            lambda: adapters.Adapter(nn.Linear(4, 3, **F64), [randn(2, 4), randn(3), randn(3, 2)]),
            ValueError,
            "factors[1]: wanted 2 columns to follow factors[0] of shape (2, 4), got shape (3, 3)",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


def test_a_copy_of_an_adapted_model_is_its_own():
    model, _ = adapted("lora")
    other = copy.deepcopy(model)
    adapters.merge(other)
    assert isinstance(model.layers[0].linear1, adapters.Adapter)
