"""The README's example runs as it stands, and shows what it says."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_all_but_six_singular_values_are_the_same():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict = {}
    exec(code, names)
    sv = torch.linalg.svdvals(names["last"].Ws[1])
    middle = sv[3:-3]
    assert middle.max() - middle.min() < 1e-13
    assert sv[2] > middle.max() + 1e-3
    assert sv[-3] < middle.min() - 1e-3
