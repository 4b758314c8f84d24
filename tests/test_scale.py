"""Two scales from one source, and records that are never half written."""

import json

import pytest
import torch

from lop_utils import scale

HOW = {"seed": 7, "device": "a machine", "seconds": 1.26}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout's folder of records, at paper scale."""
    monkeypatch.setenv("LOP_SCALE", "paper")
    monkeypatch.setattr(scale, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent.parent))  # no checkout
    return tmp_path


@pytest.mark.parametrize(
    ("variable", "picked"), [(None, 1), ("book", 1), ("paper", 2)], ids=["unset", "book", "paper"]
)
def test_pick(monkeypatch, variable, picked):
    monkeypatch.delenv("LOP_SCALE", raising=False)
    if variable is not None:
        monkeypatch.setenv("LOP_SCALE", variable)
    assert scale.pick(book=1, paper=2) == picked


@pytest.mark.parametrize(
    "act",
    [lambda: scale.pick(book=1, paper=2), lambda: scale.record("x", {}, **HOW)],
    ids=["pick", "record"],
)
def test_an_unknown_scale(monkeypatch, act):
    monkeypatch.setenv("LOP_SCALE", "Paper")
    with pytest.raises(ValueError, match="LOP_SCALE: wanted 'book' or 'paper', got 'Paper'"):
        act()


def test_a_record_round_trips(folder):
    values = {
        "pi": 3.14159265358979,
        "small": 1.23456789e-15,
        "count": 12345678,  # whole numbers stay whole and complete
        "name": "d = 1000",
        "flag": True,
        "nothing": None,
        "tensor": torch.tensor([[1 / 3, 2.0]], dtype=torch.float64),
        "nested": {"list": [1 / 3, (torch.tensor(2),)]},
    }
    scale.record("example", values, **HOW)
    found = scale.recorded("example")
    assert set(found) == {"id", "seed", "commit", "device", "seconds", "torch", "values"}
    assert (found["id"], found["seed"], found["device"]) == ("example", 7, "a machine")
    assert found["seconds"] == 1.3
    assert found["torch"] == torch.__version__
    assert found["commit"] == "unknown"
    assert found["values"] == {
        "pi": 3.14159,
        "small": 1.23457e-15,
        "count": 12345678,
        "name": "d = 1000",
        "flag": True,
        "nothing": None,
        "tensor": [[0.333333, 2.0]],
        "nested": {"list": [0.333333, [2]]},
    }


@pytest.mark.parametrize(
    ("values", "error"),
    [
        pytest.param({"loss": float("nan")}, ValueError, id="nan"),
        pytest.param({"loss": object()}, TypeError, id="no-json"),
    ],
)
def test_a_record_that_fails_leaves_the_old_one(folder, values, error):
    scale.record("example", {"loss": 1.0}, **HOW)
    before = (folder / "example.json").read_bytes()
    with pytest.raises(error, match="JSON"):
        scale.record("example", values, **HOW)
    assert (folder / "example.json").read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["example.json"]


def test_a_write_that_is_cut_short_leaves_the_old_record(folder, monkeypatch):
    scale.record("example", {"loss": 1.0}, **HOW)

    def half(path, text):
        with open(path, "w") as file:
            file.write(text[: len(text) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(scale.Path, "write_text", half)
    with pytest.raises(OSError, match="no space left"):
        scale.record("example", {"loss": 2.0}, **HOW)
    assert json.loads((folder / "example.json").read_text())["values"] == {"loss": 1.0}


def test_a_new_record_replaces_the_old_one(folder):
    for loss in (1.0, 2.0):
        scale.record("example", {"loss": loss}, **HOW)
    assert scale.recorded("example")["values"] == {"loss": 2.0}


def test_names_may_hold_dots(folder):
    for name in ("intro.spectrum", "intro.angles"):
        scale.record(name, {"name": name}, **HOW)
    assert scale.recorded("intro.spectrum")["values"] == {"name": "intro.spectrum"}


def test_book_scale_records_nothing(folder, monkeypatch):
    monkeypatch.delenv("LOP_SCALE")
    scale.record("example", {"loss": 1.0}, **HOW)
    assert not list(folder.iterdir())


def test_nowhere_to_record(folder, monkeypatch):
    monkeypatch.setattr(scale, "_CHECKOUT", folder / "absent")
    with pytest.raises(FileNotFoundError, match="wanted a checkout of the book to record 'exam"):
        scale.record("example", {}, **HOW)


def test_nothing_recorded(folder):
    with pytest.raises(FileNotFoundError, match="wanted the name of a record, got 'absent'; LOP_"):
        scale.recorded("absent")


def test_without_a_checkout_the_installed_copy_is_read(folder, monkeypatch):
    (folder / "_recorded").mkdir()
    (folder / "_recorded" / "example.json").write_text('{"values": 1}')
    monkeypatch.setattr(scale, "_CHECKOUT", folder / "absent")
    monkeypatch.setattr(scale.resources, "files", lambda package: folder)
    assert scale.recorded("example") == {"values": 1}


def test_at_book_scale_there_is_no_checkpoint(monkeypatch):
    monkeypatch.delenv("LOP_SCALE", raising=False)
    assert scale.checkpoint("x") is None


def test_at_paper_scale_a_checkpoint_lies_among_what_make_clean_removes(tmp_path, monkeypatch):
    records = tmp_path / "book" / "_recorded"
    records.mkdir(parents=True)
    monkeypatch.setenv("LOP_SCALE", "paper")
    monkeypatch.setattr(scale, "_CHECKOUT", records)
    file = scale.checkpoint("run-0")
    assert file == tmp_path / "build" / "runs" / "run-0.pt"
    assert file.parent.is_dir()
    assert not file.exists()


def test_without_a_checkout_there_is_nowhere_for_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("LOP_SCALE", "paper")
    monkeypatch.setattr(scale, "_CHECKOUT", tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="id: wanted a checkout of the book to keep 'x'"):
        scale.checkpoint("x")
