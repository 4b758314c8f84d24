"""Completion: what was low-rank comes back, and nothing that was held out is used."""

import re

import pytest
import torch

from lop_utils import completion, datasets, dln, losses, sampling
from lop_utils.completion import Completion

F64 = {"dtype": torch.float64}
D_Y, D_X, RANK = 80, 60, 2


def sample(share=0.3, sigma=(3.0, 2.0), shape=(D_Y, D_X), noise=0.0, seed=0):
    """Draw a low-rank matrix with entries of size 1 and observe a share of it."""
    generator = torch.Generator().manual_seed(seed)
    Phi = datasets.low_rank_target(*shape, torch.tensor(sigma, **F64), generator=generator)
    Phi /= Phi.square().mean().sqrt()
    rows, cols = (torch.rand(shape, generator=generator) < share).nonzero().T
    values = Phi[rows, cols] + noise * torch.randn(len(rows), generator=generator, **F64)
    return Phi, (rows, cols, values, shape)


def complete(observed, rank=RANK, **kwargs):
    return completion.complete(*observed, rank, **{"progress": False, **kwargs})


def small_start(L):
    """Return options that fit exactly: a small start, and patience for what leaves it late."""
    return {"L": L, "eps": None if L == 2 else 0.001 ** (1 / (L - 2)), "patience": 2000}


def whole(result):
    """Predict every entry."""
    d_y, d_x = result.shape
    rows, cols = torch.ones(d_y, d_x).nonzero().T
    return result.predict(rows, cols).view(d_y, d_x)


def error(result, Phi):
    return (torch.linalg.norm(whole(result) - Phi) / torch.linalg.norm(Phi)).item()


def same(As, Bs):
    return all(torch.equal(A, B) for A, B in zip(As, Bs, strict=True))


# A low-rank matrix comes back


@pytest.mark.parametrize(("L", "bound"), [(2, 5e-3), (3, 1e-5), (4, 1e-4)])
@pytest.mark.parametrize("rank", [RANK, 4], ids=["rank", "overestimated"])
def test_a_low_rank_matrix_comes_back(L, bound, rank):
    Phi, observed = sample()
    result = complete(observed, rank, steps=6000, **small_start(L))
    assert error(result, Phi) < bound
    assert [tuple(W.shape) for W in result.factors] == [
        (2 * rank, D_X),
        *[(2 * rank, 2 * rank)] * (L - 2),
        (D_Y, 2 * rank),
    ]


@pytest.mark.parametrize("shape", [(60, 80), (120, 40)], ids=str)
def test_wide_and_tall_matrices_with_the_defaults(shape):
    Phi, observed = sample(sigma=(2.0, 2.0), shape=shape)
    assert error(complete(observed), Phi) < 1e-3


def test_too_small_a_sample_is_not_completed():
    # So that the tests above could fail: the start alone is far off, and so is an unlearned one.
    Phi, observed = sample()
    assert error(complete(observed, steps=0), Phi) > 0.9
    assert error(complete(observed, rank=1, width=1), Phi) > 0.3


def test_float32_is_kept_and_works():
    Phi, (rows, cols, values, shape) = sample()
    # The loss is rounded on the plateau at 140 to 1000 steps; the step size must survive that.
    result = complete((rows, cols, values.float(), shape), steps=3000, **small_start(3))
    assert {W.dtype for W in (*result.factors, *result.state["Ws"])} == {torch.float32}
    assert result.predict([0], [0]).dtype == torch.float32
    assert error(result, Phi.float()) < 1e-5


def test_lists_and_integers_will_do():
    Phi, (rows, cols, _, shape) = sample()
    stars = (Phi[rows, cols] * 2).round().int()
    one = complete((rows, cols, stars, shape), steps=50)
    other = complete((rows.tolist(), cols.tolist(), stars.tolist(), shape), steps=50)
    assert one.factors[0].dtype == torch.float64 and same(one.factors, other.factors)


# What a result holds


@pytest.fixture(scope="module")
def finished():
    Phi, observed = sample()
    return Phi, observed, complete(observed, steps=405, every=20)


