"""Small tensors are computed on one thread, large ones on all; the caller's setting comes back."""

import pytest
import torch

from lop_utils import _completing, _threads, completion, descent
from lop_utils.book import plots
from lop_utils.losses import Minibatches, least_squares, squared_error
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


RUNS = {  # width, loss, on how many threads it is called
    "small": (2, squared_error(torch.eye(2)), [1] * 7),
    "large-layers": (600, lambda Ws: (Ws[0].sum(), [Ws[0] * 0]), [3] * 7),
    "large-loss": (2, lambda Ws: (torch.ones(600, 600).sum(), [Ws[0] * 0]), [1] + [3] * 7),
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
    assert seen == threads and torch.get_num_threads() == 3


@pytest.mark.parametrize("seed", [3, None])  # None is torch's own generator
def test_a_large_loss_has_the_digits_of_all_threads_from_the_first(seed, monkeypatch):
    def counted(X, Y):  # as if each thread left its mark
        value = least_squares(X, Y)
        return lambda Ws: (value(Ws)[0] + torch.get_num_threads(), value(Ws)[1])

    def trained(start, small):
        monkeypatch.setattr(_threads, "_SMALL", small)
        torch.manual_seed(5)
        loss = Minibatches(counted, torch.randn(2, 9), torch.randn(2, 9), batch=3, generator=seed)
        return list(descent.train(start, loss, eta=0.01, steps=9))

    known = trained([torch.eye(2)], 3)  # by its layers: four numbers
    for start in ([torch.eye(2)], known[3]):
        found = trained(start, 4)
        assert [it.loss for it in found] == [it.loss for it in known[-len(found) :]]


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
    first = completion.complete(
        ObservedEntries(*places, values, (n, 20)), 1, steps=20, finish=False
    )
    completion.resume(first, steps=40)
    assert len(seen) > 5 and set(seen) == {threads} and torch.get_num_threads() == 3


@pytest.mark.parametrize(("scale", "threads"), [("book", 1), ("paper", 3)])
def test_chapters_compute_on_one_thread_but_at_the_papers_scale(scale, threads, monkeypatch):
    monkeypatch.setenv("LOP_SCALE", scale)
    plots.use_style()
    assert torch.get_num_threads() == threads
