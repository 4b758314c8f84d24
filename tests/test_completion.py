"""Completion: what was low-rank comes back, and nothing that was held out is used."""

import re
from dataclasses import replace

import pytest
import torch
from low_rank import low_rank_target

from lop_utils import _completing, completion, compression, descent, losses
from lop_utils.networks import end_to_end
from lop_utils.observed import ObservedEntries

F64 = {"dtype": torch.float64}
SHAPE, RANK = (50, 40), 2


def sample(share=0.4, sigma=(3.0, 2.0), shape=SHAPE, noise=0.0):
    """Draw a low-rank matrix with entries of size 1 and observe a share of it."""
    generator = torch.Generator().manual_seed(0)
    Phi = low_rank_target(*shape, torch.tensor(sigma, **F64), generator=generator)
    Phi /= Phi.square().mean().sqrt()
    rows, cols = (torch.rand(shape, generator=generator) < share).nonzero().T
    values = Phi[rows, cols] + noise * torch.randn(len(rows), generator=generator, **F64)
    return Phi, ObservedEntries(rows, cols, values, shape)


PHI, SEEN = sample()


def complete(seen=SEEN, rank=RANK, **options):
    """Complete by gradient descent alone, unless told otherwise."""
    return completion.complete(seen, rank, **{"progress": False, "finish": False, **options})


def resume(result, steps, **options):
    return completion.resume(result, steps=steps, progress=False, **options)


def whole(result):
    """Predict every entry."""
    return result.predict(*torch.ones(result.shape).nonzero().T).view(result.shape)


def error(result, Phi=PHI):
    return (torch.linalg.norm(whole(result) - Phi) / torch.linalg.norm(Phi)).item()


def same(one, other, *but):
    """Whether two results are the same, digit for digit, but for the seconds."""
    assert one.steps == other.steps and one.best.t == other.best.t
    assert one.best.error == other.best.error and one.stopped == other.stopped
    for A, B in zip((*one.Ws, *one.last.Ws), (*other.Ws, *other.last.Ws), strict=True):
        assert torch.equal(A, B)
    for name in ("t", "train", "held_out", "eta"):
        assert torch.equal(one.history[name].nan_to_num(), other.history[name].nan_to_num())
    return True


# A low-rank matrix comes back


@pytest.mark.parametrize(("L", "bound"), [(2, 5e-3), (3, 1e-5), (4, 1e-4)])
@pytest.mark.parametrize("rank", [RANK, 4], ids=["rank", "overestimated"])
def test_a_low_rank_matrix_comes_back(L, bound, rank):
    # A small start fits exactly; patience is for what leaves it late.
    eps = None if L == 2 else 0.001 ** (1 / (L - 2))
    result = complete(rank=rank, steps=3000, patience=2000, L=L, eps=eps, every=50)
    assert error(result) < bound
    k = 2 * rank
    assert [tuple(W.shape) for W in result.Ws] == [(k, 40), *[(k, k)] * (L - 2), (50, k)]
    assert error(complete(steps=0)) > 0.9 and error(complete(rank=1, width=1, steps=500)) > 0.3


@pytest.mark.parametrize("shape", [(40, 60), (80, 30)], ids=str)
def test_wide_and_tall_matrices_with_the_defaults(shape):
    Phi, seen = sample(sigma=(2.0, 2.0), shape=shape)
    assert error(complete(seen, steps=3000), Phi) < 1e-3


@pytest.mark.parametrize(
    ("dtype", "unit"),
    [(torch.float32, 1e-30), (torch.float32, 1e20), (torch.float32, 1e30), (torch.float64, 1e-20)],
    ids=str,
)
def test_whatever_the_unit_of_the_values(dtype, unit):
    expected = complete(steps=800)
    result = complete(SEEN.with_values((unit * SEEN.values).to(dtype)), steps=800)
    assert {W.dtype for W in (*result.Ws, whole(result))} == {dtype}
    assert (whole(result).double() / unit - whole(expected)).abs().max() < 5e-3
    assert result.history["train"].dtype == result.history["eta"].dtype == torch.float64
    for name in ("train", "held_out"):
        assert result.history[name][:20].allclose(unit * expected.history[name][:20], rtol=1e-2)


# What a result holds


@pytest.fixture(scope="module")
def finished():
    return complete(steps=405, every=20)