def test_history_has_a_row_every_so_often(finished):
    _, _, result = finished
    history = result.history
    assert set(history) == {"t", "seconds", "train", "held_out", "eta"}
    assert history["t"].tolist() == list(range(0, 401, 20))
    assert all(len(column) == 21 for column in history.values())
    assert (history["seconds"].diff() >= 0).all() and history["seconds"][0] >= 0
    assert (history["train"].diff() <= 0).all()  # a step that raised the loss is taken back
    assert (history["eta"] > 0).all()
    assert result.stopped == "steps" and result.state["t"] == 405


def test_errors_are_in_the_unit_of_the_values(finished):
    _, (rows, cols, values, shape), result = finished
    obs = sampling.observe(rows, cols, values, shape)
    gap = result.predict(obs.rows, obs.cols) - obs.values
    best = result.history["held_out"].argmin()
    for name, some in (("train", result.state["kept"]), ("held_out", result.state["out"])):
        found = gap[some].square().mean().sqrt().item()
        assert found == pytest.approx(result.history[name][best].item(), rel=1e-5)
    assert result.state["best_t"] == result.history["t"][best]


def test_a_tenth_is_held_out(finished):
    _, (rows, *_), result = finished
    kept, out = result.state["kept"], result.state["out"]
    assert len(out) == round(0.1 * len(rows))
    assert torch.cat([kept, out]).sort().values.tolist() == list(range(len(rows)))


