"""Time a step of training with adapters: our LoRA, that of peft, and the whole network.

A stack of transformer blocks in single precision. Every Linear layer of a block is adapted, rank 8,
and trained by AdamW. A step is forward, backward and the optimiser's; bytes are those that torch
holds at the peak of a step, with the weights, gradients and the optimiser's state.
"""

import copy
from functools import partial

import torch
from common import agree, arguments, interleaved, record, show
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from lop_utils import adapters, adaptive

R, ALPHA, ETA = 8, 16, 1e-4
NAMES = ["query", "key", "value", "out", "up", "down"]


class Block(nn.Module):
    """A block as in most transformers: attention, then two layers, both added to what came in."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x):
        z = self.norm_1(x)
        q, k, v = (
            each(z).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


def peft_or_none():
    """Return peft, or None where it is not installed."""
    try:
        import peft
    except ImportError:
        return None
    return peft


def models(d, blocks, x):
    """Return a model for each contender, all with the weights of the first."""
    torch.manual_seed(0)
    start, found = nn.Sequential(*(Block(d, d // 32) for _ in range(blocks))), {}
    make = partial(adapters.lora, r=R, scale=ALPHA / R)
    adapters.adapt(ours := copy.deepcopy(start), NAMES, make, generator=0)
    found["LoRA"] = ours
    if peft := peft_or_none():
        config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=NAMES)
        theirs = found["LoRA of peft"] = peft.get_peft_model(copy.deepcopy(start), config)
        inside = theirs.base_model.model
        for name, layer in ours.named_modules():
            if isinstance(layer, adapters.Adapter):
                other = inside.get_submodule(name)
                for kind, W in zip(("lora_A", "lora_B"), layer.factors, strict=True):
                    getattr(other, kind)["default"].weight.data.copy_(W.data)
    deep = found["Deep LoRA"] = copy.deepcopy(start)
    G = adaptive.first_gradients(deep, NAMES, lambda model: model(x).square().mean())
    make = partial(adaptive.deep_lora_compressed, k=R, eps=1e-3)
    adapters.adapt(deep, NAMES, make, gradients=G, generator=0)
    return found | {"full": start}


def stepper(model, x):
    """Return a step of training, and what it trains."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=ETA)

    def step():
        optimiser.zero_grad()
        value = model(x).square().mean()
        value.backward()
        optimiser.step()
        return value.detach()

    return step, trained


def peak_bytes(step, model, device):
    """Return the most bytes that torch holds during a step, counting what lies there before."""
    model.zero_grad()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    held = sum(t.nbytes for t in {*model.parameters(), *model.buffers()})
    held += 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)  # AdamW's averages
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    now, most = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return held + most


def main():
    """Run the benchmark and record its table."""
    more = {"device": {"default": "cpu", "choices": ["cpu", "cuda"]}}
    options = arguments(__doc__.splitlines()[0], **more)
    if options.device == "cuda" and not torch.cuda.is_available():
        return print("not run: this machine has no CUDA device")
    d, blocks, batch, length = (32, 1, 2, 8) if options.quick else (256, 2, 8, 64)
    x = torch.randn(batch, length, d, generator=torch.Generator().manual_seed(0))
    x = x.to(options.device)
    contenders = {name: model.to(options.device) for name, model in models(d, blocks, x).items()}
    steps = {name: stepper(model, x) for name, model in contenders.items()}
    first = {name: [step() for _ in range(3)] for name, (step, _) in steps.items()}
    if "LoRA of peft" in first:
        agree("LoRA and that of peft", first["LoRA"], first["LoRA of peft"], rtol=1e-5)
    else:
        print("peft is not installed; compared with training everything alone")
    sync = torch.cuda.synchronize if options.device == "cuda" else None
    seconds = 0.1 if options.quick else 60.0
    taken = interleaved({name: step for name, (step, _) in steps.items()}, seconds, sync=sync)
    ours, rows = taken["LoRA"], []
    for name, (step, trained) in steps.items():
        median, minimum = taken[name]
        count = sum(p.numel() for p in trained)
        peak = peak_bytes(step, contenders[name], options.device) / 2**20
        row = [name, count, 1e3 * median, 1e3 * minimum]
        rows.append([*row, median / ours.median, minimum / ours.minimum, peak])
    columns = ["trained by", "numbers", "ms a step", "shortest ms"]
    columns += ["of our LoRA", "of the shortest", "peak MiB"]
    show(columns, rows)
    if not options.quick:
        sizes = {"d": d, "blocks": blocks, "batch": batch, "length": length, "r": R}
        peft = peft_or_none()
        sizes["peft"] = peft.__version__ if peft else None
        name = "adapters" if options.device == "cpu" else "adapters-cuda"
        record(name, {**sizes, "columns": columns, "rows": rows}, device=options.device)


if __name__ == "__main__":
    main()
