"""Shared by the unit tests: one seeded generator a test, and the places a tensor can be.

Where pytest lists the slowest tests, it also sums up the seconds of each file.
"""

from collections import Counter
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


def pytest_terminal_summary(terminalreporter):
    if not terminalreporter.config.option.durations:
        return
    seconds = Counter()
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if hasattr(report, "duration"):
            file = report.nodeid.partition("::")[0]
            seconds[file] += report.duration
            seconds[file.rpartition("/")[0] + "/"] += report.duration
    terminalreporter.section("seconds by folder and file")
    for name, taken in seconds.most_common(40):
        terminalreporter.line(f"{taken:7.1f} s  {name}")
