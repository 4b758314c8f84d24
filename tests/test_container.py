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
# development containers allow comments on lines of their own
DESCRIPTION = re.sub(
    r"^\s*//.*$",
    "",
    (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"),
    flags=re.M,
)
MICROMAMBA = """#!/bin/sh
echo "$@" >> "$ASKED"
case "$1 $2 $4" in
"run --name ./postBuild") ;;
"run --name jupytext") shift 4; exec "$PYTHON" -m jupytext "$@" ;;
esac
"""


def test_the_container_runs_opens_and_uses_what_is_there():
    container = json.loads(DESCRIPTION)
    assert os.access(ROOT / container["postCreateCommand"], os.X_OK)
    opened = container["customizations"]["codespaces"]["openFiles"]
    assert [name for name in opened if not (ROOT / name).is_file()] == []
    name = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["name"]
    python = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python.endswith(f"/envs/{name}/bin/python")


def git(*command):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *map(str, command)], check=True)


@pytest.mark.skipif(os.name == "nt", reason="the container runs Linux")
@pytest.mark.parametrize("published", [True, False])
def test_the_container_brings_notebooks(tmp_path, published):
    """The published ones, or else the chapters; its micromamba is this Python's jupytext."""
    clone, origin = tmp_path / "clone", tmp_path / "origin"
    for name in (".devcontainer/setup", "environment.yml", "book/intro.md", "book/notation.md"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    git("init", "-q", clone)
    git("init", "-q", origin)
    git("-C", clone, "remote", "add", "origin", origin.as_uri())
    if published:
        (origin / "law.ipynb").write_text("{}")
        git("-C", origin, "checkout", "-q", "--orphan", "notebooks")
        git("-C", origin, "add", "-A")
        git("-C", origin, "commit", "-q", "--no-gpg-sign", "-m", "notebooks")
    fake = tmp_path / "bin" / "micromamba"
    fake.parent.mkdir()
    fake.write_text(MICROMAMBA)
    fake.chmod(0o755)
    environ = os.environ | {"ASKED": str(tmp_path / "asked"), "PYTHON": sys.executable}
    environ["PATH"] = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    setup = ["bash", clone / ".devcontainer" / "setup"]
    done = subprocess.run(setup, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().splitlines()[:2] == [
        "create --yes --quiet --file environment.yml",
        "run --name lop-book ./postBuild",
    ]
    written = clone / "build" / "notebooks"
    brought = [path.relative_to(written).as_posix() for path in written.rglob("*.ipynb")]
    assert brought == (["law.ipynb"] if published else ["book/intro.ipynb"])  # notation has no code
