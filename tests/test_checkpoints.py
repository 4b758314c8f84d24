"""Runs that are interrupted at every point, against runs that are not."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from test_descent import digits, every_run, runs_of
from tqdm import tqdm

from lop_utils import checkpoints, descent, dln, losses

F64 = {"dtype": torch.float64}
DIMS = (4, 5, 3)
STEPS = 12


@pytest.fixture
def Ws(generator):
    return dln.gaussian_init(DIMS, 0.8, generator=generator)


@pytest.fixture
def Phi(generator):
    return torch.randn(DIMS[-1], DIMS[0], generator=generator, **F64)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.pt"


def same(found, expected):
    return list(found) == list(expected) and all(
        A.dtype == B.dtype and A.device == B.device and torch.equal(A, B)
        for A, B in zip(found.values(), expected.values(), strict=True)
    )


MEASURES = {
    "loss": lambda it: it.loss,
    "W": lambda it: it.Ws[0],
    "number": lambda it: it.t / 3,
    "count": lambda it: 2 * it.t,
}


# save and load


@every_run
def test_what_is_loaded_goes_on_digit_for_digit(Ws, Phi, file, name):
    run = runs_of(Phi)[name]
    torch.manual_seed(5)
    whole = list(run(Ws, STEPS))
    checkpoints.save(str(file), whole[5])
    loaded = checkpoints.load(str(file))
    assert isinstance(loaded, descent.Iterate) and digits([loaded]) == digits([whole[5]])
    assert digits(run(loaded, STEPS)) == digits(whole[5:])
    assert [path.name for path in file.parent.iterdir()] == ["run.pt"]  # no draft


def test_strides_are_kept(file):
    # A product of the same numbers in another order of memory may differ in its last digit.
    W = torch.randn(3, 4, **F64).T
    checkpoints.save(file, descent.Iterate(0, [torch.nn.Parameter(W)], W.sum()))
    (loaded,) = checkpoints.load(file).Ws
    assert loaded.stride() == W.stride() == (1, 4) and type(loaded) is torch.Tensor
    assert not loaded.requires_grad


def interrupt(*_, **__):
    raise KeyboardInterrupt


def half(content, stream):
    stream.write(b"half a file")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (torch, ("save", half)),
        (Path, ("replace", interrupt)),
        (checkpoints.os, ("fsync", interrupt)),
    ],
    ids=["while-writing", "before-replacing", "while-waiting-for-the-disk"],
)
def test_an_interrupted_save_keeps_the_older_file(Ws, file, monkeypatch, where, what):
    first, second = (descent.Iterate(t, Ws, torch.tensor(1.0)) for t in (1, 2))
    for older in ([], ["run.pt"]):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, *what)
            checkpoints.save(file, second)
        assert [path.name for path in file.parent.iterdir()] == older
        checkpoints.save(file, first)
    assert checkpoints.load(file).t == 1


def test_a_damaged_file_is_named(Ws, file):
    checkpoints.save(file, descent.Iterate(3, Ws, torch.tensor(1.0)))
    good = file.read_bytes()
    (at,) = [m.start() for m in re.finditer(re.escape(Ws[0].numpy().tobytes()), good)]
    flipped = bytearray(good)
    flipped[at + 9] ^= 1  # one bit of one weight
    for bad in (b"", b"not a file of torch", good[: len(good) // 2], good[:-1], bytes(flipped)):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=f"^file: wanted a run .*{re.escape(str(file))}, dam"):
            checkpoints.load(file)
        with pytest.raises(ValueError, match=r"^file: wanted a run that was saved, got .*, dam"):
            checkpoints.resume(file, Ws)
        with pytest.raises(ValueError, match=r"^file: wanted a run that was saved, got .*, dam"):
            checkpoints.record(iter([]), file=file)
        assert file.read_bytes() == bad  # whatever it is, it may be somebody's


@pytest.mark.parametrize(
    "content",
    [{"t": 1, "Ws": []}, [1, 2], {"format": "other"}, {"format": "lop_utils.checkpoints 1"}, None],
    ids=["no-format", "list", "other", "no-layers", "none"],
)
def test_a_foreign_file_is_named(Ws, file, content):
    torch.save(content, file)
    with pytest.raises(ValueError, match=f"^file: wanted a run .*{re.escape(str(file))}"):
        checkpoints.load(file)


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path(self.trace),)


def test_a_file_that_would_run_code_is_refused(file):
    code = RunsCode()
    code.trace = str(file.with_name("trace"))
    torch.save({"format": code}, file)
    with pytest.raises(ValueError, match=r"^file: wanted"):
        checkpoints.load(file)
    assert not Path(code.trace).exists()


# resume


def test_resume_asks_for_the_same_start(Ws, Phi, file):
    run = runs_of(Phi)["gradient_descent"]
    assert checkpoints.resume(file, Ws) is Ws
    descent.record(run(Ws, 3), file=file)
    assert checkpoints.resume(file, Ws).t == 3
    assert checkpoints.resume(file, [W * (1 + 1e-12) for W in Ws]).t == 3  # rounding
    for change, message in [
        (Ws[:1], "Ws0: wanted 2 layers as in "),
        ([Ws[0], torch.zeros(9, 5, **F64)], r"Ws0\[1\]: wanted shape \(3, 5\), got \(9, 5\)"),
        ([W.float() for W in Ws], r"Ws0\[0\]: wanted torch.float64 on cpu as in .*run.pt, got"),
        ([Ws[0], Ws[1] * 1.001], r"Ws0\[1\]: wanted the layer from which the run in .*run.pt sta"),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            checkpoints.resume(file, change)


def test_resume_goes_on_from_an_iterate(Ws, Phi, file):
    run = runs_of(Phi)["heavy_ball"]
    whole = list(run(Ws, STEPS))
    assert checkpoints.resume(file, whole[3]) is whole[3]
    descent.record(run(whole[3], 7), file=file)
    assert digits([checkpoints.resume(file, whole[3])]) == digits(whole[7:8])
    with pytest.raises(ValueError, match=r"^Ws0\[0\]: wanted the layer from which"):
        checkpoints.resume(file, whole[4])


# record with a file


class Interruption(BaseException):
    pass


def interrupted(run, at):
    for it in run:
        if it.t == at:
            raise Interruption
        yield it


def attempt(run, Ws, file, *, in_run=None, in_measure=None, every=4, steps=STEPS):
    def fragile(it):  # the second measure: the first has been taken
        if it.t == in_measure:
            raise Interruption
        return it.Ws[0]

    start = descent.resume(file, Ws)
    stream = run(start, steps) if in_run is None else interrupted(run(start, steps), in_run)
    return descent.record(stream, every=every, file=file, **(MEASURES | {"W": fragile}))


@every_run
@pytest.mark.parametrize("at", [0, 1, 4, 5, 7, 8, 12])
def test_an_interrupted_record_is_joined(Ws, Phi, file, name, at):
    run = runs_of(Phi)[name]
    torch.manual_seed(5)
    expected = descent.record(run(Ws, STEPS), every=4, **MEASURES)
    torch.manual_seed(5)
    with pytest.raises(Interruption):
        attempt(run, Ws, file, in_run=at)
    assert file.exists() == (at > 0) and (at == 0 or checkpoints.load(file).t == at - 1)
    torch.manual_seed(5 if at == 0 else 6)
    assert same(attempt(run, Ws, file), expected)
    assert same(attempt(run, Ws, file), expected)  # and when it is asked once more


@pytest.mark.parametrize("at", [0, 4, 8, 12])
def test_a_measure_that_is_interrupted_counts_for_nothing(Ws, Phi, file, at):
    run = runs_of(Phi)["heavy_ball"]
    expected = descent.record(run(Ws, STEPS), every=4, **MEASURES)
    with pytest.raises(Interruption):
        attempt(run, Ws, file, in_measure=at)
    assert same(attempt(run, Ws, file), expected)


def test_many_interruptions(Ws, Phi, file):
    run = runs_of(Phi)["adam"]
    expected = descent.record(run(Ws, STEPS), every=3, **MEASURES)
    for at in (2, 3, 4, 6, 6, 7, 12):
        with pytest.raises(Interruption):
            attempt(run, Ws, file, in_run=at, every=3)
        with pytest.raises(Interruption):
            attempt(run, Ws, file, in_measure=at + -at % 3, every=3)
    assert same(attempt(run, Ws, file, every=3), expected)


def test_a_keyboard_interrupt_in_the_residual_is_survived(Ws, Phi, file):
    calls = 0

    def residual(W):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return losses.matrix_residual(Phi)(W)

    def cell():
        start = descent.resume(file, Ws)
        run = descent.heavy_ball(start, residual, eta=0.01, beta=0.9, steps=STEPS)
        return descent.record(run, every=5, file=file, **MEASURES)

    with pytest.raises(KeyboardInterrupt):
        cell()
    assert checkpoints.load(file).t == 5
    found = cell()
    run = descent.heavy_ball(Ws, residual, eta=0.01, beta=0.9, steps=STEPS)
    assert same(found, descent.record(run, every=5, **MEASURES))


def cut_at_line(n, call):
    """Raise KeyboardInterrupt at the n-th line that the module runs; return whether it came."""
    left = n

    def tracer(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename != checkpoints.__file__:
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
def test_no_line_is_a_bad_one_to_be_interrupted_at(Ws, Phi, file, monkeypatch):
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _: None)  # it takes the time
    run = runs_of(Phi)["heavy_ball"]

    def cell(at=None):
        stream = interrupted(run(descent.resume(file, Ws), 2), at)
        return descent.record(stream, every=2, file=file, loss=lambda it: it.loss)

    expected = descent.record(run(Ws, 2), every=2, loss=lambda it: it.loss)
    with pytest.raises(Interruption):
        cell(at=1)  # so that a step without a measurement comes before one with
    begun, n = file.read_bytes(), 1
    while cut_at_line(n, cell):
        assert same(cell(), expected)
        file.write_bytes(begun)
        n += 1
    assert n > 100


def test_a_run_that_ended_gives_its_result_and_can_be_longer(Ws, Phi, file):
    run = runs_of(Phi)["adam"]
    attempt(run, Ws, file)
    before = file.stat()
    measured = []
    stream = run(descent.resume(file, Ws), STEPS)
    count = {name: lambda it: measured.append(it.t) for name in MEASURES}
    found = descent.record(stream, every=4, file=file, **count)
    assert found["t"].tolist() == [0, 4, 8, 12] and not measured
    assert file.stat() == before  # not even written again
    longer = attempt(run, Ws, file, steps=21)
    assert same(longer, descent.record(run(Ws, 21), every=4, **MEASURES))


def test_the_file_is_written_as_the_run_passes(Ws, Phi, file):
    run = runs_of(Phi)["minibatch_sgd"]

    def in_file(it):
        return checkpoints.load(file).t if it.t else -1

    found = descent.record(run(Ws, 3), file=file, save_every=0, in_file=in_file)
    assert found["in_file"].tolist() == [-1, 0, 1, 2]
    file.unlink()
    # An hour is not over: only the first iterate has been written when a process is killed.
    found = descent.record(run(Ws, 3), file=file, save_every=3600, in_file=in_file)
    assert found["in_file"].tolist() == [-1, 0, 0, 0] and checkpoints.load(file).t == 3


def test_a_file_that_cannot_be_written_is_known_at_once(Ws, Phi, tmp_path):
    seen = []
    with pytest.raises(FileNotFoundError):
        descent.record(
            runs_of(Phi)["adam"](Ws, 9),
            file=tmp_path / "no" / "run.pt",
            x=lambda it: seen.append(it.t) or 0,
        )
    assert seen == [0]


def test_nothing_to_measure_yet(Ws, Phi, file):
    run = runs_of(Phi)["heavy_ball"]
    *_, third = run(Ws, 3)
    expected = descent.record(run(third, STEPS), every=5, **MEASURES)
    with pytest.raises(Interruption):
        attempt(run, third, file, in_run=5, every=5)
    with pytest.raises(ValueError, match=r"^iterates: wanted at least one, got none"):
        attempt(run, third, file, steps=4, every=5)
    assert same(attempt(run, third, file, every=5), expected)
    with pytest.raises(ValueError, match=r"^iterates: wanted at least one, got none"):
        descent.record(iter([]), file=file.with_name("new.pt"))
    assert not file.with_name("new.pt").exists()


def test_the_file_of_another_run_is_refused(Ws, Phi, file):
    run = runs_of(Phi)["gradient_descent"]
    with pytest.raises(Interruption):
        attempt(run, Ws, file, in_run=6)
    before = file.read_bytes()
    start = checkpoints.load(file)
    other = start._replace(Ws=[start.Ws[0], -start.Ws[1]])
    names = re.escape(str(list(MEASURES)))
    for stream, arguments, message in [
        (
            run(start, 9),
            {"every": 4, "x": float},
            rf"file: wanted .* with measures = \['x'\], got .* with {names}",
        ),
        (
            run(start, 9),
            {"every": 3} | MEASURES,
            "file: wanted .* with every = 3, got .*run.pt with 4",
        ),
        (
            run(Ws, 9),
            {"every": 4} | MEASURES,
            "iterates: wanted to go on at t = 5 .* starts at t = 0; st",
        ),
        (
            run(other, 9),
            {"every": 4} | MEASURES,
            "iterates: wanted the layers that .* holds at t = 5, got",
        ),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            descent.record(stream, file=file, **arguments)
        assert file.read_bytes() == before
    checkpoints.save(file, start)  # an iterate, of which nothing was measured
    with pytest.raises(ValueError, match=r"with measures = .*, got .*run.pt with none"):
        attempt(run, Ws, file)


@pytest.mark.parametrize("save_every", [-1, float("nan")])
def test_save_every_is_checked(save_every):
    with pytest.raises(ValueError, match=r"^save_every: wanted"):
        descent.record(iter([]), save_every=save_every)


def test_a_progress_bar_goes_around_the_run(Ws, Phi, file):
    run = runs_of(Phi)["adam"]

    def cell(steps=STEPS, at=None):
        start = descent.resume(file, Ws)
        stream = interrupted(run(start, steps), at)
        shown = io.StringIO()
        bar = tqdm(stream, total=steps + 1, initial=getattr(start, "t", 0), file=shown)
        try:
            return descent.record(bar, every=4, file=file, **MEASURES)
        finally:
            bars.append(shown.getvalue())

    bars = []
    with pytest.raises(Interruption):
        cell(at=6)
    assert same(cell(), descent.record(run(Ws, STEPS), every=4, **MEASURES))
    assert same(cell(20), descent.record(run(Ws, 20), every=4, **MEASURES))
    counts = [re.findall(r" (\d+/\d+) ", bar) for bar in bars]
    assert [count[0] for count in counts] == ["0/13", "5/13", "12/21"]
    assert [count[-1] for count in counts] == ["6/13", "13/13", "21/21"]


# A broken variant would be noticed


@pytest.mark.parametrize(
    "forget",
    [
        lambda c: (
            c | {"memory": c["memory"] | {"velocity": [0 * M for M in c["memory"]["velocity"]]}}
        ),
        lambda c: c | {"record": {name: A[:-1] for name, A in c["record"].items()}},
        lambda c: (
            c | {"record": {name: A[[*range(len(A)), -1]] for name, A in c["record"].items()}}
        ),
    ],
    ids=["velocity", "a-measurement", "a-measurement-twice"],
)
def test_a_broken_file_would_not_pass(Ws, Phi, file, forget):
    run = runs_of(Phi)["heavy_ball"]
    with pytest.raises(Interruption):
        attempt(run, Ws, file, in_run=6)
    torch.save(forget(torch.load(file, weights_only=True)), file)
    assert not same(attempt(run, Ws, file), descent.record(run(Ws, STEPS), every=4, **MEASURES))


# Device and dtype


@every_run
def test_device_and_dtype_go_through_the_file(place, Ws, Phi, file, name):
    run = runs_of(Phi.to(**place.kind))[name]
    start = [W.to(**place.kind) for W in Ws]
    torch.manual_seed(5)
    expected = descent.record(run(start, STEPS), every=4, **MEASURES)
    torch.manual_seed(5)
    with pytest.raises(Interruption):
        attempt(run, start, file, in_run=6)
    assert same(attempt(run, start, file), expected)