def test_predictions_are_entries_of_the_product(finished):
    _, _, result = finished
    product = dln.end_to_end(result.factors)
    assert result.shape == (D_Y, D_X)
    assert (whole(result) - product).abs().max() < 1e-13
    found = result.predict(torch.tensor([79, 0]), [59, 3])
    assert (found - product[[79, 0], [59, 3]]).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("rows", "cols", "error", "message"),
    [
        ([80], [0], ValueError, "rows: wanted 0 to 79, got 80 to 80"),
        ([0], [-1], ValueError, "cols: wanted 0 to 59, got -1 to -1"),
        ([0, 1], [0], ValueError, "cols: wanted 2 as rows, got 1"),
        ([0.5], [0], TypeError, "rows: wanted whole numbers, got torch.float32"),
    ],
)
def test_places_to_predict_are_refused(finished, rows, cols, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        finished[-1].predict(rows, cols)


def test_predictions_follow_the_unit_of_the_values():
    Phi, (rows, cols, values, shape) = sample()
    one = complete((rows, cols, values, shape), steps=600)
    other = complete((rows, cols, 1000 * values, shape), steps=600)
    assert (whole(other) / 1000 - whole(one)).abs().max() < 1e-6 * Phi.abs().max()
    assert other.history["held_out"].allclose(1000 * one.history["held_out"], rtol=1e-3)


@pytest.mark.parametrize("L", [2, 3])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_rows_and_columns_without_entries_are_exactly_zero(L, share):
    _, (rows, cols, values, shape) = sample(share)
    # Among the first columns too, where an orthonormal basis would be filled up.
    seen = ((rows != 0) & (rows != 50) & (cols != 0) & (cols != 3) & (cols != 40)).nonzero()[:, 0]
    result = complete((rows[seen], cols[seen], values[seen], shape), L=L, steps=200)
    product = whole(result)
    assert (product == 0).all(1).nonzero().flatten().tolist() == [0, 50]
    assert (product == 0).all(0).nonzero().flatten().tolist() == [0, 3, 40]


# What is trained on, and how


def test_held_out_values_do_not_touch_the_training():
    _, (rows, cols, values, shape) = sample()
    one = complete((rows, cols, values, shape), steps=100)
    changed = values.clone()  # the sample is already sorted
    changed[one.state["out"]] = 1e3
    other = complete((rows, cols, changed, shape), steps=100)
    assert same(one.state["Ws"], other.state["Ws"])
    assert torch.equal(one.history["train"], other.history["train"])
    assert other.history["held_out"].min() > 100 > one.history["held_out"].max()
    changed = values.clone()
    changed[one.state["kept"][0]] *= 1.01
    other = complete((rows, cols, changed, shape), steps=100)
    assert not same(one.state["Ws"], other.state["Ws"])


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize("lam", [0.0, 0.02])
def test_a_fixed_step_size_is_gradient_descent(L, lam):
    """Against the whole matrix, its mask, and a loop."""
    alpha, eta = 3.0, 0.1
    Phi, observed = sample()
    options = {"L": L, "alpha": alpha, "eta": eta, "lam": lam, "eps": 0.2}
    start, end = (complete(observed, steps=steps, **options) for steps in (0, 60))
    kept, scale = start.state["kept"], start.state["scale"]
    Omega = torch.zeros(D_Y, D_X, dtype=torch.bool)
    Omega[observed[0][kept], observed[1][kept]] = True
    share = Omega.double().mean().item()
    assert scale == pytest.approx(torch.linalg.norm(Omega * Phi, 2).item() / share, rel=1e-3)
    residual = losses.masked_residual(Omega, Phi / scale)
    Ws = start.state["Ws"]
    for _ in range(60):
        grads = dln.gradients(Ws, residual).grads
        rates = [alpha * eta, *[eta] * (L - 2), alpha * eta]
        Ws = [W - rate * (G / share + lam * W) for W, G, rate in zip(Ws, grads, rates, strict=True)]
    for W, E, W_0 in zip(end.state["Ws"], Ws, start.state["Ws"], strict=True):
        assert (W - E).abs().max() < 1e-12
        assert (W - W_0).abs().max() > 1e-2  # all of them have moved


@pytest.mark.parametrize("bound", [1.0, 20.0])
def test_the_step_size_adapts_by_its_rule(monkeypatch, bound):
    most = bound * completion.stable_eta(1.0, 5.0, 3)
    monkeypatch.setattr(completion, "stable_eta", lambda *_: most)
    _, observed = sample()
    result = complete(observed, steps=300, every=1)
    ratio = result.history["eta"].diff() / result.history["eta"][:-1] + 1
    grown = (ratio - 1.05).abs() < 1e-5
    halved = (ratio - 0.5).abs() < 1e-5
    at_most = (result.history["eta"][1:] / most - 1).abs() < 1e-6
    assert (grown | halved | at_most).all() and grown.any()
    assert at_most.any() if bound == 1 else halved.any()
    assert result.history["eta"].max() <= most * (1 + 1e-6)
    still = result.history["train"].diff() == 0
    assert still[halved].all()  # a step that did not lower the loss was taken back


def test_equal_input_gives_equal_output_in_whatever_order(generator):
    _, (rows, cols, values, shape) = sample()
    one = complete((rows, cols, values, shape), steps=200)
    again = complete((rows, cols, values, shape), steps=200)
    turn = torch.randperm(len(rows), generator=generator)
    shuffled = complete((rows[turn], cols[turn], values[turn], shape), steps=200)
    for other in (again, shuffled):
        assert same(one.factors, other.factors)
        assert torch.equal(one.history["held_out"], other.history["held_out"])
    torch.manual_seed(7)
    assert same(one.factors, complete((rows, cols, values, shape), steps=200).factors)
    drawn = complete((rows, cols, values, shape), steps=200, generator=generator)
    assert not torch.equal(one.state["out"], drawn.state["out"])


def test_without_held_out_entries_those_trained_on_judge():
    Phi, observed = sample()
    result = complete(observed, held_out=0, steps=5000, **small_start(3))
    assert len(result.state["out"]) == 0 and result.history["held_out"].isnan().all()
    assert result.state["best_error"] == pytest.approx(result.history["train"].min().item(), 1e-3)
    assert error(result, Phi) < 1e-5


# Stopping, and going on


def test_a_run_continues_exactly():
    _, observed = sample()
    straight = complete(observed, steps=500)
    half = complete(observed, steps=200)
    kept = [W.clone() for W in half.state["Ws"]]
    on = complete(observed, steps=500, start=half)
    assert same(straight.state["Ws"], on.state["Ws"]) and same(straight.factors, on.factors)
    for name in ("t", "train", "held_out", "eta"):
        assert torch.equal(straight.history[name], on.history[name])
    assert (on.history["seconds"].diff() >= 0).all()
    assert half.state["t"] == 200 and same(kept, half.state["Ws"])  # what it began from stays


def test_a_run_with_a_fixed_step_size_continues_exactly():
    _, observed = sample()
    straight = complete(observed, steps=150, eta=0.05)
    on = complete(observed, steps=150, eta=0.05, start=complete(observed, steps=73, eta=0.05))
    assert same(straight.state["Ws"], on.state["Ws"]) and on.state["t"] == 150
    assert torch.equal(straight.history["t"], on.history["t"])


def test_a_run_can_continue_with_a_step_size_of_its_own():
    _, observed = sample()
    half = complete(observed, steps=100)
    on = complete(observed, steps=200, eta=0.01, start=half)
    assert (on.history["eta"][-10:] == torch.tensor(0.01)).all()
    assert half.state["eta"] != 0.01


def test_a_finished_run_has_nothing_left_to_do():
    _, observed = sample()
    one = complete(observed, steps=100)
    on = complete(observed, steps=100, start=one)
    assert on.stopped == "steps" and same(one.state["Ws"], on.state["Ws"])
    assert torch.equal(one.history["t"], on.history["t"])


def test_a_saved_run_comes_back(tmp_path):
    _, observed = sample()
    half = complete(observed, steps=200)
    torch.save(half._asdict(), tmp_path / "run.pt")
    loaded = Completion(**torch.load(tmp_path / "run.pt", weights_only=True))
    assert torch.equal(whole(loaded), whole(half)) and loaded.stopped == "steps"
    on, expected = (complete(observed, steps=300, start=run) for run in (loaded, half))
    assert same(on.factors, expected.factors) and on.state["t"] == 300


class Interrupted:
    """A progress bar at which someone presses Ctrl-C after so many steps."""

    after = 0

    def __init__(self, **kwargs):
        self.steps = 0

    def update(self):
        self.steps += 1
        if self.steps > self.after:
            raise KeyboardInterrupt

    def set_postfix(self, **kwargs):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("after", [0, 1, 95, 200])
def test_an_interrupted_run_is_returned_and_continues(after, monkeypatch):
    _, observed = sample()
    straight = complete(observed, steps=300)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupted, "after", after)
        patch.setattr(completion, "tqdm", Interrupted)
        result = complete(observed, steps=300)
    assert result.stopped == "interrupted" and result.state["t"] == after
    assert result.history["t"].tolist() == list(range(0, after + 1, 10))
    assert result.predict([0], [0]).isfinite().all()
    on = complete(observed, steps=300, start=result)
    assert on.stopped == "steps" and same(on.state["Ws"], straight.state["Ws"])
    assert torch.equal(on.history["held_out"], straight.history["held_out"])


