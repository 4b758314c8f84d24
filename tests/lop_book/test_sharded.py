"""Rows spread over processes: the same training, and only small messages."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lop_utils import descent, factored, init
from lop_utils.book import sharded
from lop_utils.observed import ObservedEntries

F64 = {"dtype": torch.float64}
PATTERNS = {
    "even": lambda g: torch.arange(20).repeat(3),
    "random": lambda g: torch.randint(20, (60,), generator=g),
    "steep": lambda g: (20 * torch.rand(60, generator=g) ** 6).long(),
    "few": lambda g: torch.randint(20, (3,), generator=g),
    "ends": lambda g: torch.tensor([0] * 30 + [19] * 30),
    "none-in-the-first-half": lambda g: torch.randint(10, 20, (60,), generator=g),
    "one": lambda g: torch.tensor([13]),
}


def sample(rows, generator):
    """Draw values at the given rows of 20, one column after the other."""
    rows = rows.sort().values
    cols = torch.cat([torch.arange(n) for n in torch.bincount(rows).tolist()])
    return ObservedEntries(rows, cols, torch.randn(len(rows), generator=generator), (20, 60))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_blocks_follow_one_another_and_each_has_entries(pattern, generator):
    for _ in range(5):
        seen = sample(PATTERNS[pattern](generator), generator)
        counts = torch.bincount(seen.rows, minlength=20)
        present = (counts > 0).sum().item()
        for parts in {1, 2, 3, 7, 19, 20, present}:
            if parts > present:
                message = f"parts: wanted at most {present} blocks, the rows with entries, got "
                with pytest.raises(ValueError, match=f"^{message}{parts}"):
                    sharded.row_blocks(seen, parts)
                continue
            blocks = sharded.row_blocks(seen, parts)
            assert len(blocks) == parts and blocks[0][0] == 0 and blocks[-1][1] == 20
            assert all(before[1] == after[0] for before, after in pairwise(blocks))
            shards = [sharded.rows_between(seen, block) for block in blocks]
            assert [part.shape for part in shards] == [(b - a, 60) for a, b in blocks]
            tops = [part.rows + a for part, (a, _) in zip(shards, blocks, strict=True)]
            assert torch.equal(torch.cat(tops), seen.rows)
            for name in ("cols", "values"):
                together = torch.cat([getattr(part, name) for part in shards])
                assert torch.equal(together, getattr(seen, name))
            if pattern in ("even", "random") and parts <= 7:
                # A row is never cut, and each block but the last takes the row at its end.
                most = max(len(part) for part in shards)
                assert most < len(seen) / parts + counts.max().item()


def test_blocks_of_unequal_height():
    rows, cols = [0, 0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 0, 0, 0, 0]
    seen = ObservedEntries(rows, cols, [1.0] * 8, (5, 4))
    assert sharded.row_blocks(seen, 2) == [(0, 1), (1, 5)]
    assert sharded.row_blocks(seen, 3) == [(0, 1), (1, 3), (3, 5)]
    for parts, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match=r"^parts: wanted "):
            sharded.row_blocks(seen, parts)


def test_losses_of_blocks_add_up(generator):
    seen = sample(torch.randint(20, (60,), generator=generator), generator)
    P, Q = torch.randn(20, 3, generator=generator), torch.randn(3, 60, generator=generator)
    value, (PtR, RQt) = factored.dense_loss(seen)([Q, P])
    parts = [
        factored.gathered_loss(sharded.rows_between(seen, block))([Q, P[slice(*block)]])
        for block in sharded.row_blocks(seen, 3)
    ]
    assert abs(sum(part.value for part in parts) - value) < 1e-4
    assert (torch.cat([part.grads[1] for part in parts]) - RQt).abs().max() < 1e-5
    assert (sum(part.grads[0] for part in parts) - PtR).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ((-1, 2), "wanted rows of 0 to 5, got (-1, 2)"),
        ((2, 2), "wanted rows of 0 to 5, got (2, 2)"),
        ((3, 6), "wanted rows of 0 to 5, got (3, 6)"),
        ((1, 4), "wanted rows with entries, got none in rows 1 to 3"),
    ],
)
def test_a_block_is_refused(block, message):
    seen = ObservedEntries([0, 4], [0, 0], [1.0, 2.0], (5, 4))
    with pytest.raises(ValueError, match="^block: " + re.escape(message)):
        sharded.rows_between(seen, block)


def test_without_a_process_group_nothing_is_summed():
    for call in (sharded.summed_loss, sharded.gather_rows):
        with pytest.raises(RuntimeError, match=r"^group: wanted torch\.distributed initialised, "):
            call(torch.ones(2, 1))


# Two processes

SHAPE, K, L, STEPS, RATES = (31, 24), 4, 3, 50, (0.15, 0.05, 0.15)

SCRIPT = """
import sys
from datetime import timedelta

