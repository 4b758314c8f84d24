"""Rows spread over processes: the same training, and only small messages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lop_utils import compression, factored, sampling, sharded

F64 = {"dtype": torch.float64}


def observed(rows, shape, generator):
    """Draw values at the given rows, one column after the other."""
    rows = torch.as_tensor(rows)
    cols = torch.cat([torch.arange(n) for n in torch.bincount(rows).tolist()])
    values = torch.randn(len(rows), generator=generator, **F64)
    return sampling.observe(rows.sort().values, cols, values, shape)


PATTERNS = {
    "even": lambda g: torch.arange(20).repeat(3),
    "random": lambda g: torch.randint(20, (60,), generator=g),
    "few": lambda g: torch.randint(20, (3,), generator=g),
    "steep": lambda g: (20 * torch.rand(60, generator=g) ** 6).long(),
    "all-in-the-first-row": lambda g: torch.zeros(60, dtype=torch.long),
    "all-in-the-last-row": lambda g: torch.full((60,), 19),
    "all-in-one-row": lambda g: torch.full((60,), 7),
    "none-in-the-first-half": lambda g: torch.randint(10, 20, (60,), generator=g),
    "one": lambda g: torch.tensor([13]),
}


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 19, 20])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_blocks_follow_one_another_and_are_never_empty(pattern, parts, generator):
    for _ in range(5):
        obs = observed(pattern(generator), (20, 60), generator)
        blocks = sharded.row_blocks(obs, parts)
        assert len(blocks) == parts and all(top < bottom for top, bottom in blocks)
        assert blocks[0][0] == 0 and blocks[-1][1] == 20
        assert [top for top, _ in blocks[1:]] == [bottom for _, bottom in blocks[:-1]]


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("pattern", ["even", "random", "steep"])
def test_blocks_hold_about_as_many_entries(pattern, parts, generator):
    for _ in range(5):
        rows = PATTERNS[pattern](generator)
        obs = observed(rows, (20, 60), generator)
        counts = torch.bincount(obs.rows, minlength=20)
        for top, bottom in sharded.row_blocks(obs, parts):
            # A row is never cut, and each block but the last takes the row at its end.
            held = counts[top:bottom].sum().item()
            if bottom - top > 1 or pattern == "even":
                assert held < len(rows) / parts + counts.max().item()
    if pattern == "even":
        heights = {bottom - top for top, bottom in sharded.row_blocks(obs, parts)}
        assert max(heights) - min(heights) <= 1


def test_blocks_of_unequal_height():
    obs = sampling.observe([0, 0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 0, 0, 0, 0], [1.0] * 8, (5, 4))
    assert sharded.row_blocks(obs, 2) == [(0, 1), (1, 5)]
    assert sharded.row_blocks(obs, 3) == [(0, 1), (1, 3), (3, 5)]


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (0, ValueError, "parts: wanted parts >= 1, got 0"),
        (6, ValueError, "parts: wanted at most d_y = 5 blocks of rows, got 6"),
        (2.0, TypeError, "parts: wanted a whole number, got 2.0"),
    ],
)
def test_a_number_of_parts_is_refused(parts, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        sharded.row_blocks(sampling.observe([0], [0], [1.0], (5, 4)), parts)


def test_shards_are_the_whole(generator):
    obs = observed(torch.randint(20, (60,), generator=generator), (20, 60), generator)
    blocks = sharded.row_blocks(obs, 4)
    shards = [sharded.shard(obs, block) for block in blocks]
    assert [part.shape for part in shards] == [(bottom - top, 60) for top, bottom in blocks]
    rows = torch.cat([part.rows + top for part, (top, _) in zip(shards, blocks, strict=True)])
    assert torch.equal(rows, obs.rows)
    assert torch.equal(torch.cat([part.cols for part in shards]), obs.cols)
    assert torch.equal(torch.cat([part.values for part in shards]), obs.values)
    assert all(part.rows.min() >= 0 and part.rows.max() < part.shape[0] for part in shards)


def test_residuals_of_shards_add_up(generator):
    obs = observed(torch.randint(20, (60,), generator=generator), (20, 60), generator)
    P = torch.randn(20, 3, generator=generator, **F64)
    Q = torch.randn(3, 60, generator=generator, **F64)
    expected = factored.dense_residual(obs)(P, Q)
    blocks = sharded.row_blocks(obs, 3)
    parts = [
        factored.gathered_residual(sharded.shard(obs, (top, bottom)))(P[top:bottom], Q)
        for top, bottom in blocks
    ]
    assert (sum(part[0] for part in parts) - expected[0]).abs() < 1e-12
    assert (torch.cat([part[1] for part in parts]) - expected[1]).abs().max() < 1e-12
    assert (sum(part[2] for part in parts) - expected[2]).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ((-1, 2), "block: wanted rows of 0 to 5, got (-1, 2)"),
        ((2, 2), "block: wanted rows of 0 to 5, got (2, 2)"),
        ((3, 2), "block: wanted rows of 0 to 5, got (3, 2)"),
        ((3, 6), "block: wanted rows of 0 to 5, got (3, 6)"),
        ((1, 4), "block: wanted rows with entries, got none in rows 1 to 3"),
    ],
)
def test_a_block_is_refused(block, message):
    obs = sampling.observe([0, 4], [0, 0], [1.0, 2.0], (5, 4))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        sharded.shard(obs, block)


def test_without_a_process_group_nothing_is_summed():
    message = r"^group: wanted torch\.distributed initialised, got no process group"
    with pytest.raises(RuntimeError, match=message):
        sharded.summed_residual(lambda P, Q: None)
    with pytest.raises(RuntimeError, match=message):
        sharded.gather_rows(torch.ones(2, 1))


# Two processes

SHAPE, K, L, STEPS = (31, 24), 4, 3, 50
RATES = (0.15, 0.05, 0.15)

SCRIPT = """
import sys
from datetime import timedelta

