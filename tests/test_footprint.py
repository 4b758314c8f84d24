"""What a step holds, against what torch allocates."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lop_utils import dln, factored, footprint, losses, sampling


def test_half_the_bytes_in_single_precision():
    for held in (
        lambda size: footprint.sampled(1000, 100, 80, 5, 3, size=size) - 16 * 1000,
        lambda size: footprint.full(100, 3, size=size),
        lambda size: footprint.dense(100, 80, 5, 3, size=size),
    ):
        assert held(8) == 2 * held(4)


def test_a_billion_entries():
    """Bytes to hold, numbers to send."""
    billion = dict(n=10**9, d_y=10**6, d_x=10**5, k=40, L=3)
    assert footprint.sampled(**billion) < 50e9  # in full, the matrix alone takes 800 GB
    assert footprint.exchanged(billion["d_x"], billion["k"]) == 4_000_000 + 1


def test_memory_is_that_of_the_sample_and_of_the_factors():
    base = footprint.sampled(1000, 100, 80, 5, 3)
    assert footprint.sampled(2000, 100, 80, 5, 3) - base == 1000 * (4 * 8 + 4 * 4)
    assert footprint.sampled(1000, 101, 80, 5, 3) - base == 4 * 5 * 8
    assert footprint.sampled(1000, 100, 80, 5, 4) - base == 4 * 25 * 8


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


def trained(shapes, residual, gradients=dln.gradients, **kind):
    Ws = [torch.full(shape, 0.01, **kind) for shape in shapes]
    _, grads = gradients(Ws, residual)
    return [W - 0.1 * G for W, G in zip(Ws, grads, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("L", [1, 2, 3, 5])
def test_a_full_step_holds_what_torch_allocates(L, dtype):
    def step():
        residual = losses.matrix_residual(torch.ones(100, 100, dtype=dtype))
        return trained([(100, 100)] * L, residual, dtype=dtype)

    assert peak(step) == pytest.approx(footprint.full(100, L, size=dtype.itemsize), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(200, 150, 5), (150, 200, 20)])
def test_a_thin_step_holds_what_torch_allocates(d_y, d_x, k, L, dtype):
    def step():
        residual = losses.matrix_residual(torch.ones(d_y, d_x, dtype=dtype))
        return trained([(k, d_x), *[(k, k)] * (L - 2), (d_y, k)], residual, dtype=dtype)

    model = footprint.dense(d_y, d_x, k, L, size=dtype.itemsize)
    assert peak(step) == pytest.approx(model, rel=1e-3)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(
    ("d", "k", "n"), [(2000, 10, 40_000), (1000, 10, 200_000), (800, 40, 4000)]
)
def test_a_sampled_step_holds_what_torch_allocates_within_a_third(d, k, n, L):
    """The places in 64 bits, which the caller has, are the caller's; sorting comes before."""
    place = torch.randperm(d * d, generator=torch.Generator().manual_seed(0))[:n]
    obs = sampling.observe(place // d, place % d, torch.ones(n).double(), (d, d))
    form = factored.sampled_residual(obs)
    shapes = [(k, d), *[(k, k)] * (L - 2), (d, k)]
    step = peak(lambda: trained(shapes, form, factored.contracted_gradients, dtype=torch.float64))
    kept = sum(tensor.nbytes for tensor in held_by(form))
    assert kept + step == pytest.approx(footprint.sampled(n, d, d, k, L), rel=1 / 3)


def held_by(function):
    """Return the tensors that a function keeps, those of the functions that it calls included."""
    found, left, seen = {}, [function], set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, sampling.Observations):
            left.append(value.values)
        elif isinstance(value, torch.Tensor):
            found[value.data_ptr()] = value
        elif callable(value) and getattr(value, "__closure__", None):
            left += [cell.cell_contents for cell in value.__closure__]
    return found.values()


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize(("d_y", "d_x", "k"), [(7, 7, 7), (50, 40, 3)])
def test_parameters_are_those_of_a_network(d_y, d_x, k, L):
    dims = (d_x, *[k] * (L - 1), d_y)
    Ws = dln.orthogonal_init(dims, 1.0)
    assert footprint.parameters(d_y, d_x, k, L) == sum(W.numel() for W in Ws)
