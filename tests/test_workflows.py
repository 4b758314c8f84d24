"""The workflows keep the rules that are ours, and their longer scripts do what they say.

That workflows are well formed and safe is what `make lint` asks check-jsonschema and zizmor: pinned
actions, no token left behind, no untrusted text in a script.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = {
    (name, job): content
    for name, workflow in WORKFLOWS.items()
    for job, content in workflow["jobs"].items()
}
PUBLISH, WEEKLY = WORKFLOWS["publish"]["jobs"], WORKFLOWS["weekly"]["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
on_linux = pytest.mark.skipif(os.name == "nt", reason="these jobs run on Linux")


def scripts():
    """Yield each job with the text of each of its scripts."""
    for job, content in JOBS.items():
        for step in content.get("steps", []):
            yield job, step.get("run", "")


def test_only_who_must_may_write_and_every_job_has_a_time_limit():
    writing = {
        (*job, what)
        for job, content in JOBS.items()
        for what, how in content.get("permissions", {}).items()
        if how != "read"
    }
    assert writing == {
        ("publish", "notebooks", "contents"),
        ("publish", "pages", "id-token"),
        ("publish", "pages", "pages"),
        ("weekly", "report", "issues"),
    }
    assert all(workflow["permissions"] == {} for workflow in WORKFLOWS.values())
    assert [j for j, job in JOBS.items() if not {"uses", "timeout-minutes"} & job.keys()] == []


def test_nothing_is_published_before_the_address_and_the_tests():
    assert PUBLISH["pages"]["needs"] == PUBLISH["notebooks"]["needs"] == "build"
    assert PUBLISH["build"]["needs"] == ["address", "test"]
    assert PUBLISH["test"]["uses"].endswith("/test.yml")
    # a condition of its own could let a job start after a failure, or let a check be left out
    assert [job for job in PUBLISH.values() if "if" in job] == []
    assert not any("continue-on-error" in text for text in TEXTS.values())


def test_what_is_published_knows_its_history_and_its_commit():
    build = PUBLISH["build"]
    assert build["steps"][0]["with"]["fetch-depth"] == 0
    assert build["env"]["LOP_SOURCE"].endswith("@${{ github.sha }}")
    steps = ("make outputs", "cp build/lop-book-html", "cp -R _build/slides", "upload-pages")
    places = [TEXTS["publish"].index(step) for step in steps]
    assert places == sorted(places)


def test_any_failure_of_the_week_is_reported():
    assert set(WEEKLY["report"]["needs"]) == WEEKLY.keys() - {"report"}
    condition = " ".join(WEEKLY["report"]["if"].split())
    assert condition == (  # a job that ran out of time counts as cancelled
        "${{ !cancelled() && (contains(needs.*.result, 'failure') "
        "|| contains(needs.*.result, 'cancelled')) }}"
    )


def test_tests_run_through_make_which_installs_what_they_import():
    """But for those of the package alone, which import nothing else."""
    for job, script in scripts():
        for line in re.findall(r"^.*\bpytest\b.*$", script, flags=re.M):
            assert re.search(r"-m pytest .*@tests/package\.args$|^.*pip install ", line), (
                job,
                line,
            )
    ran = {job: script for job, script in scripts() if script.startswith(".ci/run")}
    assert ran.keys() == {("test", "everything"), ("elsewhere", "elsewhere"), ("weekly", "latest")}


def test_every_target_is_one_of_the_makefile():
    targets = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, flags=re.M))
    asked = {
        word
        for _, script in scripts()
        for line in re.findall(r"^(?:make|\.ci/run)\b(.*)$", script, flags=re.M)
        for word in line.split()
    }
    assert asked and asked <= targets


def test_the_torch_and_the_pythons_are_those_of_the_makefile_and_the_project():
    package = JOBS["test", "package"]
    assert f"INSTALLED_TORCH),{package['env']['TORCH']})" in MAKEFILE
    named = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if ":: 3." in line]
    ends = [named[0], named[-1]]
    assert package["strategy"]["matrix"]["python"] == ends
    assert PROJECT["requires-python"] == f">={named[0]}"
    used = set(re.findall(r'python-version: "?([^"\n]+)"?', "\n".join(TEXTS.values())))
    assert used == {*ends, "${{ matrix.python }}"}


def test_the_tests_of_the_package_are_all_listed():
    modules = {path.stem.removeprefix("_") for path in (ROOT / "lop_utils").glob("*.py")}
    mirrors = {f"tests/test_{module}.py" for module in modules}
    wanted = sorted(name for name in mirrors if (ROOT / name).exists())
    listed = (ROOT / "tests" / "package.args").read_text(encoding="utf-8").split()
    assert listed == ["--doctest-modules", "lop_utils", "tests/lop_book", *wanted]


# What `make lint` asks finds a broken workflow

SAFE = f"""name: safe
on: push
permissions: {{}}
concurrency: {{group: safe, cancel-in-progress: false}}
jobs:
  one:
    name: one
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions: {{contents: read}} # to check out
    steps:
      - {{uses: actions/checkout@{"a" * 40}, with: {{persist-credentials: false}}}} # v6.0.0
      - run: echo
