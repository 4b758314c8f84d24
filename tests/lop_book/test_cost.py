"""The cost model: its arithmetic by hand, and what torch computes and allocates in a step."""

import re

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lop_utils import factored, init, losses
from lop_utils.book import cost
from lop_utils.observed import ObservedEntries

MACHINE = cost.Machine(overhead=1e-6, rate=1e10, bandwidth=1e9, thin=1e9, fetch=1e-8)
BILLION = dict(n=10**9, d_y=10**6, d_x=10**5, k=40, L=3)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (cost.Work(3), 3e-6),
        (cost.Work(0, flops=2e10), 2.0),
        (cost.Work(0, bytes=5e9), 5.0),
        (cost.Work(0, thin=3e9), 3.0),
        (cost.Work(0, fetches=4e8), 4.0),
        (cost.Work(1e6, 1e10, 1e9, 1e9, 1e8), 5.0),
    ],
)
def test_seconds_add_up(work, expected):
    assert cost.seconds(work, MACHINE) == pytest.approx(expected, rel=1e-14)


# What torch computes and allocates


def narrow(d_y, d_x, k, L, **kind):
    shapes = [(k, d_x), *[(k, k)] * (L - 2), (d_y, k)]
    return [torch.full(shape, 0.01, **kind) for shape in shapes]


def flops(Ws):
    """Return the operations of all products of matrices that torch makes in a step."""
    loss = losses.squared_error(torch.ones(len(Ws[-1]), Ws[0].shape[1]))
    with FlopCounterMode(display=False) as counted:
        loss(Ws)
    return counted.get_total_flops()


@pytest.mark.parametrize("L", [1, 2, 3, 5])
def test_the_operations_of_a_full_step(L):
    d = 7
    assert cost.full_step(d, L).flops == flops([torch.ones(d, d)] * L)
    assert cost.core_step(d, L) == cost.full_step(d, L)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(50, 50, 3), (40, 60, 4), (60, 40, 4)])
def test_the_operations_of_a_thin_step(d_y, d_x, k, L):
    """Up to the k x k products of the inner layers, which the model counts for all of them."""
    counted, model = flops(narrow(d_y, d_x, k, L)), cost.dense_step(d_y, d_x, k, L).thin
    assert counted <= model <= counted + (6 * (L - 1) * k**3 if L > 2 else 0)
    assert counted >= 6 * d_y * d_x * k


def peak(step):
    """Return the most bytes that a function held at a time, of what torch allocated in it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = step()
    events = found.profiler.kineto_results.events()
    began = "start_ns" if hasattr(events[0], "start_ns") else "start_us"  # before torch 2.3
    now = most = 0
    for event in sorted(events, key=lambda event: getattr(event, began)()):
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now)
    assert now >= sum(tensor.nbytes for tensor in kept)  # the profiler saw them come
    return most


def trained(Ws, loss):
    _, grads = loss(Ws)
    return [W - 0.1 * G for W, G in zip(Ws, grads, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("L", [1, 2, 3, 5])
def test_a_full_step_holds_what_torch_allocates(L, dtype):
    def step():
        loss = losses.squared_error(torch.ones(100, 100, dtype=dtype))
        return trained([torch.full((100, 100), 0.01, dtype=dtype) for _ in range(L)], loss)

    assert peak(step) == pytest.approx(cost.full_bytes(100, L, size=dtype.itemsize), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(200, 150, 5), (150, 200, 20)])
def test_a_thin_step_holds_what_torch_allocates(d_y, d_x, k, L, dtype):
    def step():
        loss = losses.squared_error(torch.ones(d_y, d_x, dtype=dtype))
        return trained(narrow(d_y, d_x, k, L, dtype=dtype), loss)

    model = cost.dense_bytes(d_y, d_x, k, L, size=dtype.itemsize)
    assert peak(step) == pytest.approx(model, rel=1e-3)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(
    ("d", "k", "n"), [(2000, 10, 40_000), (1000, 10, 200_000), (800, 40, 4000)]
)
def test_a_sampled_step_holds_what_torch_allocates_within_a_third(d, k, n, L):
    """The places in 64 bits, which the caller has, are the caller's; sorting comes before."""
    place = torch.randperm(d * d, generator=torch.Generator().manual_seed(0))[:n]
    seen = ObservedEntries(place // d, place % d, torch.ones(n).double(), (d, d))
    loss = factored.of_factors(factored.sampled_loss(seen))
    step = peak(lambda: trained(narrow(d, d, k, L, dtype=torch.float64), loss))
    kept = sum(tensor.nbytes for tensor in held_by(loss))
    assert kept + step == pytest.approx(cost.sampled_bytes(n, d, d, k, L), rel=1 / 3)


def held_by(function):
    """Return the tensors that a function keeps, those of the functions that it calls included."""
    found, left, seen = {}, [function], set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, ObservedEntries):
            left.append(value.values)
        elif isinstance(value, torch.Tensor):
            found[value.data_ptr()] = value
        elif callable(value) and getattr(value, "__closure__", None):
            left += [cell.cell_contents for cell in value.__closure__]
    return found.values()


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(7, 7, 7), (50, 40, 3)])
def test_parameters_are_those_of_a_network(d_y, d_x, k, L):
    Ws = init.orthogonal((d_x, *[k] * (L - 1), d_y), 1.0)
    assert cost.parameters(d_y, d_x, k, L) == sum(W.numel() for W in Ws)


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
    for held in (
        lambda size: cost.full_step(100, 3, size=size).bytes,
        lambda size: cost.dense_step(100, 80, 5, 3, size=size).bytes,
        lambda size: cost.sampled_step(1000, 100, 80, 5, 3, size=size).bytes - 16 * 1000,
        lambda size: cost.full_bytes(100, 3, size=size),
        lambda size: cost.dense_bytes(100, 80, 5, 3, size=size),
        lambda size: cost.sampled_bytes(1000, 100, 80, 5, 3, size=size) - 16 * 1000,
    ):
        assert held(8) == 2 * held(4)


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


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (dict(side=0), ValueError, "side: wanted side >= 1, got 0"),
        (dict(side=4, k=2.0), TypeError, "k: wanted a whole number, got 2.0"),
        (dict(side=4, k=2, rows=0), ValueError, "rows: wanted rows >= 1, got 0"),
    ],
)
def test_sizes_are_refused(words, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        cost.calibrate(**words)
