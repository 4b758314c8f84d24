"""Shared by the unit tests: one seeded generator a test, and the places a tensor can be."""

from typing import NamedTuple

import pytest
import torch


class Place(NamedTuple):
    """Keyword arguments of a tensor, and how exact its dtype is."""

    kind: dict
    tolerance: float


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Keep threads out: matrices this small only make them wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(
    params=[
        pytest.param((dtype, device), id=f"{str(dtype).removeprefix('torch.')}-{device}")
        for device in ("cpu", "cuda")
        for dtype in (torch.float64, torch.float32)
    ]
)
def place(request) -> Place:
    """Give each dtype and device on which numbers come back."""
    dtype, device = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return Place({"dtype": dtype, "device": device}, 1e-12 if dtype == torch.float64 else 1e-4)
