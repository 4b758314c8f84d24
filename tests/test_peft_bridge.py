"""The tuner on two public libraries' models, from the first gradient to what a server loads."""

import copy
import doctest
import importlib.metadata
import os
import re

import pytest
import torch
from torch import nn

os.environ["HF_HUB_OFFLINE"] = "1"
peft = pytest.importorskip("peft", reason="the extra peft is not installed")
transformers = pytest.importorskip("transformers", reason="the extra peft is not installed")

from peft.tuners.lora.conversion import save_as_lora  # noqa: E402

from lop_utils import _peft_tuner, adaptive  # noqa: E402
from lop_utils.peft_bridge import DeepLoraConfig, parameter_groups, prepare  # noqa: E402

# What the two libraries deprecate in one another.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
VIT = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)
BERT = transformers.BertConfig(vocab_size=30, num_labels=3, max_position_embeddings=8, **SIZES)
ATTENTION = 2 * 4  # query, key, value and output of two blocks


def randn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Task:
    """A model of transformers with random weights, saved to a folder and read from there."""

    def __init__(self, kind, folder):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if kind == "vit":
                model = transformers.ViTForImageClassification(VIT)
            else:
                model = transformers.BertForSequenceClassification(BERT)
        model.save_pretrained(folder)
        self.cls, self.folder = type(model), folder
        ids = torch.arange(24).reshape(6, 4)
        self.inputs = (
            {"pixel_values": randn(6, 3, 8, 8, seed=1)} if kind == "vit" else {"input_ids": ids}
        )
        self.y = torch.arange(6) % 3

    def model(self):
        return self.cls.from_pretrained(self.folder).eval()

    def logits(self, model):
        with torch.no_grad():
            return model(**self.inputs).logits

    def loss(self, model):
        return nn.functional.cross_entropy(model(**self.inputs).logits, self.y)

    def wrapped(self, **more):
        config = DeepLoraConfig(**({"r": 4, "task_type": "SEQ_CLS"} | more))
        model = self.model()
        prepare(model, config, self.loss)
        return peft.get_peft_model(model, config).eval()

    def train(self, model, steps=25):
        optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2))
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(model).backward()
            optimizer.step()
        return model


