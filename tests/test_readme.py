"""The README's examples run as they stand, and show what they say."""

import re
from pathlib import Path

import torch

from lop_utils.book import live as widgets
from lop_utils.book import ratings

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_the_example_runs_and_all_but_six_singular_values_are_the_same():
    names: dict = {}
    exec(EXAMPLES[0], names)
    sv = torch.linalg.svdvals(names["last"].Ws[1])
    middle = sv[3:-3]
    assert middle.max() - middle.min() < 1e-13
    assert sv[2] > middle.max() + 1e-3
    assert sv[-3] < middle.min() - 1e-3


def write_ratings(folder):
    """Write the CSV that the second example reads."""
    table = ratings.simulate_ratings(300, 400, 12_000, rank=3, noise=0.8, generator=0)
    columns = torch.stack([table.rows, table.cols, table.values], dim=1).tolist()
    lines = [f"u{user:.0f},{item:.0f},{rating:.0f}" for user, item, rating in columns]
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating", *lines]), encoding="utf-8")


def test_the_second_example_predicts_better_than_means_alone(capsys, tmp_path, monkeypatch):
    write_ratings(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(EXAMPLES[1], names)
    error, effects = map(float, re.findall(r"(?:RMSE|alone) ([\d.]+)", capsys.readouterr().out))
    assert error < 0.975 * effects
    again = names["DeepMatrixCompletion"].load("model.safetensors")
    assert again.held_out_rmse_ == names["model"].held_out_rmse_
    assert again.top_n("u7", 3)[0].dtype == int


def test_the_third_example_measures_the_digits(capsys):
    exec(EXAMPLES[2], {})
    C, D, accuracy = re.findall(r"tensor\(([\d.]+)", capsys.readouterr().out)
    assert 1.3 < float(C) < 1.5
    assert 0.05 < float(D) < 0.1
    assert float(accuracy) > 0.9


def test_the_fourth_example_shows_a_live_figure_and_sliders():
    names: dict = {}
    *lines, live, explore = EXAMPLES[3].strip().splitlines()
    exec("\n".join(lines), names)
    assert eval(live.split("#")[0], names).figure.d == 500
    assert live.split("or ")[1].split(", ") == [
        each
        for each in ("completion", "features", "noise", "transfer", "cost")
        if widgets.controls(each)
    ]
    shown = eval(explore, names)
    shown.sliders["L"].value = 5
    assert shown.message.value == "" and shown.picture.value != shown.first