"""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("echo", "echo", False),
        ("echo", 'echo "${{ github.event.head_commit.message }}"', True),
        ("permissions: {}", "permissions: write-all", True),
        ("timeout-minutes: 5", "timeout-minuets: 5", True),
        ("@" + "a" * 40, "@v6", True),
        (", with: {persist-credentials: false}", "", True),
    ],
)
def test_the_linters_find_what_is_unsafe_or_misspelt(tmp_path, old, new, found):
    lint = MAKEFILE.split("\nlint:")[1].split("\n\n")[0]
    path = tmp_path / ".github" / "workflows" / "safe.yml"
    path.parent.mkdir(parents=True)
    assert old in SAFE
    path.write_text(SAFE.replace(old, new))
    commands = re.findall(r"\$\(BIN\)/((?:zizmor|check-jsonschema .*workflows) .*)", lint)
    ends = [
        subprocess.run(
            f"{Path(sys.executable).parent}/{command}",
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        for command in commands
    ]
    assert len(ends) == 2
    assert any(end.returncode for end in ends) == found, [end.stdout for end in ends]


# The longer scripts, with programs that only write down what they were asked

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
    where = {f"GITHUB_{name}": "x" for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")}
    needs = json.dumps({name: {"result": result} for name, result in results.items()})
    step = WEEKLY["report"]["steps"][-1]
    done, asked = run_step(step, tmp_path, "gh", GH, NEEDS=needs, OPEN=number, **where)
    assert done.returncode == 0, done.stderr
    assert wanted in asked and asked.count("issue create") + asked.count("issue comment") == 1
    assert "- colab: failure\n- links: cancelled\n" in asked and "x/x/actions/runs/x" in asked
    assert "latest" not in asked and "oldest" not in asked


@on_linux
@pytest.mark.parametrize(
    ("names", "code"), [(["a.ipynb", "b c.ipynb"], 0), (["bad.ipynb", "z.ipynb"], 1), ([], 1)]
)
def test_each_notebook_runs_on_colab_though_another_failed(tmp_path, names, code):
    for name in names:
        (tmp_path / name).touch()
    done, asked = run_step(WEEKLY["colab"]["steps"][-1], tmp_path, "docker", DOCKER, IMAGE="none")
    assert asked.splitlines() == [f"./{name}" for name in names]
    assert done.returncode == code, done.stderr
    assert ("::error::" in done.stdout) == bool(code)


@on_linux
@pytest.mark.parametrize(
    ("repository", "code"), [("lop-book", 0), ("LOP-book", 0), ("lop-books", 1), ("", 1)]
)
def test_publishing_stops_where_the_pages_name_another_repository(tmp_path, repository, code):
    (tmp_path / "_config.yml").write_bytes((ROOT / "_config.yml").read_bytes())
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    server, owner, _ = url.rsplit("/", 2)
    where = {"GITHUB_SERVER_URL": server, "GITHUB_REPOSITORY": f"{owner}/{repository}"}
    done, _ = run_step(PUBLISH["address"]["steps"][-1], tmp_path, "gh", GH, **where)
    assert done.returncode == code, done.stdout
    assert ("run make derived" in done.stdout) == bool(code)
