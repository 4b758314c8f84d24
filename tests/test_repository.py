"""The repository keeps its own rules: nothing generated or local in it, one source for a fact."""

import re
import subprocess
from pathlib import Path

import pytest
from derived import derived
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
VENDOR = "book/_static/vendor/"
# Home folders, temporary folders, package indexes and mirrors: facts of one machine.
LOCAL = re.compile(
    r"(?<![\w./-])/(home|root|tmp|work|Users|opt)/\w"
    r"|--(extra-)?index-url|--find-links|https?://[^\s'\")]*/(simple|whl)\b"
)


def tracked():
    """Return the files that git tracks or would: all that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return sorted(name for name in done.stdout.splitlines() if (ROOT / name).is_file())


def own():
    """Return the tracked files but those that others wrote and that lie here unchanged."""
    return [name for name in tracked() if not name.startswith(VENDOR)]


def text_of(name):
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_nothing_generated_no_data_and_nothing_large_is_tracked():
    wrong = re.compile(
        r"\.ipynb$|(^|/)(_build|build|__pycache__|[^/]*\.egg-info)/"
        r"|\.(npy|npz|pt|pth|pkl|gz|zip|parquet|csv|h5)$|ubyte"
    )
    assert [name for name in tracked() if wrong.search(name)] == []
    assert [name for name in own() if (ROOT / name).stat().st_size > 300_000] == []


def test_chapters_hold_no_outputs():
    chapters = [name for name in own() if re.match(r"book/.*\.md$", name)]
    marks = ("data:image/", "```{code-output}", "application/vnd.jupyter", "<svg")
    assert [name for name in chapters if any(mark in text_of(name) for mark in marks)] == []


def test_nothing_of_one_machine_is_tracked():
    names = [name for name in own() if name != "tests/test_repository.py"]
    found = {name: match.group() for name in names if (match := LOCAL.search(text_of(name)))}
    assert found == {}


@pytest.mark.parametrize(
    "line", ["/home/someone/x", "see /tmp/x", "--index-url x", "https://a.b/whl/cpu"]
)
def test_what_belongs_to_one_machine_is_found(line):
    assert LOCAL.search(line)


def test_contents_and_chapters_agree():
    listed = {f"{name}.md" for name in parse_toc_yaml(ROOT / "_toc.yml")}
    written = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "book").rglob("*.md")
        if not {"_static", ".ipynb_checkpoints"} & set(path.parts)
        and path.parent.name != "assignments"  # no pages: what students get is made of them
    }
    assert listed == written


def test_ci_runs_the_test_command_of_the_readme_and_fails_rather_than_skips():
    assert re.search(r"^make test\b", text_of("README.md"), flags=re.M)
    script = text_of(".ci/run")
    assert script.rstrip().splitlines()[-1] == 'make "${1:-test}"'
    assert re.search(r"^export CI=1", script, flags=re.M)


def test_what_repeats_the_address_is_up_to_date():
    stale = [name for name, text in derived(ROOT).items() if text != text_of(name)]
    assert stale == [], "run make derived"


def test_make_help_lists_every_target():
    targets = re.findall(r"^\.PHONY: (\w+)$", text_of("Makefile"), flags=re.M)
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert targets
    assert [target for target in targets if f"make {target} " not in done.stdout] == []
