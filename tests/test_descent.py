"""Runs against loops; runs that are interrupted at every point, against runs that are not."""

import io
import itertools
import math
import multiprocessing
import re
import resource
import sys
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from lop_utils import _completing, _files, descent, rules
from lop_utils.losses import Minibatches, least_squares, network, squared_error
from lop_utils.networks import stack

F64 = {"dtype": torch.float64}
DIMS, STEPS = (4, 5, 3), 12


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


def layers(seed=1):
    return [0.5 * randn(b, a, seed=seed + b) for a, b in itertools.pairwise(DIMS)]


PHI, X = randn(3, 4, seed=5), randn(4, 8, seed=6)
LOSS, WS, THREE = squared_error(PHI), layers(), [layers(seed) for seed in (1, 20, 30)]


def kind_of(start):
    Ws = start.Ws if isinstance(start, descent.Iterate) else start
    return {"dtype": Ws[0].dtype, "device": Ws[0].device}


def drawn(start, steps, seed=3, make=least_squares, noise=0.0, **options):
    data = X.to(**kind_of(start))
    loss = Minibatches(make, data, PHI.to(data) @ data, batch=2, noise=noise, generator=seed)
    return descent.train(start, loss, steps=steps, **{"eta": 1e-3} | options)


def run_of(*rule, **options):
    def run(start, steps):
        loss = squared_error(PHI.to(**kind_of(start)))
        return descent.train(start, loss, *rule, steps=steps, **{"eta": 0.02} | options)

    return run


def relu(start, steps):
    return drawn(
        start, steps, make=lambda X, Y: network(X, Y, [torch.relu, None]), rule=rules.momentum(0.8)
    )


RUNS = {
    "gradient-descent": run_of(lam=0.1),
    "momentum": run_of(rules.momentum(0.9), lam=0.1, eta=[0.02, 0.01]),
    "adam": run_of(rules.from_torch(torch.optim.Adam), eta=lambda t: 0.01 / (1 + t)),
    "bold-driver": run_of(_completing.bold_driver(most=4.0), eta=0.3),
    "muon": run_of(rules.muon(), lam=0.1, eta=0.003),
    "drawn": drawn,
    "noise-drawn": lambda start, steps: drawn(start, steps, noise=0.5),
    "drawn-global": lambda start, steps: drawn(start, steps, seed=None),
    "network": relu,
    "three": run_of(rules.momentum(0.5), eta=torch.tensor([0.02, 0.01, 0.03])),
    "three-drawn": relu,
}
START = {name: stack(THREE) if "three" in name else WS for name in RUNS}
each_run = pytest.mark.parametrize("name", RUNS)


def digits(iterates):
    """Return all numbers of a run, memory included."""
    return [
        (it.t, it.loss.tolist(), [W.tolist() for W in it.Ws], it.method)
        + tuple((k, [A.tolist() for A in As]) for k, As in sorted(it.memory.items()))
        for it in iterates
    ]


def spoil(it):
    for A in itertools.chain(it.Ws, [it.loss], *it.memory.values()):
        A.zero_()


# The stream


@each_run
def test_the_stream(name):
    start, loss_of = START[name], None
    kept = [W.clone() for W in start]
    run = list(RUNS[name](start, 3))
    assert [it.t for it in run] == [0, 1, 2, 3] and all(map(torch.equal, run[0].Ws, start))
    assert all(map(torch.equal, start, kept)) and [it.t for it in RUNS[name](start, 0)] == [0]
    for it in run if "drawn" not in name and name != "network" else ():
        gap = it.Ws[1] @ it.Ws[0] - PHI  # each loss is that of the layers beside it
        loss_of = 0.5 * gap.square().sum((-2, -1))
        assert it.loss.shape == start[0].shape[:-2] and torch.allclose(it.loss, loss_of, rtol=1e-13)
    tensors = [A for it in run for As in (it.Ws, [it.loss], *it.memory.values()) for A in As]
    places = [A.data_ptr() for A in tensors]
    assert len(set(places)) == len(places) and not any(A.requires_grad for A in tensors)