def test_an_interruption_within_a_step_loses_no_more_than_it(monkeypatch):
    _, observed = sample()
    gradients, calls = completion.factored.contracted_gradients, []

    def interrupted(Ws, residual):
        calls.append(0)
        if len(calls) == 100:
            raise KeyboardInterrupt
        return gradients(Ws, residual)

    with monkeypatch.context() as patch:
        patch.setattr(completion.factored, "contracted_gradients", interrupted)
        result = complete(observed, steps=300)
    assert result.stopped == "interrupted" and result.state["t"] == 98
    on = complete(observed, steps=300, start=result)
    assert same(on.state["Ws"], complete(observed, steps=300).state["Ws"])


def test_noise_is_not_learned_for_long():
    Phi, observed = sample(0.4, sigma=(2.0, 2.0), noise=0.3)
    result = complete(observed, steps=5000, patience=300)
    assert result.stopped == "patience"
    assert result.state["t"] - result.state["best_t"] in range(301, 1500)
    best, last = result.history["held_out"].min(), result.history["held_out"][-1]
    assert 0.27 < best < 0.42  # noise alone is 0.3
    assert result.history["train"][-1] < 0.3 and last >= best
    assert error(result, Phi) < 0.25
    # The factors are those of the best step, not of the last.
    scale = result.state["scale"]
    assert error(result, Phi) < 1.001 * error(
        result._replace(factors=[W * scale ** (1 / 3) for W in result.state["Ws"]]), Phi
    )


