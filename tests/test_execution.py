"""Chapters on their way into the execution cache; and what make quick runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import notebooks
import pytest
from jupyter_cache import get_cache
from lop_book import cache_path
from quick import concerned

HEAD = """---
jupytext:
  text_representation: {format_name: myst}
kernelspec: {name: python3, display_name: Python 3}
---

# Chapter

"""


@pytest.fixture
def root(tmp_path):
    """Write a book of three chapters, one of which fails, and a page without code."""
    cells = {"one": "1 + 1", "two": "print('x')", "bad": "1 / 0"}
    files = {f"{name}.md": f"{HEAD}```{{code-cell}}\n{code}\n```\n" for name, code in cells.items()}
    toc = "format: jb-book\nroot: page\nchapters:\n" + "".join(f"- file: {n}\n" for n in cells)
    files |= {"page.md": "# Page\n", "_toc.yml": toc, "constraints.txt": ""}
    files |= {"_config.yml": "execute: {timeout: 60}\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def execute(root, **more):
    """Execute in a thread of its own: the browser of other tests has a loop in this one."""
    with ThreadPoolExecutor() as pool:
        return pool.submit(lambda: asyncio.run(notebooks.execute_unknown(root, **more))).result()


def known(root):
    cache = get_cache(str(cache_path(root, root / "_build")))
    return {name for name, _ in notebooks.chapters(root)} - {
        name for name, _ in notebooks.unknown(cache, root)
    }


def test_what_ran_is_kept_and_not_run_again_and_what_failed_says_why(root):
    (failed,) = execute(root).items()
    assert failed[0] == "bad" and "division by zero" in failed[1]
    assert known(root) == {"one", "two"}
    text = (root / "one.md").read_text(encoding="utf-8")
    (root / "one.md").write_text(text.replace("1 + 1", "1 + 2"), encoding="utf-8")
    assert known(root) == {"two"}
    assert execute(root, only=["one"]) == {}
    assert known(root) == {"one", "two"}
    (root / "lop_utils").mkdir()
    (root / "lop_utils" / "new.py").touch()  # the library has changed
    assert known(root) == set()


@pytest.mark.parametrize(
    ("name", "tests"),
    [
        ("lop_utils/dln.py", {"tests/test_dln.py", "tests/test_architecture.py"}),
        ("tests/test_dln.py", {"tests/test_dln.py"}),
        ("tools/archive.py", {"tests/book/test_archive.py"}),
        ("Makefile", {"tests/test_workflows.py", "tests/test_repository.py"}),
        ("book/intro.md", {"tests/test_chapters.py", "tests/test_repository.py"}),
        ("LICENSE", set()),
    ],
)
def test_a_change_concerns_the_tests_that_mirror_it(name, tests):
    assert tests <= set(concerned([name]))
    assert tests or not concerned([name])