@each_run
@pytest.mark.parametrize("t", [0, 1, 7, 12])
def test_a_run_goes_on_digit_for_digit_whatever_is_done_to_its_iterates(name, t):
    torch.manual_seed(5)
    whole = list(RUNS[name](START[name], STEPS))
    torch.manual_seed(6)  # what has been drawn in between does not count
    before = digits(whole[t:])
    assert digits(RUNS[name](whole[t], STEPS)) == before
    for it, expected in zip(RUNS[name](whole[t], STEPS), before, strict=True):
        assert digits([it]) == [expected]
        spoil(it)
    assert digits(whole[t:]) == before


@pytest.mark.parametrize(
    ("name", "forgotten"),
    [("momentum", "velocity"), ("drawn", "generator"), ("bold-driver", "factor")]
    + [("adam", part) for part in ("step", "exp_avg", "exp_avg_sq")],
)
def test_a_method_that_forgets_would_not_pass(name, forgotten):
    whole = list(RUNS[name](WS, STEPS))
    blank = whole[1].memory[forgotten]
    without = whole[5]._replace(memory=whole[5].memory | {forgotten: blank})
    *_, last = RUNS[name](without, STEPS)
    assert max((A - B).abs().max() for A, B in zip(last.Ws, whole[12].Ws, strict=True)) > 1e-6


def test_decay_is_that_of_half_the_squared_norms():
    *_, last = descent.train(WS, LOSS, eta=0.02, lam=0.3, steps=1)
    for W, W0, G in zip(last.Ws, WS, LOSS(WS).grads, strict=True):
        assert (W - ((1 - 0.02 * 0.3) * W0 - 0.02 * G)).abs().max() < 1e-15


@pytest.mark.parametrize("name", ["gradient-descent", "three"])
@pytest.mark.parametrize("every", [1, 4])
def test_runs_side_by_side_are_those_of_each_alone(name, every):
    etas = [0.02, 0.01, 0.03] if name == "three" else [0.02] * 3
    options = {"lam": 0.2, "steps": 40}
    eta = torch.tensor(etas, **F64) if name == "three" else 0.02
    together = list(descent.train(stack(THREE), LOSS, eta=eta, every=every, **options))
    for b, Ws in enumerate(THREE):
        alone = list(descent.train(Ws, LOSS, eta=etas[b], **options))
        for it in together:
            for W, other in zip(it.Ws, alone[it.t].Ws, strict=True):
                assert (W[b] - other).abs().max() < 1e-13
            assert abs(it.loss[b] - alone[it.t].loss) < 1e-13


@pytest.mark.parametrize("rule", [rules.gradient_descent(), rules.momentum(0.5)])
def test_a_run_that_diverges_leaves_the_others_alone_and_the_whole_goes_on(rule, tmp_path):
    wild = stack([THREE[0], [1e3 * W for W in THREE[1]], THREE[2]])

    def run(start, steps=30):
        return descent.train(start, LOSS, rule, eta=0.02, steps=steps)

    *_, last = run(wild)
    *_, well = run(stack([THREE[0], THREE[2]]))
    assert last.loss.isfinite().tolist() == [True, False, True]
    for W, other in zip(last.Ws, well.Ws, strict=True):
        assert torch.equal(W[[0, 2]], other)
    file, measures = tmp_path / "run.pt", {"W": lambda it: it.Ws[0]}
    descent.record(run(wild, 20), file=file, **measures)  # by then there is no number left
    found = descent.record(run(descent.resume(file, wild)), file=file, **measures)
    expected = descent.record(run(wild), **measures)
    assert torch.equal(found["W"][:, [0, 2]], expected["W"][:, [0, 2]]) and len(found["t"]) == 31


@pytest.mark.parametrize(
    ("every", "steps", "times"),
    [(1, 3, [0, 1, 2, 3]), (4, 9, [0, 4, 8, 9]), (5, 10, [0, 5, 10]), (7, 3, [0, 3]), (1, 0, [0])],
)
def test_every_leaves_out_iterates_but_changes_none(every, steps, times):
    for run in (
        drawn,
        lambda *args, **options: descent.train(*args[:1], LOSS, eta=0.1, steps=steps, **options),
    ):
        whole, some = digits(run(WS, steps)), digits(run(WS, steps, every=every))
        assert some == [whole[t] for t in times]
    start = list(drawn(WS, 3))[-1]
    assert [it.t for it in drawn(start, 9, every=4)] == [3, 4, 8, 9]


