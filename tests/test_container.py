"""The development container: what its description names is there, and its script does its work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def without_comments(text):
    """Return JSON without the comments that development containers allow on lines of their own."""
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


CONTAINER = json.loads(
    without_comments((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
)


def test_only_comments_are_taken_out():
    assert json.loads(without_comments('{\n  // no\n  "a": "https://b"\n}')) == {"a": "https://b"}


def test_the_container_runs_what_is_there():
    script = ROOT / CONTAINER["postCreateCommand"]
    assert os.access(script, os.X_OK)
    opened = CONTAINER["customizations"]["codespaces"]["openFiles"]
    assert [name for name in opened if not (ROOT / name).is_file()] == []


def test_the_editor_looks_where_the_environment_is_made():
    name = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["name"]
    settings = CONTAINER["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].split("/")[-4:] == [
        "envs",
        name,
        "bin",
        "python",
    ]


MICROMAMBA = """#!/bin/sh
echo "$@" >> "$ASKED"
case "$1 $2 $4" in
"run --name ./postBuild") ;;
"run --name jupytext") shift 4; exec "$PYTHON" -m jupytext "$@" ;;
esac
"""


@pytest.mark.skipif(os.name == "nt", reason="the container runs Linux")
def test_the_container_writes_the_chapters_as_notebooks(tmp_path):
    """Run the script on a copy, with a micromamba that starts this Python's jupytext."""
    for name in (".devcontainer/setup", "environment.yml", "book/intro.md", "book/notation.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    fake, log = tmp_path / "bin" / "micromamba", tmp_path / "asked"
    fake.parent.mkdir()
    fake.write_text(MICROMAMBA)
    fake.chmod(0o755)
    environ = os.environ | {"ASKED": str(log), "PYTHON": sys.executable}
    environ["PATH"] = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    bash = ["bash", tmp_path / ".devcontainer" / "setup"]
    done = subprocess.run(bash, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = log.read_text().splitlines()
    assert asked[:2] == [
        "create --yes --quiet --file environment.yml",
        "run --name lop-book ./postBuild",
    ]
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.ipynb")]
    assert written == ["build/notebooks/book/intro.ipynb"]  # notation.md has no code
    cells = json.loads((tmp_path / written[0]).read_text(encoding="utf-8"))["cells"]
    assert any(cell["cell_type"] == "code" for cell in cells)
