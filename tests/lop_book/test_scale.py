"""Two scales from one source, and results that are never lost nor half written."""

import json
import math
import os

import numpy as np
import pytest
import torch

from lop_utils.book import scale

HOW = {"seed": 7, "device": "a machine", "seconds": 1.26}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout's folder of records, at paper scale."""
    folder = tmp_path / "book" / "_recorded"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LOP_SCALE", "paper")
    monkeypatch.setattr(scale, "_CHECKOUT", folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # no checkout
    return folder


def test_each_scale_has_its_values(folder, monkeypatch):
    assert scale.pick(book=1, paper=2) == 2
    file = scale.checkpoint("run-0")  # among what `make clean` removes
    assert file == folder.parents[1] / "build" / "runs" / "run-0.pt"
    assert file.parent.is_dir() and not file.exists()
    for said in (True, False):
        monkeypatch.setenv("LOP_SCALE", "book") if said else monkeypatch.delenv("LOP_SCALE")
        assert (scale.pick(book=1, paper=2), scale.checkpoint("run-0")) == (1, None)
        scale.save_result("example", {}, **HOW)
        assert not list(folder.iterdir())


def test_what_cannot_be_is_said_before_the_hours(folder, monkeypatch):
    def refused(error, message):
        for ask in (
            lambda: scale.pick(book=1, paper=2),
            lambda: scale.checkpoint("x"),
            lambda: scale.save_result("x", {}, **HOW),
        ):
            with pytest.raises(error, match=message):
                ask()

    with monkeypatch.context() as read_only:
        read_only.setattr(scale.os, "access", lambda path, mode: mode != os.W_OK)
        refused(FileNotFoundError, r"that can be written$")
    monkeypatch.setattr(scale, "_CHECKOUT", folder / "absent")
    refused(FileNotFoundError, r"^LOP_SCALE=paper: wanted a checkout of the book")
    monkeypatch.setenv("LOP_SCALE", "Paper")
    refused(ValueError, "LOP_SCALE: wanted 'book' or 'paper', got 'Paper'")


VALUES = {
    "pi": (3.14159265358979, 3.14159),
    "small": (1.23456789e-15, 1.23457e-15),
    "count": (12345678, 12345678),  # whole numbers stay whole and complete
    "name": ("d = 1000", "d = 1000"),
    "flag": (True, True),
    "nothing": (None, None),
    "tensor": (torch.tensor([[1 / 3, 2.0]]), [[0.333333, 2.0]]),
    "nested": ({"list": [1 / 3, (torch.tensor(2),)]}, {"list": [0.333333, [2]]}),
    "array": (np.array([[1, 2]]), [[1, 2]]),
    "number": (np.float32(0.5), 0.5),
    "bool": (np.bool_(True), True),
    "key": ({np.int64(3): 1}, {"3": 1}),
    "infinite": ([math.inf, torch.tensor(-math.inf)], [math.inf, -math.inf]),
    "odd": (1j, "1j"),
}


def test_a_result_round_trips_whatever_it_holds(folder):
    values = {name: value for name, (value, _) in VALUES.items()}
    for more in ({}, {"nan": np.nan}):  # the second replaces the first
        scale.save_result("intro.spectrum", {**values, **more}, **HOW)
    found = scale.load_result("intro.spectrum")
    assert set(found) == {"id", "seed", "commit", "device", "seconds", "torch", "values"}
    assert (found["id"], found["seed"], found["device"]) == ("intro.spectrum", 7, "a machine")
    assert (found["seconds"], found["torch"]) == (1.3, torch.__version__)
    assert found["commit"] == "unknown"
    assert math.isnan(found["values"].pop("nan"))
    assert found["values"] == {name: wanted for name, (_, wanted) in VALUES.items()}

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    json.loads((folder / "intro.spectrum.json").read_text(), parse_constant=refuse)


def test_where_there_is_no_git_a_result_is_saved(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    scale.save_result("example", {}, **HOW)
    assert scale.load_result("example")["commit"] == "unknown"


def test_without_a_checkout_the_installed_copy_is_read(folder, monkeypatch):
    (folder / "example.json").write_text('{"values": 1}')
    monkeypatch.setattr(scale, "_CHECKOUT", folder / "absent")
    monkeypatch.setattr(scale.resources, "files", lambda package: folder.parent)
    assert scale.load_result("example") == {"values": 1}
    with pytest.raises(FileNotFoundError, match="wanted the name of a record, got 'absent'; LOP_"):
        scale.load_result("absent")