def test_a_step_size_of_each_step():
    run = list(descent.train(WS, LOSS, eta=lambda t: 0.05 / (1 + t), steps=5))
    for t in range(5):
        _, after = descent.train(run[t].Ws, LOSS, eta=0.05 / (1 + t), steps=1)
        assert all(map(torch.equal, run[t + 1].Ws, after.Ws))
    each = descent.train(WS, LOSS, eta=lambda t: [0.05, 0.0] if t else 0.05, steps=3)
    assert torch.equal([it.Ws[1] for it in each][3], run[1].Ws[1])
    with pytest.raises(ValueError, match=r"^eta: wanted eta > 0, got 0"):
        list(descent.train(WS, LOSS, eta=lambda t: 1 - t, steps=3))


def test_a_stream_is_lazy_and_starts_from_the_layers_at_the_call():
    calls, Ws = [], [W.clone() for W in WS]

    def loss(Ws):
        calls.append(1)
        return LOSS(Ws)

    run = descent.train(Ws, loss, eta=0.01, steps=10**9)
    for W in Ws:
        W.zero_()
    assert not calls
    first = next(run)
    assert all(map(torch.equal, first.Ws, WS))
    assert [it.t for it in itertools.islice(run, 2)] == [1, 2] and len(calls) == 3


def test_a_generator_is_left_alone_until_the_first_iterate():
    run = RUNS["drawn-global"]
    torch.manual_seed(1)
    *_, last = run(WS, 3)
    torch.manual_seed(2)
    before, stream = torch.get_rng_state(), run(last, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(next(stream).memory["generator"][0], last.memory["generator"][0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ["momentum", "adam", "drawn", "network", "three"])
def test_layers_and_data_with_gradients_leave_no_graph_behind(name, mode):
    given = [torch.nn.Parameter(W.clone()) for W in START[name]]
    expected = digits(RUNS[name](START[name], 4))
    with mode():
        if name == "network" and mode is torch.inference_mode:
            with pytest.raises(RuntimeError, match=r"^network: wanted no torch.inference_mode"):
                next(RUNS[name](given, 4))
            return
        assert digits(RUNS[name](given, 4)) == expected
    assert all(W.grad is None and W.requires_grad for W in given)
    with_graph = squared_error(PHI * torch.ones(1, requires_grad=True))
    for it in descent.train(given, with_graph, eta=0.1, steps=2):
        assert not any(A.requires_grad for A in (*it.Ws, it.loss))
    run = descent.train(WS, LOSS, eta=0.1, steps=1)
    next(run)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Ws": torch.eye(2)}, TypeError, "Ws: wanted a sequence of matrices, got Tensor"),
        ({"Ws": []}, ValueError, "Ws: wanted at least one matrix, got none"),
        ({"Ws": [torch.eye(2), torch.eye(3)]}, ValueError, "Ws[1]: wanted 2 columns to follow"),
        ({"Ws": [torch.eye(2) * math.nan]}, ValueError, "Ws[0]: wanted finite entries, got NaN"),
        ({"Ws": [torch.ones(2, 3, 3) / 0]}, ValueError, "Ws[0]: wanted finite entries, got NaN"),
        ({"loss": PHI}, TypeError, "loss: wanted a function of the layers, got Tensor"),
        ({"rule": rules.momentum}, TypeError, "rule: wanted a Rule, got <function momentum"),
        ({"eta": 0.0}, ValueError, "eta: wanted eta > 0, got 0.0"),
        ({"lam": -0.1}, ValueError, "lam: wanted lam >= 0, got -0.1"),
        ({"lam": math.inf}, ValueError, "lam: wanted a finite number, got inf"),
        ({"steps": -1}, ValueError, "steps: wanted steps >= 0, got -1"),
        ({"steps": 1.0}, TypeError, "steps: wanted a whole number, got 1.0"),
        ({"every": 0}, ValueError, "every: wanted every >= 1, got 0"),
    ],
)
def test_arguments_are_checked_at_the_call(change, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        descent.train(**{"Ws": WS, "loss": LOSS, "eta": 0.1, "steps": 1} | change)


def test_an_iterate_of_another_method_or_a_later_one_is_refused():
    names = ["gradient-descent", "momentum", "adam", "bold-driver", "drawn", "network"]
    lasts = {name: list(RUNS[name](WS, 3))[-1] for name in names}
    for name, other in itertools.permutations(names, 2):
        with pytest.raises(ValueError, match=r"^Ws: wanted an iterate of .*its layers alone start"):
            RUNS[name](lasts[other], 9)
    with pytest.raises(
        ValueError, match=r"of gradient descent on a loss that draws, got one of gr"
    ):
        drawn(lasts["gradient-descent"], 3)
    with pytest.raises(
        ValueError, match=r"of momentum on a loss, got .*nt descent that remembers no"
    ):
        RUNS["momentum"](lasts["gradient-descent"], 3)
    for name, last in lasts.items():
        assert [it.t for it in RUNS[name](last, 3)] == [3]
        with pytest.raises(
            ValueError, match=r"^steps: wanted steps >= t = 3 of the iterate, got 2"
        ):
            RUNS[name](last, 2)


@pytest.mark.parametrize(
    ("eta", "shown"),
    [
        (50, "50"),
        (torch.tensor(50.0), "50"),
        ((50, 0.5), r"\(50, 0\.5\)"),
        (torch.full((3,), 50.0), r"\(50, 50, 50\)"),
        (lambda t: 50.0 + t, "5[0-9]"),
        (lambda t: [50, 50], r"\(50, 50\)"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_names_the_step_and_eta(eta, shown, dtype):
    seen, Ws = -1, stack(THREE) if getattr(eta, "ndim", 0) else WS
    run = descent.train([W.to(dtype) for W in Ws], squared_error(PHI.to(dtype)), eta=eta, steps=99)
    with pytest.raises(FloatingPointError) as caught:
        for it in run:
            seen = it.t
            assert it.loss.isfinite().any()
    assert re.fullmatch(
        rf"loss: wanted a finite number, got (inf|nan) at step t = {seen + 1} with eta = {shown}; "
        "a smaller eta keeps the run from diverging",
        str(caught.value),
    )
    assert 1 <= seen < 20 and (shown != "5[0-9]" or f"eta = {50 + seen};" in str(caught.value))
    # A schedule of as many step sizes as steps: it names that of the step that led there.
    with pytest.raises(FloatingPointError, match=r"at step t = 2 with eta = 1e\+200;"):
        list(descent.train(WS, LOSS, eta=[1e-9, 1e200].__getitem__, steps=2))
    with pytest.raises(FloatingPointError, match=r"at step t = 0 with eta = 1;"):
        next(descent.train([1e200 * W for W in WS], LOSS, eta=1, steps=1))


def test_divergence_between_two_iterates_is_seen_at_the_next():
    run = descent.train(WS, LOSS, eta=50, steps=1000, every=400)
    assert next(run).t == 0
    with pytest.raises(FloatingPointError, match="at step t = 400 with"):
        next(run)


# record


def iterates(ts):
    for t in ts:
        yield descent.Iterate(t, [torch.full((2, 2), t, **F64)], torch.tensor(t / 3, **F64), {}, "")


MEASURES = {
    "loss": lambda it: it.loss,
    "W": lambda it: it.Ws[0],
    "number": lambda it: it.t / 3,
    "count": lambda it: 2 * it.t,
}


def test_record_stacks_what_a_loop_would_collect():
    found = descent.record(iterates(range(5)), **MEASURES)
    assert list(found) == ["t", "loss", "W", "number", "count"]
    assert found["t"].tolist() == [0, 1, 2, 3, 4] and found["count"].dtype == torch.int64
    assert found["W"].shape == (5, 2, 2) and found["W"].dtype == torch.float64
    assert found["loss"].tolist() == found["number"].tolist() == [t / 3 for t in range(5)]


def test_record_measures_only_what_it_keeps():
    measured = []
    x = lambda it: measured.append(it.t) or it.loss  # noqa: E731
    found = descent.record(iterates(range(3, 12)), every=4, x=x)
    assert measured == found["t"].tolist() == [4, 8]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every: wanted every >= 1, got 0"),
        ({"every": 1.5}, TypeError, "every: wanted a whole number, got 1.5"),
        ({"save_every": -1}, ValueError, "save_every: wanted save_every >= 0, got -1"),
        ({"t": float}, ValueError, "measures: wanted any name but t, which holds the step, got t"),
        ({"every": 9}, ValueError, "iterates: wanted at least one, got none"),
    ],
)
def test_record_refuses(arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        descent.record(iterates([1, 2]), **arguments)


# record with a file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.pt"


def same(found, expected):
    return list(found) == list(expected) and all(
        A.dtype == B.dtype and A.device == B.device and torch.equal(A, B)
        for A, B in zip(found.values(), expected.values(), strict=True)
    )


class Interruption(BaseException):
    pass


def interrupted(run, at):
    for it in run:
        if it.t == at:
            raise Interruption
        yield it


def attempt(run, start, file, *, in_run=None, in_measure=None, every=4, steps=STEPS):
    def fragile(it):  # the second measure: the first has been taken
        if it.t == in_measure:
            raise Interruption
        return it.Ws[0]

    stream = interrupted(run(descent.resume(file, start), steps), in_run)
    return descent.record(stream, every=every, file=file, **MEASURES | {"W": fragile})


def held(file):
    return torch.load(file, weights_only=True)["t"]


@each_run
@pytest.mark.parametrize("at", [0, 1, 5, 8, 12])
def test_an_interrupted_record_is_joined(name, at, file, place):
    run, start = RUNS[name], [W.to(**place.kind) for W in START[name]]
    torch.manual_seed(5)
    expected = descent.record(run(start, STEPS), every=4, **MEASURES)
    torch.manual_seed(5)
    with pytest.raises(Interruption):
        attempt(run, start, file, in_run=at)
    assert file.exists() == (at > 0) and (at == 0 or held(file) == at - 1)
    torch.manual_seed(5 if at == 0 else 6)
    assert same(attempt(run, start, file), expected)
    assert same(attempt(run, start, file), expected)  # and when it is asked once more
    assert [path.name for path in file.parent.iterdir()] == ["run.pt"]  # no draft


def test_many_interruptions_also_of_measures(file):
    run = RUNS["adam"]
    expected = descent.record(run(WS, STEPS), every=3, **MEASURES)
    for at in (0, 2, 3, 4, 6, 6, 7, 12):
        with pytest.raises(Interruption):
            attempt(run, WS, file, in_run=at, every=3)
        with pytest.raises(Interruption):
            attempt(run, WS, file, in_measure=at + -at % 3, every=3)
    assert same(attempt(run, WS, file, every=3), expected)


def cut_at_line(n, call):
    """Raise KeyboardInterrupt at the n-th line that the modules run; return whether it came."""
    left = n

    def tracer(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in (descent.__file__, _files.__file__):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


# Between the opening of a file and the block that closes it lies a line, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_no_line_is_a_bad_one_to_be_interrupted_at(file, monkeypatch):
    monkeypatch.setattr(_files.os, "fsync", lambda _: None)  # it takes the time
    run = RUNS["momentum"]

    def cell(at=None):
        stream = interrupted(run(descent.resume(file, WS), 2), at)
        return descent.record(stream, every=2, file=file, loss=lambda it: it.loss)

    expected = descent.record(run(WS, 2), every=2, loss=lambda it: it.loss)
    with pytest.raises(Interruption):
        cell(at=1)  # so that a step without a measurement comes before one with
    begun, n = file.read_bytes(), 1
    while cut_at_line(n, cell):
        assert same(cell(), expected)
        file.write_bytes(begun)
        n += 1
    assert n > 100


def test_a_run_that_ended_gives_its_result_and_can_be_longer(file):
    run = RUNS["adam"]
    attempt(run, WS, file)
    before, measured = file.stat(), []
    count = {name: lambda it: measured.append(it.t) for name in MEASURES}
    found = descent.record(run(descent.resume(file, WS), STEPS), every=4, file=file, **count)
    assert found["t"].tolist() == [0, 4, 8, 12] and not measured
    assert file.stat() == before  # not even written again
    longer = attempt(run, WS, file, steps=21)
    assert same(longer, descent.record(run(WS, 21), every=4, **MEASURES))


def test_the_file_is_written_as_the_run_passes(file):
    for save_every, expected in ((0, [-1, 0, 1, 2]), (3600, [-1, 0, 0, 0])):
        measure = {"held": lambda it: held(file) if it.t else -1}
        found = descent.record(drawn(WS, 3), file=str(file), save_every=save_every, **measure)
        assert found["held"].tolist() == expected and held(file) == 3
        file.unlink()


def test_a_disk_that_is_full_or_a_folder_that_is_not_there_is_known_at_once(file):
    seen = []
    measure = {"x": lambda it: seen.append(it.t) or 0}
    with pytest.raises(FileNotFoundError):
        descent.record(drawn(WS, 9), file=file.parent / "no" / "run.pt", **measure)
    assert seen == [0]
    descent.record(drawn(WS, 1), file=file, **measure)
    before, (soft, hard) = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            descent.record(drawn(descent.resume(file, WS), 9), file=file, **measure)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before and len(list(file.parent.iterdir())) == 1


def test_nothing_to_measure_yet(file):
    run = RUNS["momentum"]
    *_, third = run(WS, 3)
    expected = descent.record(run(third, STEPS), every=5, **MEASURES)
    with pytest.raises(Interruption):
        attempt(run, third, file, in_run=5, every=5)
    with pytest.raises(ValueError, match=r"^iterates: wanted at least one, got none"):
        attempt(run, third, file, steps=4, every=5)
    assert same(attempt(run, third, file, every=5), expected)
    with pytest.raises(ValueError, match=r"^iterates: wanted at least one, got none"):
        descent.record(iter([]), file=file.with_name("new.pt"))
    assert not file.with_name("new.pt").exists()


def test_the_file_of_another_run_is_refused(file):
    run = RUNS["gradient-descent"]
    with pytest.raises(Interruption):
        attempt(run, WS, file, in_run=6)
    before, start = file.read_bytes(), descent.resume(file, WS)
    other = start._replace(Ws=[start.Ws[0], -start.Ws[1]])
    deeper = [*start.Ws, torch.eye(3, **F64)]
    for stream, arguments, message in [
        (run(start, 9), {"every": 4, "x": float}, r"file: wanted .* measures = \['x'\], got .* wi"),
        (run(start, 9), {"every": 3} | MEASURES, "file: wanted .* every = 3, got .*run.pt with 4"),
        (run(WS, 9), {"every": 4} | MEASURES, "iterates: wanted .* at t = 5 .*, got t = 0 with"),
        (run(other, 9), {"every": 4} | MEASURES, "iterates: .*, got t = 5 with others; start it f"),
        (run(deeper, 9), {"every": 4} | MEASURES, "iterates: .*, got t = 0 with others; start it"),
        (iterates([4]), {"every": 4} | MEASURES, "iterates: .*, got t = 4 with others"),
        (iter([start._replace(t=4)]), {"every": 4} | MEASURES, "iterates: .* got t = 4; start it"),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            descent.record(stream, file=file, **arguments)
        assert file.read_bytes() == before


def test_resume_asks_for_the_same_start(file):
    run = RUNS["momentum"]
    whole = list(run(WS, 7))
    assert descent.resume(file, WS) is WS and descent.resume(file, whole[3]) is whole[3]
    descent.record(run(WS, 3), file=file)
    for start in (WS, [W * (1 + 1e-12) for W in WS], [W.numpy() for W in WS]):  # rounding
        assert digits([descent.resume(file, start)]) == digits(whole[3:4])
    for change, message in [
        (WS[:1], "Ws0: wanted 2 layers as in .*run.pt, got 1"),
        ([WS[0], torch.zeros(9, 5, **F64)], r"Ws0\[1\]: wanted shape \(3, 5\), got \(9, 5\)"),
        ([W.float() for W in WS], r"Ws0\[0\]: wanted torch.float64 on cpu as in .*run.pt, got"),
        ([WS[0], WS[1] * (1 + 1e-7)], r"Ws0\[1\]: wanted the layer from which the run in .*run.pt"),
        (whole[4], r"Ws0\[0\]: wanted the layer from which"),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            descent.resume(file, change)
    file.unlink()
    descent.record(run(whole[3], 7), file=file)  # a run may start from an iterate
    assert digits([descent.resume(file, whole[3])]) == digits(whole[7:])


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path(self.trace),)


def test_a_damaged_or_foreign_file_is_named_and_left(file):
    descent.record(RUNS["adam"](WS, 3), file=file)
    good, code = file.read_bytes(), RunsCode()
    (at,) = [m.start() for m in re.finditer(re.escape(WS[0].numpy().tobytes()), good)][-1:]
    flipped, code.trace = bytearray(good), str(file.with_name("trace"))
    flipped[at + 9] ^= 1  # one bit of one weight
    bad = [b"", b"not a file of torch", good[: len(good) // 2], good[:-1], bytes(flipped)]
    for content in ({"t": 1}, [1, 2], {"format": "other"}, None, {"format": code}):
        torch.save(content, file)
        bad.append(file.read_bytes())
    for damaged in bad:
        file.write_bytes(damaged)
        for use in (lambda: descent.resume(file, WS), lambda: descent.record(iter([]), file=file)):
            with pytest.raises(ValueError, match=f"^file: wanted a run .*{re.escape(str(file))}, "):
                use()
        assert file.read_bytes() == damaged  # whatever it is, it may be somebody's
    assert not Path(code.trace).exists()


def test_two_processes_may_record_one_file(file):
    # Whoever comes last has it: it is whole at every moment, and nobody stumbles.
    other = multiprocessing.get_context("fork").Process(target=write_loop, args=(file,))
    other.start()
    for _ in range(15):
        _files.write_whole(file, lambda stream: torch.save({"format": "ours", "A": X}, stream))
        assert set(_files.read_torch(file, torch.load(file)["format"])) == {"format", "A"}
    other.join()
    assert other.exitcode == 0 and [path.name for path in file.parent.iterdir()] == ["run.pt"]


def write_loop(file):
    for _ in range(15):
        _files.write_whole(file, lambda stream: torch.save({"format": "ours", "A": -X}, stream))


def test_a_progress_bar_goes_around_the_run(file):
    run, bars = RUNS["adam"], []

    def cell(steps=STEPS, at=None):
        start, shown = descent.resume(file, WS), io.StringIO()
        stream = interrupted(run(start, steps), at)
        bar = tqdm(stream, total=steps + 1, initial=getattr(start, "t", 0), file=shown)
        try:
            return descent.record(bar, every=4, file=file, **MEASURES)
        finally:
            bars.append(re.findall(r" (\d+/\d+) ", shown.getvalue()))

    with pytest.raises(Interruption):
        cell(at=6)
    assert same(cell(), descent.record(run(WS, STEPS), every=4, **MEASURES))
    assert same(cell(20), descent.record(run(WS, 20), every=4, **MEASURES))
    assert [(bar[0], bar[-1]) for bar in bars] == [
        ("0/13", "6/13"),
        ("5/13", "13/13"),
        ("12/21", "21/21"),
    ]


def test_device_and_dtype_are_kept(place):
    exact = list(RUNS["three"](START["three"], STEPS))[-1]
    *_, it = RUNS["three"]([W.to(**place.kind) for W in START["three"]], STEPS)
    for A, other in zip((*it.Ws, it.loss), (*exact.Ws, exact.loss), strict=True):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
        assert (A.cpu().double() - other).abs().max() < place.tolerance
