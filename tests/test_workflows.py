"""The workflows keep their rules; each rule finds a broken one.

That workflows are well formed and safe is what `make lint` asks check-jsonschema and zizmor.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from workflow_rules import (
    REPORTED,
    deployed_unchecked,
    steps,
    too_much_allowed,
    unknown_targets,
    unlimited,
    unpinned,
    unreported,
)

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yml"))}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


# The rules hold


@each_workflow
def test_every_action_is_pinned_to_a_commit(name):
    assert unpinned(TEXTS[name]) == []


@each_workflow
def test_every_target_is_one_of_the_makefile(name):
    assert unknown_targets(WORKFLOWS[name], MAKEFILE) == []


@each_workflow
def test_every_job_has_a_time_limit(name):
    assert unlimited(WORKFLOWS[name]) == []


def test_only_who_must_may_write():
    allowed = {name: too_much_allowed(workflow) for name, workflow in WORKFLOWS.items()}
    assert allowed == {
        "test.yml": [],
        "publish.yml": ["notebooks: contents", "pages: id-token", "pages: pages"],
        "weekly.yml": ["report: issues"],
    }


@each_workflow
def test_no_checkout_leaves_a_token_behind(name):
    checkouts = [step for _, step in steps(WORKFLOWS[name]) if "checkout@" in step.get("uses", "")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_any_failure_of_the_week_is_reported():
    assert unreported(WORKFLOWS["weekly.yml"]) == []


def test_nothing_is_published_before_the_address_and_the_tests():
    assert deployed_unchecked(WORKFLOWS["publish.yml"]) == []


def test_what_is_published_knows_its_history_and_its_commit():
    build = WORKFLOWS["publish.yml"]["jobs"]["build"]["steps"]
    assert build[0]["with"]["fetch-depth"] == 0
    (colab,) = [step for step in build if step.get("run") == "make colab"]
    assert colab["env"]["LOP_SOURCE"].endswith("@${{ github.sha }}")


# The rules bite

BROKEN = """
permissions: {contents: read}
jobs:
  one: {steps: [{run: "make book\\nmake PYTHON=python3 nonsense"}]}
  two: {needs: one, permissions: {pages: write}, timeout-minutes: 5}
  report: {needs: [one], if: "contains(needs.*.result, 'failure')"}
