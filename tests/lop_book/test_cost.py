"""The cost model: its arithmetic by hand, and what torch computes and allocates in a step."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lop_utils import factored, losses
from lop_utils.book import cost
from lop_utils.observed import ObservedEntries

MACHINE = cost.Machine(overhead=1e-6, rate=1e10, bandwidth=1e9, thin=1e9, fetch=1e-8)
BILLION = dict(n=10**9, d_y=10**6, d_x=10**5, k=40, L=3)


def test_seconds_add_up():
    work = cost.Work(calls=1e6, flops=2e10, bytes=3e9, thin=4e9, fetches=5e8)
    for name, expected in zip(work._fields, (1, 2, 3, 4, 5), strict=True):
        alone = cost.Work(0)._replace(**{name: getattr(work, name)})
        assert cost.seconds(alone, MACHINE) == pytest.approx(expected, rel=1e-14)
    assert cost.seconds(work, MACHINE) == pytest.approx(15, rel=1e-14)


# What torch computes and allocates


def narrow(d_y, d_x, k, L):
    return [(k, d_x), *[(k, k)] * (L - 2), (d_y, k)]


def trained(loss, shapes, dtype=torch.float64):
    Ws = [torch.full(shape, 0.01, dtype=dtype) for shape in shapes]
    return [W - 0.1 * G for W, G in zip(Ws, loss(Ws).grads, strict=True)]


def dense_step(shapes, dtype=torch.float64):
    target = torch.ones(shapes[-1][0], shapes[0][1], dtype=dtype)
    return trained(losses.squared_error(target), shapes, dtype)


def flops(shapes):
    """Return the operations of all products of matrices that torch makes in a step."""
    with FlopCounterMode(display=False) as counted:
        dense_step(shapes)
    return counted.get_total_flops()


def allocated(function):
    """Return a result, the most bytes that torch held at a time, and those it held at the end."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        result = function()
    events = found.profiler.kineto_results.events()
    began = "start_ns" if hasattr(events[0], "start_ns") else "start_us"  # before torch 2.3
    now = most = 0
    for event in sorted(events, key=lambda event: getattr(event, began)()):
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now)
    return result, most, now


def test_the_profiler_sees_what_is_allocated():
    result, most, now = allocated(lambda: torch.ones(100).double() + 1)
    assert result.nbytes == now < most


@pytest.mark.parametrize("L", [1, 2, 3, 5])
def test_a_full_step(L):
    d, shapes = 100, [(100, 100)] * L
    assert cost.full_step(d, L).flops == cost.core_step(d, L).flops == flops(shapes)
    for dtype in (torch.float64, torch.float32):
        model = cost.full_bytes(d, L, size=dtype.itemsize)
        assert allocated(lambda d=dtype: dense_step(shapes, d))[1] == pytest.approx(model, rel=1e-3)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(200, 150, 5), (150, 200, 20), (150, 150, 3)])