import torch
from torch import distributed

from lop_utils import compression, factored, sampling, sharded

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

obs = sampling.observe(*problem["observed"])
block = sharded.row_blocks(obs, size)[rank]
part = sharded.shard(obs, block)
residual = sharded.summed_residual(factored.fastest_residual(part, problem["Q"].shape[0]))
start = compression.sampled_spectral_init(
    residual, problem["P"][slice(*block)], problem["Q"], problem["L"], 0.3
)
spectral_messages = sent.copy()
sent.clear()
Ws, history = start.Ws, []
for _ in range(problem["steps"]):
    loss, grads = factored.contracted_gradients(Ws, residual)
    history.append(loss.item())
    Ws = [W - rate * G for W, G, rate in zip(Ws, grads, problem["rates"], strict=True)]

assert len(start.Ws[-1]) == block[1] - block[0]
first = torch.cat([W.flatten() for W in Ws[:-1]])
copies = [torch.empty_like(first) for _ in range(size)]
distributed.all_gather(copies, first)
result = {
    "block": block,
    "size": size,
    "s": start.s,
    "start": [*start.Ws[:-1], sharded.gather_rows(start.Ws[-1])],
    "Ws": [*Ws[:-1], sharded.gather_rows(Ws[-1])],
    "loss": history,
    "apart": max((copy - first).abs().max().item() for copy in copies),
    "sent": sent,
    "spectral": spectral_messages,
}
if rank == 0:
    torch.save(result, found)
distributed.barrier()  # else torch 2.2 never comes back from the next line
distributed.destroy_process_group()
"""


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
    launch += ["--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, str(script), str(given), str(found)],
        env=os.environ | surroundings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return torch.load(found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train in one process and in two, from the same random matrix."""
    if os.name == "nt":
        pytest.skip("Windows has no loopback interface that could be named to gloo")
    generator = torch.Generator().manual_seed(0)
    d_y, d_x = SHAPE
    U, V = (torch.randn(d, 2, generator=generator, **F64) for d in SHAPE)
    # Rows with more and more entries, so that the blocks differ in height.
    seen = torch.rand(d_y, d_x, generator=generator) < torch.linspace(0.1, 1, d_y)[:, None]
    rows, cols = seen.nonzero().T
    values = (U @ V.T)[rows, cols] / 20
    problem = {
        "observed": (rows, cols, values, SHAPE),
        "P": torch.zeros(d_y, K, **F64),
        "Q": torch.randn(K, d_x, generator=generator, **F64),
        "L": L,
        "steps": STEPS,
        "rates": RATES,
    }
    two = two_processes(tmp_path_factory.mktemp("two"), problem)

    obs = sampling.observe(*problem["observed"])
    residual = factored.fastest_residual(obs, K)
    start = compression.sampled_spectral_init(residual, problem["P"], problem["Q"], L, 0.3)
    # From the same start: the sign of a pair of singular vectors hangs on rounding.
    Ws, history = two["start"], []
    for _ in range(STEPS):
        loss, grads = factored.contracted_gradients(Ws, residual)
        history.append(loss.item())
        Ws = [W - rate * G for W, G, rate in zip(Ws, grads, RATES, strict=True)]
    return {"start": start.Ws, "s": start.s, "Ws": Ws, "loss": history}, two


def test_the_blocks_differ_in_height(runs):
    _, two = runs
    top, bottom = two["block"]
    assert two["size"] == 2 and top == 0 and bottom != SHAPE[0] - bottom


def test_two_processes_train_as_one(runs):
    one, two = runs
    assert one["loss"][-1] < 0.1 * one["loss"][0]  # it has learned
    for found, expected in zip(two["loss"], one["loss"], strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
    for W, E in zip(two["Ws"], one["Ws"], strict=True):
        assert W.shape == E.shape and (W - E).abs().max() < 1e-12 * E.abs().max()


def test_two_processes_start_as_one(runs):
    one, two = runs
    assert (two["s"] / one["s"] - 1).abs().max() < 1e-12
    signs = (two["start"][0] * one["start"][0]).sum(1).sign()
    first, *inner, last = one["start"]
    expected = [signs[:, None] * first, *inner, last * signs]
    for W, E in zip(two["start"], expected, strict=True):
        assert W.shape == E.shape and (W - E).abs().max() < 1e-12


def test_every_process_has_the_same_small_layers(runs):
    assert runs[1]["apart"] == 0.0


def test_a_step_exchanges_one_small_message(runs):
    _, two = runs
    assert two["sent"] == [1 + K * SHAPE[1]] * STEPS
    assert set(two["spectral"]) == {1 + K * SHAPE[1]}
    assert len(two["spectral"]) == 2 * 20  # both products of each round
