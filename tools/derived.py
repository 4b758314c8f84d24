"""Write what must repeat something that stands elsewhere.

usage: derived.py

The repository's address stands in _config.yml (repository.url). CITATION.cff, pyproject.toml and
the README's clone command repeat it. The README's picture is drawn from a recorded result.
"""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

# File, the line that repeats the address, and the line as it must be.
REPEATED = [
    ("CITATION.cff", r"^repository-code: .*$", 'repository-code: "{url}"'),
    ("pyproject.toml", r"^Repository = .*$", 'Repository = "{url}"'),
    ("README.md", r"^git clone .*$", "git clone {url}"),
    ("README.md", r"^cd .*$", "cd {name}"),
]


def derived(root=ROOT):
    """Return every file that repeats the address, by name, as it must be."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    url = config["repository"]["url"]
    texts = {}
    for file, pattern, line in REPEATED:
        text = texts.get(file) or (root / file).read_text(encoding="utf-8")
        line = line.format(url=url, name=url.rsplit("/", 1)[-1])
        texts[file], found = re.subn(pattern, line, text, flags=re.M)
        if found != 1:
            raise ValueError(f"{file}: wanted one line like {pattern}, found {found}")
    return texts


def write_picture(root=ROOT):
    """Draw book/_static/spectrum.svg, the README's picture."""
    # HOOK: draw from the recorded result with lop_utils.plots and save to the path below.
    _ = root / "book" / "_static" / "spectrum.svg"


if __name__ == "__main__":
    for name, text in derived().items():
        (ROOT / name).write_text(text, encoding="utf-8")
    write_picture()