def test_history_errors_and_repr(finished):
    history = finished.history
    assert list(history) == ["t", "seconds", "train", "held_out", "eta"]
    assert history["t"].tolist() == [*range(0, 401, 20), 405]
    assert history["t"].dtype == torch.int64 and {len(c) for c in history.values()} == {22}
    assert (history["seconds"].diff() >= 0).all() and 0 <= history["seconds"][0] < 60
    assert (history["train"].diff() <= 0).all()  # a step that raised the loss is taken back
    assert finished.stopped == "steps" and finished.steps == 405 and finished.shape == SHAPE
    # Errors are in the unit of the values, and those of the best layers.
    best = history["held_out"].argmin()
    assert (
        finished.best.t == history["t"][best] and finished.best.error == history["held_out"][best]
    )
    for name, part in (("train", finished.train), ("held_out", finished.test)):
        gap = finished.predict(part.rows, part.cols) - part.values
        assert gap.square().mean().sqrt().item() == pytest.approx(history[name][best].item(), 1e-5)
    shown = f"error {finished.best.error:.4g} after 405 steps, stopped by steps)"
    assert repr(finished) == f"Completion(50 x 40, width 4, depth 3, {shown}"
    assert len(repr(finished)) < 100
    shown = f"Best({finished.best.error:.4g} at step {finished.best.t}, layers "
    assert repr(finished.best) == shown + "4 x 40, 4 x 4, 50 x 4)"


def test_a_tenth_is_held_out(finished):
    assert len(finished.test) == round(0.1 * len(SEEN))
    places = [part.rows * 40 + part.cols for part in (finished.train, finished.test)]
    assert torch.equal(torch.cat(places).sort().values, SEEN.rows * 40 + SEEN.cols)