def test_progress_is_shown_when_asked(capsys):
    _, observed = sample()
    complete(observed, steps=20)
    assert capsys.readouterr() == ("", "")
    complete(observed, steps=20, progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown and "held_out=" in shown


# How large a step may be


def test_stable_step_sizes_are_the_curvature_of_the_fitted_layers():
    """Two over the largest eigenvalue of the scaled Hessian, by automatic differentiation."""
    s, alpha = 0.7, 5.0
    for L in (2, 3, 4):
        inner = (s / alpha) ** (1 / L)
        outer = alpha**0.5 * inner
        w = torch.tensor([outer, *[inner] * (L - 2), outer], **F64)
        assert w.prod().item() == pytest.approx(s)
        rates = torch.tensor([alpha, *[1.0] * (L - 2), alpha], **F64)
        hessian = torch.autograd.functional.hessian(lambda w: 0.5 * (w.prod() - s) ** 2, w)
        scaled = rates.sqrt()[:, None] * hessian * rates.sqrt()
        expected = 2 / torch.linalg.eigvalsh(scaled).max().item()
        assert completion.stable_eta(s, alpha, L) == pytest.approx(expected, rel=1e-12)
        assert completion.stable_alpha(s, expected, L) == pytest.approx(alpha, rel=1e-12)


def converges(observed, eta, steps=800, **kwargs):
    options = {"held_out": 0, "eps": 0.1, "patience": 10**6, "steps": steps}
    result = complete(observed, 1, eta=eta, **options, **kwargs)
    return result.history["train"][-1].item() < 1e-2


@pytest.mark.parametrize("alpha", [1.0, 5.0], ids=lambda alpha: f"alpha={alpha}")
@pytest.mark.parametrize("L", [2, 3, 4], ids=lambda L: f"L={L}")
def test_with_everything_observed_the_limit_is_sharp(L, alpha):
    _, observed = sample(1.0, sigma=(1.0,), shape=(30, 20))
    limit = completion.stable_eta(1.0, alpha, L)  # values are divided by the largest
    for factor, expected in ((0.5, True), (0.98, True), (1.02, False)):
        assert converges(observed, factor * limit, L=L, alpha=alpha) == expected
    by_alpha = completion.stable_alpha(1.0, limit, L)
    assert by_alpha == pytest.approx(alpha)


@pytest.mark.parametrize("L", [2, 3], ids=lambda L: f"L={L}")
def test_a_sample_lowers_the_limit_by_little(L):
    # With p observed the loss is p times flatter on average, and steeper by chance: the limit,
    # from the curvature at the target itself, is 0.92 of the prediction here with two layers,
    # 0.96 with three. At p = 1 it is the prediction.
    Phi, observed = sample(0.3, sigma=(1.0,), shape=(200, 200))
    scale = complete(observed, 1, held_out=0, steps=0).state["scale"]
    limit = completion.stable_eta(torch.linalg.norm(Phi, 2).item() / scale, 5.0, L)
    assert converges(observed, 0.85 * limit, L=L, alpha=5.0)
    assert not converges(observed, 1.02 * limit, L=L, alpha=5.0)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_far_above_the_limit_the_loss_overflows_and_the_step_is_named(share):
    _, observed = sample(share)
    limit = completion.stable_eta(1.0, 5.0, 3)
    found = r"loss: wanted a finite number, got (inf|nan) at step t = \d+ with eta = "
    with pytest.raises(FloatingPointError, match=found + re.escape(f"{3 * limit:g}; without")):
        complete(observed, eta=3 * limit, eps=0.1)
    half = complete(observed, eta=0.5 * limit, eps=0.1, steps=400)
    assert half.history["train"][-1] < 0.1 * half.history["train"][0]


# What is refused


def test_a_zero_sample_is_refused():
    _, (rows, cols, values, shape) = sample()
    with pytest.raises(ValueError, match=r"^values: wanted some that are not zero, got zeros only"):
        complete((rows, cols, 0 * values, shape))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rank": 0}, ValueError, "rank: wanted rank >= 1, got 0"),
        ({"rank": 2.0}, TypeError, "rank: wanted a whole number, got 2.0"),
        ({"rank": 3, "width": 2}, ValueError, "width: wanted 3 <= width < 20, got 2"),
        ({"rank": 3, "width": 20}, ValueError, "width: wanted 3 <= width < 20, got 20"),
        ({"rank": 20}, ValueError, "width: wanted 20 <= width < 20, got 19"),
        ({"width": 0}, ValueError, "width: wanted width >= 1, got 0"),
        ({"L": 1}, ValueError, "L: wanted L >= 2, got 1"),
        ({"L": 3.0}, TypeError, "L: wanted a whole number, got 3.0"),
        ({"eps": 0.0}, ValueError, "eps: wanted eps > 0, got 0.0"),
        ({"alpha": -1.0}, ValueError, "alpha: wanted alpha > 0, got -1.0"),
        ({"eta": 0.0}, ValueError, "eta: wanted eta > 0, got 0.0"),
        ({"lam": -0.1}, ValueError, "lam: wanted lam >= 0, got -0.1"),
        ({"held_out": 1.0}, ValueError, "held_out: wanted 0 <= held_out < 1, got 1.0"),
        ({"held_out": -0.1}, ValueError, "held_out: wanted held_out >= 0, got -0.1"),
        ({"patience": 0}, ValueError, "patience: wanted patience >= 1, got 0"),
        ({"every": 0}, ValueError, "every: wanted every >= 1, got 0"),
        ({"steps": -1}, ValueError, "steps: wanted steps >= 0, got -1"),
    ],
)
def test_options_are_refused(change, error, message):
    _, observed = sample(1.0, shape=(30, 20))
    with pytest.raises(error, match="^" + re.escape(message)):
        complete(observed, **change)