def test_a_thin_step(d_y, d_x, k, L):
    sizes, shapes = (d_y, d_x, k, L), narrow(d_y, d_x, k, L)
    counted, model = flops(shapes), cost.dense_step(*sizes).thin
    # Up to the k x k products of the inner layers, which the model counts for all of them.
    assert counted <= model <= counted + (6 * (L - 1) * k**3 if L > 2 else 0)
    assert counted >= 6 * d_y * d_x * k
    assert cost.parameters(*sizes) == sum(m * n for m, n in shapes)
    for dtype in (torch.float64, torch.float32):
        model = cost.dense_bytes(*sizes, size=dtype.itemsize)
        assert allocated(lambda d=dtype: dense_step(shapes, d))[1] == pytest.approx(model, rel=1e-3)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(
    ("d", "k", "n"), [(2000, 10, 40_000), (1000, 10, 200_000), (800, 40, 4000)]
)
def test_a_sampled_step_within_a_third(d, k, n, L):
    """The places in 64 bits, which the caller has, are the caller's; sorting comes before."""
    place = torch.randperm(d * d, generator=torch.Generator().manual_seed(0))[:n]
    seen = ObservedEntries(place // d, place % d, torch.ones(n).double(), (d, d))
    loss, _, kept = allocated(lambda: factored.of_factors(factored.sampled_loss(seen)))
    _, most, _ = allocated(lambda: trained(loss, narrow(d, d, k, L)))
    kept += seen.values.nbytes + most
    assert kept == pytest.approx(cost.sampled_bytes(n, d, d, k, L), rel=1 / 3)


# How it grows


def test_a_sampled_step_grows_with_the_sample_and_not_with_the_matrix():
    one, twice = (cost.sampled_step(n, 10**4, 10**4, 10, 3) for n in (10**8, 2 * 10**8))
    assert twice.fetches == 2 * one.fetches
    assert twice.bytes == pytest.approx(2 * one.bytes, rel=1e-2)
    wide = cost.sampled_step(10**8, 2 * 10**4, 2 * 10**4, 10, 3)  # four times the cells
    assert cost.seconds(wide, MACHINE) == pytest.approx(cost.seconds(one, MACHINE), rel=1e-2)
    base = cost.sampled_bytes(1000, 100, 80, 5, 3)
    assert cost.sampled_bytes(2000, 100, 80, 5, 3) - base == 1000 * (4 * 8 + 4 * 4)
    assert cost.sampled_bytes(1000, 101, 80, 5, 3) - base == 4 * 5 * 8
    assert cost.sampled_bytes(1000, 100, 80, 5, 4) - base == 4 * 25 * 8


def test_half_the_bytes_in_single_precision():
    for moved in (
        lambda size: cost.full_step(100, 3, size=size).bytes,
        lambda size: cost.dense_step(100, 80, 5, 3, size=size).bytes,
        lambda size: cost.sampled_step(1000, 100, 80, 5, 3, size=size).bytes - 16 * 1000,
        lambda size: cost.sampled_bytes(1000, 100, 80, 5, 3, size=size) - 16 * 1000,
    ):
        assert moved(8) == 2 * moved(4)


def test_a_billion_entries():
    """What one asks before renting machines."""
    work = cost.sampled_step(**BILLION)
    assert cost.seconds(work, MACHINE) == pytest.approx(4 * 10 + 64 + work.thin / 1e9, rel=0.1)
    assert cost.sampled_bytes(**BILLION) < 50e9  # in full, the matrix alone takes 800 GB
    assert cost.message_size(BILLION["d_x"], BILLION["k"]) == 4_000_000 + 1


# The machine


def test_a_machine_is_measured(place):
    machine = cost.calibrate(64, 4, **place.kind)
    assert all(0 < constant < float("inf") for constant in machine)
    assert machine.overhead < 1e-2 and machine.fetch < 1e-4
    assert min(machine.rate, machine.bandwidth, machine.thin) > 1e6


def test_constants_are_what_they_are_called(monkeypatch):
    """With a clock by which every experiment takes a second."""
    monkeypatch.setattr(cost, "_clock", lambda function: function() or 1.0)
    side, k = 20, 3
    machine = cost.calibrate(side, k, dtype=torch.float32)
    assert machine == cost.Machine(
        overhead=1 / 300,
        rate=2 * side**3,
        bandwidth=3 * side**2 * 4,
        thin=6 * side**2 * k,
        fetch=1 / 2**14,
    )


def test_the_clock_takes_the_least(monkeypatch):
    """What else the machine does only ever adds."""
    ticks = iter([0.0, 3.0, 10.0, 11.0, 20.0, 25.0, 30.0, 32.0, 40.0, 44.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    assert cost._clock(lambda: None) == 1.0


@pytest.mark.parametrize("name", ["side", "k", "rows"])
def test_sizes_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name}: wanted {name} >= 1, got 0$"):
        cost.calibrate(**{"side": 4, "k": 2, name: 0})


def test_sizes_of_numpy_do_not_overflow():
    assert cost.full_step(np.int64(10**7), 3).flops == 12 * 10**21
