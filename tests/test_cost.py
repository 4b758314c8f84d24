"""The cost model: its arithmetic by hand, its growth, and its constants against what they name."""

import re

import pytest
import torch

from lop_utils import cost, dln, losses

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


class Products:
    """Count the operations of all products of matrices that torch makes."""

    def __init__(self):
        from torch.utils.flop_counter import FlopCounterMode

        self.mode = FlopCounterMode(display=False)

    def __call__(self, Ws):
        with self.mode:
            dln.gradients(Ws, losses.matrix_residual(torch.ones(len(Ws[-1]), Ws[0].shape[1])))
        return self.mode.get_total_flops()


@pytest.mark.parametrize("L", [1, 2, 3, 5])
def test_the_operations_of_a_full_step_are_those_that_torch_makes(L):
    d = 7
    assert cost.full_step(d, L).flops == Products()([torch.ones(d, d)] * L)
    assert cost.core_step(d, L) == cost.full_step(d, L)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(50, 50, 3), (40, 60, 4), (60, 40, 4)])
def test_the_operations_of_a_thin_step_are_those_that_torch_makes(d_y, d_x, k, L):
    """Up to the k x k products of the inner layers, which the model counts for all of them."""
    counted = Products()([torch.ones(k, d_x), *[torch.ones(k, k)] * (L - 2), torch.ones(d_y, k)])
    model = cost.dense_step(d_y, d_x, k, L).thin
    assert counted <= model <= counted + (6 * (L - 1) * k**3 if L > 2 else 0)
    assert counted >= 6 * d_y * d_x * k


def test_a_sampled_step_grows_with_the_sample_and_not_with_the_matrix():
    one, twice = (cost.sampled_step(n, 10**4, 10**4, 10, 3) for n in (10**8, 2 * 10**8))
    assert twice.fetches == 2 * one.fetches
    assert twice.bytes == pytest.approx(2 * one.bytes, rel=1e-2)
    wide = cost.sampled_step(10**8, 2 * 10**4, 2 * 10**4, 10, 3)  # four times the cells
    assert cost.seconds(wide, MACHINE) == pytest.approx(cost.seconds(one, MACHINE), rel=1e-2)


def test_the_core_does_not_know_the_width():
    quick, slow = cost.core_step(6, 3), cost.full_step(1000, 3)
    assert cost.seconds(slow, MACHINE) > 1e3 * cost.seconds(quick, MACHINE)
    assert cost.seconds(quick, MACHINE) < 1e-4


def test_half_the_bytes_in_single_precision():
    for step in (
        lambda size: cost.full_step(100, 3, size=size).bytes,
        lambda size: cost.dense_step(100, 80, 5, 3, size=size).bytes,
        lambda size: cost.sampled_step(1000, 100, 80, 5, 3, size=size).bytes - 16 * 1000,
    ):
        assert step(8) == 2 * step(4)


def test_a_billion_entries():
    """What one asks before renting machines."""
    work = cost.sampled_step(**BILLION)
    seconds = cost.seconds(work, MACHINE)
    assert seconds == pytest.approx(4 * 10 + 64 + work.thin / 1e9, rel=0.1)


def test_a_machine_is_measured(place):
    kind = place.kind
    machine = cost.calibrate(64, 4, **kind)
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
        (dict(side=2.0), TypeError, "side: wanted a whole number, got 2.0"),
        (dict(side=4, k=0), ValueError, "k: wanted k >= 1, got 0"),
        (dict(side=4, k=2, rows=0), ValueError, "rows: wanted rows >= 1, got 0"),
    ],
)
def test_sizes_are_refused(words, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        cost.calibrate(**words)