def test_predictions_are_entries_of_the_product(finished):
    product = end_to_end(finished.Ws)
    assert (whole(finished) - product).abs().max() < 1e-13
    for rows, cols in (([49, 0], [39, 3]), (torch.tensor([49, 0]), torch.tensor([39, 3]).numpy())):
        assert (finished.predict(rows, cols) - product[[49, 0], [39, 3]]).abs().max() < 1e-13
    for rows, cols, message in (
        ([50], [0], "rows: wanted 0 to 49, got 50 to 50"),
        ([0], [-1], "cols: wanted 0 to 39, got -1 to -1"),
        ([0, 1], [0], "cols: wanted 2 as rows, got 1"),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            finished.predict(rows, cols)


@pytest.mark.parametrize("L", [2, 3])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_rows_and_columns_without_entries_are_exactly_zero(L, share):
    _, seen = sample(share)
    # Among the first columns too, where an orthonormal basis would be filled up.
    rows, cols = torch.tensor([0, 41]), torch.tensor([0, 3, 30])
    seen = seen.select(~torch.isin(seen.rows, rows) & ~torch.isin(seen.cols, cols))
    product = whole(complete(seen, L=L, steps=100))
    assert torch.equal((product == 0).all(1).nonzero().flatten(), rows)
    assert torch.equal((product == 0).all(0).nonzero().flatten(), cols)


# What is trained on, and how


def test_held_out_values_do_not_touch_the_training():
    one = complete(steps=100)
    place = torch.isin(SEEN.rows * 40 + SEEN.cols, one.test.rows * 40 + one.test.cols)
    changed = complete(SEEN.with_values(torch.where(place, 1e3, SEEN.values)), steps=100)
    assert all(map(torch.equal, one.last.Ws, changed.last.Ws))
    assert torch.equal(one.history["train"], changed.history["train"])
    assert changed.history["held_out"].min() > 100 > one.history["held_out"].max()
    changed = complete(SEEN.with_values(SEEN.values * torch.where(place, 1, 1.01)), steps=100)
    assert not torch.equal(one.history["train"], changed.history["train"])
    # The seed decides what they are, nothing else does.
    torch.manual_seed(7)
    assert same(one, complete(steps=100)) and same(one, complete(steps=100, generator=0))
    drawn = complete(steps=0, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(one.test.values, drawn.test.values)


@pytest.mark.parametrize("lam", [0.0, 0.02])
@pytest.mark.parametrize("L", [2, 3, 5])
def test_a_fixed_step_size_is_gradient_descent(L, lam):
    """Against the whole matrix, its mask, and a loop."""
    gamma, eta = 3.0, 0.1
    result = complete(steps=40, L=L, gamma=gamma, eta=eta, lam=lam, eps=0.2)
    start = complete(steps=0, L=L, gamma=gamma, eta=eta, lam=lam, eps=0.2)
    scale, train = start.settings.scale, start.train
    Omega = torch.zeros(SHAPE, dtype=torch.bool)
    Omega[train.rows, train.cols] = True
    p = Omega.double().mean().item()
    assert scale == pytest.approx(torch.linalg.norm(Omega * PHI, 2).item() / p, rel=1e-3)
    loss, Ws0 = losses.masked(Omega, PHI / scale), start.last.Ws
    for W in Ws0:
        assert torch.linalg.svdvals(W)[:2].tolist() == pytest.approx([0.2, 0.2])
    Ws, rates = Ws0, [gamma * eta, *[eta] * (L - 2), gamma * eta]
    for _ in range(40):
        grads = loss(Ws).grads
        Ws = [W - rate * (G / p + lam * W) for W, G, rate in zip(Ws, grads, rates, strict=True)]
    for W, E, W_0 in zip(result.last.Ws, Ws, Ws0, strict=True):
        assert (W - E).abs().max() < 1e-12
        assert (W - W_0).abs().max() > 5e-3  # all of them have moved
    assert (result.history["eta"] == eta).all()


def test_the_start_has_the_scale_that_a_singular_value_s_speed_asks_for():
    for L, eps in ((2, 1e-4), (3, 1e-2), (4, 1e-1), (5, 0.01 ** (1 / 3))):
        for W in complete(steps=0, L=L).last.Ws:
            assert torch.linalg.svdvals(W)[0].item() == pytest.approx(eps)


@pytest.mark.parametrize("most", [4.0, 200.0])
def test_the_step_size_adapts_by_its_rule(monkeypatch, most):
    given = []
    bold = _completing.bold_driver
    monkeypatch.setattr(
        _completing, "bold_driver", lambda **kw: given.append(kw) or bold(most=most)
    )
    result = complete(steps=300, every=1)
    assert given == [{"most": 4.0}]
    eta, first = result.history["eta"], 0.25 * compression.stable_eta(1.0, 5.0, 3)
    assert eta[:2].tolist() == pytest.approx([first, first])  # the first step is never refused
    ratio = eta[2:] / eta[1:-1]
    grown, halved = (ratio - 1.05).abs() < 1e-9, (ratio - 0.5).abs() < 1e-9
    at_most = (eta[2:] / (most * first) - 1).abs() < 1e-9
    assert (grown | halved | at_most).all() and grown.any()
    assert at_most.any() if most == 4 else halved.any()
    still = result.history["train"].diff()[1:] == 0
    assert still[halved].all() and not still[grown].any()  # a bad step is taken back


def test_without_held_out_entries_those_trained_on_judge():
    result = complete(held_out=0, steps=1500)
    assert result.test is None and len(result.train) == len(SEEN)
    assert result.history["held_out"].isnan().all()
    assert result.best.error == pytest.approx(result.history["train"].min().item(), 1e-3)
    assert error(result) < 1e-2


# Stopping, and going on


@pytest.mark.parametrize("options", [{}, {"eta": 0.05, "lam": 0.01}, {"held_out": 0}], ids=str)
def test_a_run_goes_on_exactly_also_from_a_file(options, tmp_path):
    straight, half = complete(steps=300, **options), complete(steps=100, **options)
    kept = [W.clone() for W in half.last.Ws]
    half.save(tmp_path / "half")
    loaded = completion.load(tmp_path / "half")
    assert same(loaded, half) and torch.equal(loaded.history["seconds"], half.history["seconds"])
    assert loaded.settings == half.settings and repr(loaded) == repr(half)
    assert torch.equal(whole(loaded), whole(half))
    for start in (half, loaded):
        on = resume(start, 300)
        assert same(on, straight) and (on.history["seconds"].diff() >= 0).all()
        assert on.history["seconds"][10] == half.history["seconds"][10]
    assert half.steps == 100 and all(map(torch.equal, kept, half.last.Ws))  # it stays
    assert same(resume(half, 100), half)  # nothing is left to do
    # From between two measurements too.
    on = resume(resume(complete(steps=73, **options), 88), 300)
    assert same(replace(on, best=straight.best), straight)
    with pytest.raises(ValueError, match=r"^steps: wanted steps >= 100, got 99"):
        resume(half, 99)
    with pytest.raises(ValueError, match=r"^patience: wanted patience >= 1, got 0"):
        resume(half, 300, patience=0)


def test_a_file_that_is_another_is_refused(tmp_path):
    file = tmp_path / "file"
    torch.save({"format": "another"}, file)
    with pytest.raises(
        ValueError, match=r"^file: wanted a run that was saved, got .* others' data"
    ):
        completion.load(file)


class Interrupted:
    """A progress bar at which someone presses Ctrl-C when so many steps are done."""

    def __init__(self, after):
        self.after = after

    def __call__(self, *, total, initial, **options):
        self.n, self.options = initial, options
        return self

    def update(self, steps):
        self.n += steps
        if self.n >= self.after:
            raise KeyboardInterrupt

    def set_postfix(self, **kwargs):
        if self.after < 0:
            raise KeyboardInterrupt

    def close(self):
        self.closed = True


@pytest.mark.parametrize("after", [-1, 0, 90])
def test_an_interrupted_run_is_returned_and_goes_on(after, monkeypatch):
    bar = Interrupted(after)
    with monkeypatch.context() as patch:
        patch.setattr(_completing, "tqdm", bar)
        result = complete(steps=300)
    assert result.stopped == "interrupted" and bar.closed and bar.options == {"disable": True}
    assert result.steps == max(after, 0)
    assert result.history["t"].tolist() == list(range(0, max(after, 0) + 1, 10))
    assert result.predict([0], [0]).isfinite().all()
    assert same(resume(result, 300), complete(steps=300))


def test_an_interruption_before_the_first_iterate_loses_nothing(monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(descent, "train", interrupted)
        result = complete(steps=50)
    assert result.steps == 0 and len(result.history["t"]) == 0 and "after 0 steps" in repr(result)
    result.save(tmp_path / "none")
    for start in (result, completion.load(tmp_path / "none")):
        assert same(resume(start, 50), complete(steps=50))


def test_noise_is_not_learned_for_long():
    Phi, seen = sample(0.5, sigma=(2.0, 2.0), noise=0.3)
    result = complete(seen, steps=5000, patience=200)
    assert result.stopped == "patience" and 200 < result.steps - result.best.t < 1000
    best, last = result.history["held_out"].min(), result.history["held_out"][-1]
    assert 0.27 < best < 0.45 and last >= best  # noise alone is 0.3
    assert result.history["train"][-1] < 0.3 and error(result, Phi) < 0.3
    # The layers are those of the best step, not of the last.
    late = replace(result, best=result.best._replace(Ws=result.last.Ws))
    assert error(result, Phi) < error(late, Phi)
    # What has stopped goes on with more patience alone.
    assert same(resume(result, 5000), result)
    assert resume(result, result.steps + 50, patience=1000).steps == result.steps + 50


def test_it_stops_at_a_tolerance_and_says_each_measurement():
    told = []
    result = complete(tol=0.1, callback=told.append)
    assert result.stopped == "tol" and result.error <= 0.1 < result.history["held_out"][-2]
    assert {name: [each[name] for each in told] for name in told[0]} == {
        name: column.tolist() for name, column in result.history.items()
    }
    assert len(told) == len(result.history["t"]) > 3
    resume(result, result.steps + 10, callback=told.append)
    for call in (complete, lambda **o: resume(result, 10**4, **o)):
        with pytest.raises(TypeError, match=r"^callback: wanted a function of one measurement, go"):
            call(callback=3)


STILL = [1.0] * 9
FALLING = [1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9, 0.7]  # 0.1 in one quarter, 0.2 in the next


@pytest.mark.parametrize(
    ("train", "held_out", "expected"),
    [
        (STILL, 1.0, False),
        (FALLING, 1.0, True),
        (FALLING, float("nan"), True),
        (FALLING, 1.005, True),
        (FALLING, 1.006, False),  # what leaves then is noise
        (FALLING[1:], 1.0, False),  # too short a history
        ([1.0] + FALLING, 1.0, True),
        (FALLING[:8] + [0.781], 1.0, False),  # 0.119 is not above 1.2 times 0.1
        (FALLING[:8] + [0.779], 1.0, True),
        ([0.5] + STILL[:-1] + [0.9], 1.0, True),
        ([0.5] + FALLING[1:], 1.0, True),  # a rise before counts as no fall
    ],
)
def test_patience_waits_while_the_loss_falls_faster_and_faster(train, held_out, expected):
    settings = complete(steps=0, patience=16 * 3 + 2, every=3).settings
    rows = [(3 * i, 0.0, value, held_out, 0.1) for i, value in enumerate(train)]
    best = _completing.Best(1.0, 0, [])
    assert _completing._leaving(rows, best, settings) == expected
    assert not _completing._leaving(rows, best, settings._replace(patience=11))


def test_progress_is_shown_when_asked(capsys, monkeypatch):
    complete(steps=20)
    assert capsys.readouterr() == ("", "")
    result = complete(steps=20, progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown and "held_out=" in shown
    completion.resume(result, steps=30)
    assert "30/30" in capsys.readouterr().err
    # TQDM_DISABLE=1 is tqdm's own default for what is not said here.
    bar = Interrupted(10**6)
    monkeypatch.setattr(_completing, "tqdm", bar)
    complete(steps=20, progress=True)
    assert bar.options == {} and bar.n == 20


# How large a step may be


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("L", [2, 3, 4])
def test_with_everything_observed_the_stable_step_size_is_sharp(L, gamma):
    _, seen = sample(1.0, sigma=(1.0,), shape=(20, 15))
    limit = compression.stable_eta(1.0, gamma, L)  # values are divided by the largest
    for factor, expected in ((0.98, True), (1.02, False)):
        options = dict(held_out=0, eps=0.1, patience=10**6, steps=800, every=800)
        result = complete(seen, 1, eta=factor * limit, L=L, gamma=gamma, **options)
        assert (result.history["train"][-1] < 1e-2) == expected


def test_far_above_the_limit_the_loss_overflows_and_the_step_is_named():
    eta = 3 * compression.stable_eta(1.0, 5.0, 3)
    with pytest.raises(FloatingPointError, match=r"^loss: wanted a finite number, .* t = \d+ with"):
        complete(eta=eta, eps=0.1)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank: wanted rank >= 1, got 0"),
        ({"rank": 3, "width": 2}, "width: wanted 3 <= width < 20, got 2"),
        ({"rank": 3, "width": 20}, "width: wanted 3 <= width < 20, got 20"),
        ({"rank": 20}, "width: wanted 20 <= width < 20, got 19"),
        ({"width": 0}, "width: wanted width >= 1, got 0"),
        ({"L": 1}, "L: wanted L >= 2, got 1"),
        ({"eps": 0.0}, "eps: wanted eps > 0, got 0.0"),
        ({"gamma": -1.0}, "gamma: wanted gamma > 0, got -1.0"),
        ({"eta": 0.0}, "eta: wanted eta > 0, got 0.0"),
        ({"lam": -0.1}, "lam: wanted lam >= 0, got -0.1"),
        ({"held_out": 0.9999}, "held_out: wanted less than all 600 entries, got 0.9999"),
        ({"held_out": 1.0}, "held_out: wanted 0 <= held_out < 1, got 1.0"),
        ({"patience": 0}, "patience: wanted patience >= 1, got 0"),
        ({"every": 0}, "every: wanted every >= 1, got 0"),
        ({"tol": -1.0}, "tol: wanted tol >= 0, got -1.0"),
        ({"steps": -1}, "steps: wanted steps >= 0, got -1"),
    ],
)
def test_options_are_refused(change, message):
    _, seen = sample(1.0, shape=(30, 20))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        complete(seen, **change)


def test_what_no_sample_could_determine_is_refused():
    _, seen = sample(0.3, shape=(30, 20))
    n = len(seen) - round(0.1 * len(seen))
    message = (
        f"rank: wanted rank (d_y + d_x - rank) <= {n} entries to train on, got 180 for rank 4 and "
        "29 rows, 20 columns that occur: the sample cannot determine so much"
    )
    assert n < 180
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        complete(seen, rank=4)
    complete(seen, rank=3, steps=0)  # 138 numbers
    # Rows and columns of which nothing is known do not count.
    wide = ObservedEntries(10 * seen.rows, 7 * seen.cols, seen.values, (300, 140))
    complete(wide, rank=3, steps=0)
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}, the decay decides"):
        complete(seen, rank=4, lam=0.01, steps=0)
    few = torch.ones(3, 3).nonzero().T
    nine = ObservedEntries(*few, torch.arange(9.0), (50, 50))
    assert complete(nine, rank=5, held_out=0, steps=0).shape == (50, 50)
    with pytest.raises(ValueError, match=r"^rank: .* <= 8 entries to train on, got 9 for rank 5"):
        complete(nine, rank=5)
    with pytest.raises(ValueError, match=r"^values: wanted some that are not zero, got zeros only"):
        complete(SEEN.with_values(0 * SEEN.values))
    with pytest.raises(ValueError, match=r"^values: wanted a completed matrix that torch.float32 "):
        complete(SEEN.with_values((1e38 * SEEN.values / SEEN.values.abs().max()).float()))


def test_a_cuda_device_gives_the_same():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    result = complete(SEEN.with_values(SEEN.values.cuda()), steps=200)
    assert all(W.is_cuda for W in result.Ws) and result.predict([0], [0]).is_cuda
    assert (whole(result).cpu() - whole(complete(steps=200))).abs().max() < 1e-6
