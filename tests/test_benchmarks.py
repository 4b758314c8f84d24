"""The benchmarks run, print their tables, and record nothing unless they mean it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chromium import HOW_TO_GET, find_chromium

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
RECORDS = ROOT / "book" / "_recorded"

# As where JAX is not installed.
WITHOUT_JAX = """
import runpy, sys
sys.modules["jax"] = None
script = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def run(name, *words, launch=("-c", WITHOUT_JAX), **more):
    environment = {name: value for name, value in os.environ.items() if name != "LOP_SCALE"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *launch, str(FOLDER / name), *words],
        env=environment | more,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def records():
    return {file.name: file.read_bytes() for file in RECORDS.iterdir()}


needs_chromium = pytest.mark.skipif(
    find_chromium() is None and not os.environ.get("CI"), reason=HOW_TO_GET
)


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import common

    yield common
    sys.modules.pop("common")


@pytest.fixture
def rivals(common):
    import rivals

    yield rivals
    sys.modules.pop("rivals")


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("step.py", "autograd ms"),
        ("core.py", "generator"),
        ("model.py", "predicted"),
        ("machine.py", "fetch ns"),
        ("recovery.py", "iterations"),
        ("completion.py", "of its seconds"),
        ("bandwidth.py", "copy GB/s"),
        ("rows.py", "numbers a step"),
        ("grading.py", "submissions in"),
        ("kills.py", "steps lost"),
        ("threads.py", "one thread s"),
        ("adapters.py", "peak MiB"),
        ("rivals.py", "RMSE searched"),
        pytest.param("frames.py", "above 4 ms", marks=needs_chromium),
    ],
)
def test_script_runs_without_jax_and_records_nothing(name, column):
    before = records()
    printed = run(name, "--quick", "--threads", "1")
    assert column in printed
    assert records() == before
    if name in ("step.py", "core.py"):
        assert "JAX is not installed" in printed


@pytest.mark.weekly
def test_rows_run_in_two_processes():
    before = records()
    launch = ("-m", "torch.distributed.run", "--standalone")
    launch += ("--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    printed = run("rows.py", "--quick", launch=launch)
    heading, row = printed.splitlines()[-2:]
    assert "speed-up" in heading
    assert row.split()[0] == "2"
    assert records() == before


def test_without_a_gpu_what_needs_one_says_so():
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert "not run" in run("core.py", "--device", "cuda", **hidden)
    assert "not run" in run("adapters.py", "--device", "cuda", **hidden)
    assert "not run" in run("bandwidth.py", **hidden)


def test_interleaved_takes_turns_and_measures(common):
    calls = []

    def call(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    found = common.interleaved(
        {"slow": lambda: call("slow", 0.02), "quick": lambda: call("quick", 0.002)},
        seconds=0.05,
        warm=1,
        at_least=3,
    )
    assert calls[:6] == ["slow", "quick"] * 3
    assert len(calls) >= 8  # one warm round and three that count
    median, minimum = found["slow"]
    assert 0.02 <= minimum <= median
    assert found["slow"].minimum > found["quick"].minimum >= 0.002


def test_agree_raises_where_numbers_differ(common):
    import torch

    one = torch.ones(3, dtype=torch.float64)
    common.agree("same", [one], [one + 1e-13])
    with pytest.raises(AssertionError, match="other: off by"):
        common.agree("other", [one], [one + 1e-8])


def test_simulated_kinds_are_as_said(rivals):
    for name, kind in (rivals.QUICK | rivals.KINDS).items():
        seen = rivals.simulated(kind, seed=0)
        assert (len(seen), seen.shape) == (kind.count, (kind.users, kind.items))
        whole = bool((seen.values == seen.values.round()).all())
        assert whole == kind.rounded == (name != "nearly exact")


def test_a_search_sees_nothing_of_what_judges_it(rivals):
    kind = rivals.Kind(30, 20, 200, 0, 1.0)
    train, test = rivals.observed.split(rivals.simulated(kind, 0), 0.1, generator=0)
    test = test.with_values(0 * test.values + 1)  # unlike what is trained on
    given = []

    def fit(seen, constant=2.0):
        given.append(len(seen))
        return lambda rows, cols: constant + 0.0 * rows

    # Who peeked would choose 1, and be right.
    assert rivals.searched(fit, [{"constant": 1.0}, {"constant": 4.0}], train, test) == 3.0
    assert given == [162, 162, 180]
    assert rivals.at_defaults(fit, [], train, test) == 1.0 and given[-1] == 180


def test_record_is_read_by_the_package(common, monkeypatch, tmp_path):
    monkeypatch.setattr("lop_utils.book.scale._CHECKOUT", tmp_path)
    monkeypatch.setattr(common, "jax_or_none", lambda: None)
    common.record("example", {"columns": ["d"], "rows": [[3]]})
    found = common.scale.load_result("bench-example")
    assert found["values"]["rows"] == [[3]]
    assert found["values"]["environment"]["jax"] is None
    assert os.environ.get("LOP_SCALE") != "paper"


@pytest.mark.parametrize("file", sorted(RECORDS.glob("bench-*.json")), ids=lambda file: file.stem)
def test_records_name_their_environment(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["id"] == file.stem
    assert {"cpu", "threads", "torch", "jax"} <= set(found["values"]["environment"])