"""


@pytest.fixture
def broken():
    return yaml.safe_load(BROKEN)


@pytest.mark.parametrize(
    "line",
    [
        "actions/checkout@v6",
        "actions/checkout@main # v6.0.0",
        f"actions/checkout@{'a' * 40}",
        f"actions/checkout@{'a' * 39} # v6.0.0",
        f"actions/checkout@{'a' * 40} # latest",
    ],
)
def test_what_is_not_pinned_is_found(line):
    assert unpinned(f"steps:\n  - uses: {line}\n") == [line]
    assert unpinned(f"steps:\n  - id: x\n    uses: {line}\n") == [line]
    assert unpinned(f"steps:\n  - uses: actions/checkout@{'a' * 40} # v6.0.0\n") == []


def test_a_target_that_is_not_there_is_found(broken):
    assert unknown_targets(broken, MAKEFILE) == ["nonsense"]


def test_a_job_without_a_limit_is_found(broken):
    assert unlimited(broken) == ["one", "report"]


def test_rights_for_the_whole_workflow_are_found(broken):
    assert too_much_allowed(broken) == ["everything"]
    assert too_much_allowed({**broken, "permissions": {}}) == ["two: pages"]


def test_a_job_that_nobody_hears_of_is_found(broken):
    assert unreported(broken) == ["all of them"]
    broken["jobs"]["report"]["if"] = REPORTED
    assert unreported(broken) == ["two"]
    broken["jobs"]["report"]["needs"] = ["one", "two"]
    assert unreported(broken) == []
    broken["jobs"]["one"]["steps"][0]["continue-on-error"] = True
    assert unreported(broken) == ["one"]


@pytest.mark.parametrize(
    "one", [{"uses": "./test.yml"}, {"steps": [{"run": "python tools/address.py"}]}, {}]
)
def test_publishing_without_both_checks_is_found(broken, one):
    broken["permissions"] = {}
    broken["jobs"]["one"] = one
    assert deployed_unchecked(broken) == ["two"]
    broken["jobs"]["zero"] = {"uses": "./test.yml", "steps": [{"run": "python tools/address.py"}]}
    broken["jobs"]["one"] = {"uses": "./test.yml", "needs": ["zero"]}
    assert deployed_unchecked(broken) == []


@pytest.mark.parametrize(
    ("job", "how"),
    [
        ("two", {"if": "${{ always() }}"}),
        ("zero", {"if": "${{ false }}"}),
        ("zero", {"continue-on-error": True}),
    ],
)
def test_a_way_round_the_checks_is_found(broken, job, how):
    broken["permissions"] = {}
    broken["jobs"]["zero"] = {"steps": [{"run": "python tools/address.py"}], "needs": "one"}
    broken["jobs"]["one"] = {"uses": "./test.yml"}
    broken["jobs"]["two"]["needs"] = ["zero"]
    assert deployed_unchecked(broken) == []
    broken["jobs"][job].update(how)
    assert deployed_unchecked(broken) == ["two"]


# What they repeat


def test_both_ends_of_python_are_tested():
    pythons = WORKFLOWS["test.yml"]["jobs"]["package"]["strategy"]["matrix"]["python"]
    named = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert pythons == [named[0], named[-1]]
    assert PROJECT["requires-python"] == f">={named[0]}"
    minors = [int(name.removeprefix("3.")) for name in named]
    assert minors == list(range(minors[0], minors[-1] + 1))


@each_workflow
def test_every_python_is_one_of_both_ends(name):
    ends = WORKFLOWS["test.yml"]["jobs"]["package"]["strategy"]["matrix"]["python"]
    setups = [step["with"] for _, step in steps(WORKFLOWS[name]) if "setup-python" in str(step)]
    assert {with_["python-version"] for with_ in setups} <= {*ends, "${{ matrix.python }}"}


def test_torch_is_the_makefiles():
    torch = WORKFLOWS["test.yml"]["jobs"]["package"]["env"]["TORCH"]
    assert f"INSTALLED_TORCH),{torch})" in MAKEFILE


def test_the_tests_of_the_package_are_all_listed():
    modules = {path.stem.removeprefix("_") for path in (ROOT / "lop_utils").glob("*.py")}
    mirrors = {f"tests/test_{module}.py" for module in modules}
    wanted = sorted(name for name in mirrors if (ROOT / name).exists())
    listed = (ROOT / "tests" / "package.args").read_text(encoding="utf-8").split()
    assert listed == ["--doctest-modules", "lop_utils", "tests/lop_book", *wanted]


# What `make lint` asks finds a broken workflow

SAFE = """name: safe
on: push
permissions: {}
concurrency: {group: safe, cancel-in-progress: false}
jobs: {one: {name: one, runs-on: ubuntu-24.04, timeout-minutes: 5, steps: [{run: STEP}]}}
"""


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("STEP", "echo", 0),
        ("STEP", '"echo ${{ github.event.head_commit.message }}"', 1),
        ("permissions: {}", "permissions: write-all", 1),
        ("timeout-minutes: 5", "timeout-minuets: 5", 1),
    ],
)
def test_the_linters_find_what_is_unsafe_or_misspelt(tmp_path, old, new, code):
    lint = MAKEFILE.split("\nlint:")[1].split("\n\n")[0]
    path = tmp_path / ".github" / "workflows" / "safe.yml"
    path.parent.mkdir(parents=True)
    path.write_text(SAFE.replace(old, new).replace("STEP", "echo"))
    commands = re.findall(r"\$\(BIN\)/((?:zizmor|check-jsonschema .*workflows) .*)", lint)
    assert len(commands) == 2
    ends = [
        subprocess.run(
            f"{Path(sys.executable).parent}/{command}",
            shell=True,
            cwd=tmp_path,
            capture_output=True,
        ).returncode
        for command in commands
    ]
    assert any(ends) == bool(code)