def test_a_rank_that_the_sample_cannot_determine_is_refused():
    _, observed = sample(0.3, shape=(30, 20))
    kept = len(observed[0]) - round(0.1 * len(observed[0]))
    message = (
        f"rank: wanted rank (d_y + d_x - rank) <= {kept} entries to train on, got 184 for rank 4: "
        "the sample cannot determine so much"
    )
    assert kept < 184
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        complete(observed, rank=4)
    complete(observed, rank=3, steps=0)  # 141 numbers


def test_entries_are_refused_as_by_observe():
    _, (rows, cols, values, shape) = sample()
    with pytest.raises(ValueError, match=r"^rows: wanted 0 to 78, got 0 to 79"):
        complete((rows, cols, values, (79, 60)))
    with pytest.raises(ValueError, match=r"^rows, cols: wanted each entry once, got 1 repetitions"):
        complete((*(torch.cat([A, A[5:6]]) for A in (rows, cols, values)), shape))
    values[3] = float("nan")
    place = f"row {rows[3]}, column {cols[3]}"
    with pytest.raises(ValueError, match=rf"^values: wanted finite numbers, .* nan at {place}"):
        complete((rows, cols, values, shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (81, 60)}, " entries of a matrix of shape (81, 60), got "),
        ({"fewer": 1}, " entries of a matrix of shape (80, 60), got "),
        ({"L": 4}, "start: wanted L = 4 layers of width 4, got 3 of width 4"),
        ({"width": 5}, "start: wanted L = 3 layers of width 5, got 3 of width 4"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(finished, change, message):
    _, (rows, cols, values, shape), start = finished
    fewer = change.pop("fewer", 0)
    observed = *(A[fewer:] for A in (rows, cols, values)), change.pop("shape", shape)
    with pytest.raises(ValueError, match=re.escape(message)):
        complete(observed, start=start, **change)


@pytest.mark.parametrize("function", [completion.stable_eta, completion.stable_alpha])
def test_what_stability_is_asked_of_is_refused(function):
    with pytest.raises(ValueError, match=r"^s: wanted s > 0, got 0\.0"):
        function(0.0, 1.0, 2)
    with pytest.raises(ValueError, match=r"^(alpha|eta): wanted \1 > 0, got 0\.0"):
        function(1.0, 0.0, 2)
    with pytest.raises(ValueError, match=r"^L: wanted L >= 2, got 1"):
        function(1.0, 1.0, 1)


def test_a_cuda_device_gives_the_same():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    Phi, (rows, cols, values, shape) = sample()
    result = complete((rows.cuda(), cols.cuda(), values.cuda(), shape), steps=200)
    assert all(W.is_cuda for W in result.factors) and result.predict([0], [0]).is_cuda
    expected = complete((rows, cols, values, shape), steps=200)
    assert (whole(result).cpu() - whole(expected)).abs().max() < 1e-6 * Phi.abs().max()
