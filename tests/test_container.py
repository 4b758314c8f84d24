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


@pytest.fixture
def container(tmp_path):
    """Return a function that runs the script on a copy, in a clone of a repository of ours.

    Its micromamba starts this Python's jupytext.
    """
    if os.name == "nt":
        pytest.skip("the container runs Linux")
    clone, fake, log = tmp_path / "clone", tmp_path / "bin" / "micromamba", tmp_path / "asked"
    for name in (".devcontainer/setup", "environment.yml", "book/intro.md", "book/notation.md"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    git("init", "-q", clone)
    git("init", "-q", tmp_path / "origin")
    git("-C", clone, "remote", "add", "origin", (tmp_path / "origin").as_uri())
    fake.parent.mkdir()
    fake.write_text(MICROMAMBA)
    fake.chmod(0o755)
    environ = os.environ | {"ASKED": str(log), "PYTHON": sys.executable}
    environ["PATH"] = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"

    def start():
        bash = ["bash", clone / ".devcontainer" / "setup"]
        done = subprocess.run(bash, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        asked = log.read_text().splitlines()
        assert asked[:2] == [
            "create --yes --quiet --file environment.yml",
            "run --name lop-book ./postBuild",
        ]
        written = clone / "build" / "notebooks"
        return {path.relative_to(written).as_posix(): path for path in written.rglob("*.ipynb")}

    return start


def git(*command):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *map(str, command)], check=True)


def test_the_container_brings_the_published_notebooks(container, tmp_path):
    published = tmp_path / "origin" / "book" / "law.ipynb"
    published.parent.mkdir()
    published.write_text("{}")
    git("-C", tmp_path / "origin", "checkout", "-q", "--orphan", "notebooks")
    git("-C", tmp_path / "origin", "add", "-A")
    git("-C", tmp_path / "origin", "commit", "-q", "--no-gpg-sign", "-m", "notebooks")
    brought = container()
    assert list(brought) == ["book/law.ipynb"]
    assert brought["book/law.ipynb"].read_text() == "{}"


def test_without_published_ones_it_writes_the_chapters_as_notebooks(container):
    written = container()
    assert list(written) == ["book/intro.ipynb"]  # notation.md has no code
    cells = json.loads(written["book/intro.ipynb"].read_text(encoding="utf-8"))["cells"]
    assert any(cell["cell_type"] == "code" for cell in cells)
