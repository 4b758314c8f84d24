"""Publishing stops where the pages would name another repository."""

import os
import subprocess
import sys
from pathlib import Path

import address
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
URL = "https://example.org/some-people/some-book"


@pytest.fixture
def root(tmp_path):
    """Give a folder whose _config.yml names URL."""
    (tmp_path / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": URL}}))
    return tmp_path


@pytest.mark.parametrize(
    "same",
    [
        URL,
        f"{URL}/",
        f"{URL}.git",
        f"{URL}.git/",
        f" {URL}\n",
        "https://Example.org/Some-People/Some-Book",
        "http://example.org/some-people/some-book",
    ],
)
def test_one_address_in_two_spellings(root, same):
    assert address.check(same, root) == URL


@pytest.mark.parametrize(
    "other",
    [
        "https://example.org/other-people/some-book",
        "https://example.org/some-people/some-books",
        "https://example.com/some-people/some-book",
        "https://example.org/some-people/some-book.github",
    ],
)
def test_another_address_is_refused_and_it_is_said_what_to_change(root, other):
    with pytest.raises(
        ValueError, match=r"edit repository\.url in _config\.yml, run `make derived`"
    ):
        address.check(other, root)


@pytest.mark.parametrize(
    "wrong", ["", "some-people/some-book", "https://example.org", f"{URL}/tree", "git@a.b:c/d.git"]
)
def test_what_is_no_address_is_refused(root, wrong):
    with pytest.raises(ValueError, match="wanted https://HOST/OWNER/NAME, got"):
        address.check(wrong, root)


def test_a_configuration_without_an_address_is_refused(tmp_path):
    (tmp_path / "_config.yml").write_text("title: A book\n")
    with pytest.raises(ValueError, match=r"_config\.yml: wanted repository\.url, got none"):
        address.check(URL, tmp_path)


def run(*arguments, **environ):
    """Run the script as a workflow does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "address.py", *arguments],
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_address_comes_from_the_workflow_or_from_the_command_line():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    written = config["repository"]["url"]
    server, owner, name = written.rsplit("/", 2)
    done = run(GITHUB_SERVER_URL=server, GITHUB_REPOSITORY=f"{owner}/{name}")
    assert (done.returncode, done.stdout.strip()) == (0, written), done.stderr
    assert run(f"{written}.git").returncode == 0


def test_another_repository_fails_without_a_traceback():
    done = run(GITHUB_SERVER_URL="https://example.org", GITHUB_REPOSITORY="some-people/fork")
    assert done.returncode == 1
    assert done.stderr.startswith("address.py: _config.yml: wanted repository.url https://example")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [((), {}), ((), {"GITHUB_SERVER_URL": "https://example.org"}), ((URL, URL), {})],
)
def test_without_one_address_nothing_is_said_to_be_right(arguments, environ):
    done = run(*arguments, **environ)
    assert done.returncode == 1
    assert "wanted one address" in done.stderr
