"""Write what must repeat something that stands elsewhere.

usage: derived.py

The repository's address stands in _config.yml (repository.url). CITATION.cff, pyproject.toml and
the README repeat it, the README and the lecture also that of the site. The README's picture is
drawn from a recorded result.
"""

import re
import sys
from pathlib import Path

import torch
import yaml
from matplotlib.figure import Figure

from lop_utils.book import plots
from lop_utils.book.scale import load_result

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_site import address_said  # noqa: E402

PICTURE = "book/_static/spectrum.svg"

# File, the line that repeats something, and the line as it must be.
REPEATED = [
    ("CITATION.cff", r"^repository-code: .*$", 'repository-code: "{url}"'),
    ("pyproject.toml", r"^Repository = .*$", 'Repository = "{url}"'),
    ("README.md", r"^\*\*Read it:.*$", "**Read it: <{site}>**"),
    ("README.md", r"^git clone .*$", "git clone {url}"),
    ("README.md", r"^cd .*$", "cd {name}"),
    ("book/teaching/lecture.md", r"^\*\*Slides: .*$", "**Slides: <{site}slides/>**"),
    ("book/teaching/instructors.md", r"^git clone .*$", "git clone {url}"),
    ("book/teaching/instructors.md", r"^cd .*$", "cd {name}"),
]


def derived(root=ROOT):
    """Return every file that repeats something, by name, as it must be."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    url = config["repository"]["url"]
    repeated = {
        "url": url,
        "name": url.rsplit("/", 1)[-1],
        "site": address_said(config),
    }
    texts = {}
    for file, pattern, line in REPEATED:
        text = texts.get(file) or (root / file).read_text(encoding="utf-8")
        line = line.format(**repeated)
        texts[file], found = re.subn(pattern, line, text, flags=re.M)
        if found != 1:
            raise ValueError(f"{file}: wanted one line like {pattern}, found {found}")
    return texts


def draw_picture(path):
    """Draw the recorded spectra of the introduction, as the page does."""
    values = load_result("intro-spectrum")["values"]
    t, gd, adam = (torch.tensor(values[name]) for name in ("t", "gd", "adam"))
    plots.use_style()
    figure = Figure(figsize=(7.2, 3.2))
    axes = figure.subplots(1, 2, sharey=True)
    runs = {"gradient descent": gd, "Adam": adam}
    plots.compared_spectra(axes, t, runs, values["r"])
    axes[0].set_ylim(1e-3, 3)
    plots.label_groups(axes[0], gd[-1], values["r"], values["d"])
    path.write_text(plots.compact_svg(figure), encoding="utf-8")


if __name__ == "__main__":
    for name, text in derived().items():
        (ROOT / name).write_text(text, encoding="utf-8")
    draw_picture(ROOT / PICTURE)