import torch
from torch import distributed

from lop_utils import descent, factored, init
from lop_utils.book import sharded
from lop_utils.observed import ObservedEntries

torch.set_num_threads(1)
given, found = sys.argv[1:]
problem = torch.load(given)
distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
rank, size = distributed.get_rank(), distributed.get_world_size()

sent, all_reduce = [], distributed.all_reduce


def counted(message, **kwargs):
    sent.append(message.numel())
    return all_reduce(message, **kwargs)


distributed.all_reduce = counted

seen = ObservedEntries(*problem["observed"])
block = sharded.row_blocks(seen, size)[rank]
part = sharded.rows_between(seen, block)
loss = sharded.summed_loss(factored.fastest_loss(part, problem["Q"].shape[0]))
start, s = init._sampled_spectral(
    loss, problem["P"][slice(*block)], problem["Q"], problem["L"], 0.3
)
spectral, steps = len(sent), problem["steps"]
run = list(descent.train(start, factored.of_factors(loss), eta=problem["rates"], steps=steps))
Ws = run[-1].Ws
assert len(start[-1]) == block[1] - block[0]
first = torch.cat([W.flatten() for W in Ws[:-1]])
copies = [torch.empty_like(first) for _ in range(size)]
distributed.all_gather(copies, first)
result = {
    "blocks": [block[1] - block[0], SHAPE - block[1] + block[0]],
    "size": size,
    "s": s,
    "start": [*start[:-1], sharded.gather_rows(start[-1])],
    "Ws": [*Ws[:-1], sharded.gather_rows(Ws[-1])],
    "loss": [it.loss.item() for it in run],
    "apart": max((copy - first).abs().max().item() for copy in copies),
    "sent": sent,
    "spectral": spectral,
}
if rank == 0:
    torch.save(result, found)
distributed.barrier()  # else torch 2.2 never comes back from the next line
distributed.destroy_process_group()
""".replace("SHAPE", str(SHAPE[0]))


def two_processes(folder, problem):
    """Run the script in two processes that talk over the loopback address alone."""
    script, given, found = (folder / name for name in ("run.py", "given.pt", "found.pt"))
    script.write_text(SCRIPT)
    torch.save(problem, given)
    # The package under test, one thread each, and no network but the loopback.
    surroundings = {"PYTHONPATH": str(Path(sharded.__file__).parents[1])}
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    surroundings |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    # What --standalone means, but by number: torch 2.2 asks for the machine's name and waits.
    launch = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d"]
    launch += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    result = subprocess.run(
        [*launch, "--nproc-per-node", "2", str(script), str(given), str(found)],
        env=os.environ | surroundings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return torch.load(found)


@pytest.mark.skipif(os.name == "nt", reason="no loopback interface could be named to gloo")
def test_two_processes_train_as_one_and_exchange_one_small_message_a_step(tmp_path, generator):
    d_y, d_x = SHAPE
    U, V = (torch.randn(d, 2, generator=generator, **F64) for d in SHAPE)
    # Rows with more and more entries, so that the blocks differ in height.
    observed = torch.rand(d_y, d_x, generator=generator) < torch.linspace(0.1, 1, d_y)[:, None]
    rows, cols = observed.nonzero().T
    problem = {
        "observed": (rows, cols, (U @ V.T)[rows, cols] / 20, SHAPE),
        "P": torch.zeros(d_y, K, **F64),
        "Q": torch.randn(K, d_x, generator=generator, **F64),
        "L": L,
        "steps": STEPS,
        "rates": RATES,
    }
    two = two_processes(tmp_path, problem)
    assert two["size"] == 2 and two["blocks"][0] != two["blocks"][1]
    loss = factored.fastest_loss(ObservedEntries(*problem["observed"]), K)
    start, s = init._sampled_spectral(loss, problem["P"], problem["Q"], L, 0.3)
    # From the same start: the sign of a pair of singular vectors hangs on rounding.
    signs = (two["start"][0] * start[0]).sum(1).sign()
    expected = [signs[:, None] * start[0], *start[1:-1], start[-1] * signs]
    assert (two["s"] / s - 1).abs().max() < 1e-12
    one = list(descent.train(two["start"], factored.of_factors(loss), eta=RATES, steps=STEPS))
    assert one[-1].loss < 0.1 * one[0].loss  # it has learned
    assert two["loss"] == pytest.approx([it.loss.item() for it in one], rel=1e-12)
    for found, wanted in ((two["start"], expected), (two["Ws"], one[-1].Ws)):
        for W, E in zip(found, wanted, strict=True):
            assert W.shape == E.shape and (W - E).abs().max() < 1e-12 * E.abs().max()
    assert two["apart"] == 0.0  # every process has the same small layers
    assert two["spectral"] == 2 * 20  # both products of each round
    assert two["sent"] == [1 + K * d_x] * (2 * 20 + STEPS + 1)
