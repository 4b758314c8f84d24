"""The workflows' longer scripts, run with programs that only write down what they were asked."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WEEKLY = yaml.safe_load(
    (ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8")
)["jobs"]
on_linux = pytest.mark.skipif(os.name == "nt", reason="these jobs run on Linux")
GH = """#!/bin/sh
echo "$@" >> "$ASKED"
case "$1 $2" in "issue list") echo "$OPEN" ;; esac
"""
DOCKER = """#!/bin/bash
echo "${@: -1}" >> "$ASKED"
case "$*" in *bad*) exit 1 ;; esac
"""


def run_step(step, folder, program, text, **environ):
    """Run a step as GitHub does; return its end and what it asked the program."""
    (folder / "bin").mkdir()
    (folder / "bin" / program).write_text(text)
    (folder / "bin" / program).chmod(0o755)
    asked = folder / "asked"
    asked.touch()
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={**os.environ, "PATH": path, "ASKED": str(asked), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, asked.read_text()


@on_linux
@pytest.mark.parametrize(("number", "wanted"), [("", "issue create"), ("7", "issue comment 7")])
def test_the_report_names_the_jobs_and_opens_no_second_issue(tmp_path, number, wanted):
    results = {"latest": "success", "colab": "failure", "links": "cancelled", "oldest": "skipped"}
    done, asked = run_step(
        WEEKLY["report"]["steps"][-1],
        tmp_path,
        "gh",
        GH,
        NEEDS=json.dumps({name: {"result": result} for name, result in results.items()}),
        OPEN=number,
        GITHUB_SERVER_URL="https://example.org",
        GITHUB_REPOSITORY="some-people/some-book",
        GITHUB_RUN_ID="42",
    )
    assert done.returncode == 0, done.stderr
    assert wanted in asked
    assert asked.count("issue create") + asked.count("issue comment") == 1
    assert "- colab: failure\n- links: cancelled\n" in asked
    assert "latest" not in asked and "oldest" not in asked
    assert "https://example.org/some-people/some-book/actions/runs/42" in asked


@on_linux
def test_the_branch_of_notebooks_is_one_commit_that_replaces_the_last(tmp_path):
    remote = tmp_path / "some-people" / "some-book.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    publish = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8"))
    step = publish["jobs"]["notebooks"]["steps"][-1]
    for name in ("old", "new"):
        folder = tmp_path / name
        (folder / "book").mkdir(parents=True)
        (folder / "book" / f"{name}.ipynb").write_text("{}")
        done, asked = run_step(
            step,
            folder,
            "gh",
            GH,
            GITHUB_SERVER_URL=tmp_path.as_uri(),
            GITHUB_REPOSITORY="some-people/some-book",
            GITHUB_SHA=name,
        )
        assert done.returncode == 0, done.stderr
        assert asked == "auth setup-git\n"

    def ask(*command):
        return subprocess.check_output(["git", "-C", remote, *command], text=True).split("\n")[:-1]

    assert ask("log", "--format=%s", "notebooks") == ["Notebooks of new"]
    assert "book/new.ipynb" in ask("ls-tree", "-r", "--name-only", "notebooks")
    assert "book/old.ipynb" not in ask("ls-tree", "-r", "--name-only", "notebooks")


@on_linux
@pytest.mark.parametrize(
    ("names", "code"), [(["a.ipynb", "b c.ipynb"], 0), (["bad.ipynb", "z.ipynb"], 1), ([], 1)]
)
def test_each_notebook_runs_on_colab_though_another_failed(tmp_path, names, code):
    for name in names:
        (tmp_path / name).touch()
    step = WEEKLY["colab"]["steps"][-1]
    done, asked = run_step(step, tmp_path, "docker", DOCKER, IMAGE="none")
    assert asked.splitlines() == [f"./{name}" for name in names]
    assert done.returncode == code, done.stderr
    assert ("::error::" in done.stdout) == bool(code)
