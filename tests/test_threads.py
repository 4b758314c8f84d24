"""Small tensors are computed on one thread, large ones on all; the caller's setting comes back."""

import pytest
import torch

from lop_utils import _completing, _threads, completion, descent
from lop_utils.book import plots
from lop_utils.losses import squared_error
from lop_utils.observed import ObservedEntries


@pytest.fixture(autouse=True)
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def noting(function, seen):
    """Return the function; it notes on how many threads it is called."""
    return lambda *given: seen.append(torch.get_num_threads()) or function(*given)


RUNS = {  # width, loss, threads
    "small": (2, squared_error(torch.eye(2)), 1),
    "large-layers": (600, lambda Ws: (Ws[0].sum(), [Ws[0] * 0]), 3),
    "large-loss": (2, lambda Ws: (torch.ones(600, 600).sum(), [Ws[0] * 0]), 3),
}


@pytest.mark.parametrize(("d", "loss", "threads"), RUNS.values(), ids=RUNS)
def test_train_leaves_the_callers_threads(d, loss, threads):
    seen = []
    run = descent.train([torch.eye(d)], noting(loss, seen), eta=0.1, steps=9, every=2)
    for iterate in run:
        assert torch.get_num_threads() == 3
        if iterate.t == 6:
            break
    run.close()
    assert seen == [1] + 6 * [threads] and torch.get_num_threads() == 3


@pytest.mark.parametrize("at", [0, 1])
def test_an_error_leaves_them_too(at):
    def loss(Ws):
        return torch.tensor(1.0 if (calls.append(0) or len(calls)) <= at else float("nan")), Ws

    calls = []
    with pytest.raises(FloatingPointError):
        list(descent.train([torch.eye(2)], loss, eta=0.1, steps=3))
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("n", "threads"), [(20, 1), (400, 3)])
def test_complete_decides_by_its_entries(n, threads, monkeypatch):
    seen = []
    monkeypatch.setattr(_threads, "_SMALL", 2000)
    for name in ("spectral_start", "entries"):
        noted = noting(getattr(_completing, name), seen)
        monkeypatch.setattr(_completing, name, noted)
    places, values = torch.ones(n, 20).nonzero().T, torch.ones(20 * n).double()
    first = completion.complete(ObservedEntries(*places, values, (n, 20)), 1, steps=20)
    completion.resume(first, steps=40)
    assert len(seen) > 5 and set(seen) == {threads} and torch.get_num_threads() == 3


@pytest.mark.parametrize(("scale", "threads"), [("book", 1), ("paper", 3)])
def test_chapters_compute_on_one_thread_but_at_the_papers_scale(scale, threads, monkeypatch):
    monkeypatch.setenv("LOP_SCALE", scale)
    plots.use_style()
    assert torch.get_num_threads() == threads
