"""Runs at full size, here at a small one: they go on after an interruption, and record."""

from dataclasses import replace

import full_size
import pytest
import torch
from full_size import DIGITS

from lop_utils.book import scale

SMALL = replace(DIGITS, d=16, depth=1, heads=2, hidden=32, batch=16, steps=6, every=2)


def test_an_interrupted_transformer_ends_as_one_that_was_not(tmp_path, monkeypatch):
    whole = full_size.train(SMALL, tmp_path / "whole.pt")
    step, seen = torch.optim.SGD.step, []

    def broken(self, *args, **kwargs):
        seen.append(step(self, *args, **kwargs))
        if len(seen) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", broken)
    with pytest.raises(KeyboardInterrupt):
        full_size.train(SMALL, tmp_path / "cut.pt", save_every=3)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    again = full_size.train(SMALL, tmp_path / "cut.pt")
    assert torch.equal(again["spectra"], whole["spectra"]) and again["loss"] == whole["loss"]
    assert again["t"] == [0, 2, 4, 6] and again["spectra"].shape == (4, 16)
    assert (again["spectra"][0] - 1).abs().max() < 1e-5 < again["change"][0]
    with pytest.raises(ValueError, match=r"wanted a run of .*another; delete it"):
        full_size.train(replace(SMALL, eta=0.1), tmp_path / "cut.pt")


@pytest.mark.parametrize(("run", "kept"), [("inputs", False), ("momentum", True), ("adam", False)])
def test_the_law_at_another_size(tmp_path, monkeypatch, run, kept):
    found = {}
    monkeypatch.setattr(scale, "checkpoint", lambda id: tmp_path / f"{id}.pt")
    monkeypatch.setattr(scale, "save_result", lambda id, values, **_: found.update({id: values}))
    full_size.wide(run, d=30, steps=400, every=100)
    values = found[f"limits-{run}"]
    assert values["sv"].shape[0] == len(values["off"]) == len(values["angle"]) + 1 == 5
    assert (values["off"].max() < 1e-12) == kept
    assert (values["angle"].max() < 1e-6) == kept
    assert run == "adam" or values["moved"][-1] == 6