@pytest.fixture(scope="module", params=["vit", "bert"])
def task(request, tmp_path_factory):
    return Task(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def trained(task):
    return task.train(task.wrapped())


def apart(A, B):
    return (A - B).abs().max().item()


def layers(model):
    return {
        name: m for name, m in model.named_modules() if isinstance(m, _peft_tuner.DeepLoraLinear)
    }


def test_every_linear_layer_learns_and_the_frozen_model_stays(task):
    model = task.wrapped()
    found = layers(model)
    # attention, two of the MLP in each block; BERT's pooler; the head trains as a whole
    assert len(found) == ATTENTION + 2 * 2 + ("pooler" in str(model))
    count = sum(4 * (m.in_features + m.out_features) + 3 * 4 * 4 for m in found.values())
    heads = [p for name, p in model.named_parameters() if "modules_to_save" in name]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count + sum(
        p.numel() for p in heads if p.requires_grad
    )
    before, start = task.logits(task.model()), task.logits(model)
    assert 0 < apart(start, before) < 1e-6  # eps^3 U V^T is not zero
    first = task.loss(model).item()
    task.train(model)
    assert task.loss(model).item() < 0.95 * first and apart(task.logits(model), before) > 1e-2
    with model.disable_adapter():
        assert apart(task.logits(model.base_model.model), task.logits(model)) == 0


def test_saved_and_loaded(task, trained, tmp_path):
    trained.save_pretrained(tmp_path)
    assert isinstance(peft.PeftConfig.from_pretrained(tmp_path), DeepLoraConfig)
    for more in ({}, {"low_cpu_mem_usage": True}, {"is_trainable": True}):
        again = peft.PeftModel.from_pretrained(task.model(), tmp_path, **more).eval()
        assert apart(task.logits(again), task.logits(trained)) == 0
    task.train(again, steps=1)
    assert apart(task.logits(again), task.logits(trained)) > 0


def test_merged_unmerged_and_unloaded(task, trained):
    expected = task.logits(trained)
    trained.merge_adapter(safe_merge=True)
    assert apart(task.logits(trained), expected) < 1e-5
    trained.unmerge_adapter()
    assert apart(task.logits(trained), expected) < 1e-5
    alone = copy.deepcopy(trained).merge_and_unload()
    assert apart(task.logits(alone), expected) < 1e-5
    assert not [name for name in alone.state_dict() if "deep_lora" in name or "base_layer" in name]


def test_becomes_an_ordinary_lora(task, trained, tmp_path):
    save_as_lora(tmp_path, trained, rank=4)
    assert type(peft.PeftConfig.from_pretrained(tmp_path)) is peft.LoraConfig
    lora = peft.PeftModel.from_pretrained(task.model(), tmp_path).eval()
    ours = layers(trained)
    for name, module in lora.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_delta_weight"):
            assert (
                apart(
                    module.get_delta_weight("default"), ours.pop(name).get_delta_weight("default")
                )
                < 1e-6
            )
    assert not ours


def test_several_adapters_and_frozen_outer_factors(task):
    model = task.wrapped(gamma=0.0)
    config = DeepLoraConfig(r=3, aligned=True, target_modules=["dense", "o_proj", "fc1"])
    prepare(model, config, task.loss)
    model.add_adapter("second", config)
    first = task.logits(model)
    model.set_adapter("second")
    task.train(model, steps=5)
    assert apart(task.logits(model), first) > 1e-4
    model.set_adapter("default")
    assert apart(task.logits(model), first) == 0
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("deep_lora_U" in name or "second" in name for name in trained)
    assert any("deep_lora_core.default" in name for name in trained)
    assert {group["lr"] for group in parameter_groups(model, 0.5)} == {0.5}
    model.delete_adapter("second")
    assert apart(task.logits(model), first) == 0


def small(**more):
    """Return a small model, a configuration, and the gradient of its first layer."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)).requires_grad_(False)
    for p in model.parameters():
        p.copy_(randn(*p.shape, seed=p.numel()))
    config = DeepLoraConfig(**({"r": 2, "target_modules": ["0"]} | more))
    loss = lambda model: model(randn(8, 6, seed=1)).square().mean()  # noqa: E731
    (G,) = adaptive.first_gradients(model, "0", loss).values()
    prepare(model, config, loss)
    return model, config, G


@pytest.mark.parametrize("aligned", [False, True])
def test_the_start_is_that_of_the_library(aligned):
    model, config, G = small(aligned=aligned, num_factors=2, eps=0.1)
    make = adaptive.deep_lora_aligned if aligned else adaptive.deep_lora_compressed
    torch.manual_seed(3)  # what peft's users seed
    expected = make(copy.deepcopy(model[0]), G, 2, 0.1, L=2).delta()
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(model, config)
    (layer,) = layers(wrapped).values()
    assert apart(layer.get_delta_weight("default"), expected) < 1e-7 < expected.abs().max()


def test_a_model_in_half_precision():
    model, config, _ = small(eps=0.5)
    wrapped = peft.get_peft_model(model.bfloat16(), config)
    (layer,) = layers(wrapped).values()
    assert layer.deep_lora_U["default"].dtype == torch.float32
    x = randn(3, 6, seed=2).bfloat16()
    with torch.no_grad():
        out = wrapped(x)
        wrapped.merge_adapter()
        assert out.dtype == wrapped(x).dtype == torch.bfloat16
        assert apart(out, wrapped(x)) < 0.02 * out.abs().max().item()


def wrap(model=None, **more):
    model, config = model or nn.Sequential(nn.Linear(6, 5)), DeepLoraConfig(**more)
    return peft.get_peft_model(model, config)


def quantised():
    model, config, _ = small()
    model = peft.get_peft_model(model, config)
    (layer,) = layers(model).values()
    layer.base_layer.weight.data = layer.base_layer.weight.data.to(torch.int8)
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: DeepLoraConfig(r=3),
            ValueError,
            "r: wanted an even number, or aligned=True, got 3",
        ),
        (lambda: DeepLoraConfig(r=2.5), TypeError, "r: "),
        (lambda: DeepLoraConfig(eps=0), ValueError, "eps: "),
        (lambda: DeepLoraConfig(gamma=-1), ValueError, "gamma: "),
        (lambda: DeepLoraConfig(bias="all"), ValueError, "bias: wanted 'none', got 'all'"),
        (
            lambda: DeepLoraConfig(layers_to_transform=1),
            ValueError,
            "layers_to_transform: wanted a list as target_modules, got a str",
        ),
        (
            lambda: wrap(r=6, target_modules=["0"]),
            ValueError,
            "r: wanted less than 5, the smaller side of 0, got 6",
        ),
        (
            lambda: wrap(nn.Sequential(nn.Embedding(3, 4)), target_modules=["0"]),
            TypeError,
            "0: wanted a Linear layer, got Embedding",
        ),
        (
            lambda: wrap(r=2, target_modules=["0"])(randn(2, 6, seed=0)),
            RuntimeError,
            "'default': wanted a first gradient, or saved weights, found neither; call prepare",
        ),
        (
            lambda: parameter_groups(nn.Linear(2, 2), 0.1),
            ValueError,
            "model: wanted one with a Deep LoRA that is trained, got none in it",
        ),
        (
            lambda: wrap(nn.Sequential(nn.Conv1d(2, 2, 1)), target_modules=["1"]),
            ValueError,
            "This model has no Linear layer.",
        ),
        (lambda: quantised().merge_adapter(), TypeError, "merge: wanted a floating dtype, got"),
        (lambda: prepare(nn.Linear(2, 2), None, None), TypeError, "config: "),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_name_that_matches_nothing_is_answered_with_near_ones(task):
    near = {"quer": "query", "o_pro": "o_proj"}
    config = DeepLoraConfig(target_modules=list(near))
    had = {name.rpartition(".")[2] for name, _ in task.model().named_modules()}
    wanted = "Linear layers of this model are called .*" + next(
        v for v in near.values() if v in had
    )
    for call in (peft.get_peft_model, lambda *given: prepare(*given, task.loss)):
        with pytest.raises(ValueError, match=wanted):
            call(task.model(), config)


@pytest.mark.parametrize("found", ["0.18.1", "0.21.1", "0.23.0", None])
def test_another_version_is_refused_by_name(found, monkeypatch):
    def version(name):
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=rf"wanted peft >= 0.21.2 .* found {found or 'none'}"):
        _peft_tuner._version()


@pytest.mark.parametrize("what", ["CONFIG", "TUNER", "PREFIX"])
def test_the_contract_with_peft(what, monkeypatch):
    monkeypatch.delattr(peft.mapping, f"PEFT_TYPE_TO_{what}_MAPPING")
    with pytest.raises(ImportError, match=rf"wanted its table .*_TO_{what}_MAPPING, found none"):
        _peft_tuner.register(DeepLoraConfig)


def test_examples():
    from lop_utils import peft_bridge

    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    tested = doctest.testmod(peft_bridge, optionflags=flags)
    assert tested.attempted > 10 and not tested.failed
