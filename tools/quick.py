"""Execute the chapters that differ from main, and print what pytest should run for all that does.

usage: quick.py

A file concerns the tests of its own name, and those that a rule below names. Whether the pages
still build is left to `make test`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a change of a file concerns besides the tests of its own name.
CONCERNS = [
    (r"(book/.*\.md|_toc.yml)", "tests/test_chapters.py tests/test_quizzes.py"),
    (r"(book/.*\.md|_toc.yml)", "tests/test_course.py tests/test_repository.py"),
    (r"book/_diagrams/.*", "tests/book/test_static.py"),
    (r"book/_figures/.*", "tests/book/test_figures.py tests/lop_book/test_live.py"),
    (r"book/_figures/(kit|methods|numbers)\.js", "tests/book/test_live_law.py"),
    (r"tests/book/page_rules\.py", "tests/book/test_rules_bite.py tests/book/test_static.py"),
    (r"tests/book/find_rules\.py", "tests/book/test_finding_bites.py tests/book/test_finding.py"),
    (r"tests/book/(browser|access|figure_page)\.py", "tests/book/test_browser.py"),
    (r"lop_utils/_(completing|finishing|starting)\.py", "tests/test_completion.py"),
    (r"lop_utils/_effects\.py", "tests/test_observed.py tests/lop_book/test_ratings.py"),
    (r"lop_utils/_estimat(ed|ing)\.py", "tests/test_estimator.py"),
    (r"lop_utils/_peft_tuner\.py", "tests/test_peft_bridge.py"),
    (r"lop_utils/_(adapting|gradients)\.py", "tests/test_adapters.py tests/test_adaptive.py"),
    (r"(Makefile|\.ci/.*|\.github/.*)", "tests/test_workflows.py tests/test_repository.py"),
    (r"(pyproject.toml|constraints.txt|environment.yml)", "tests/test_environment.py"),
    (r"lop_utils/.*\.py", "tests/test_architecture.py"),
    (r"(_config.yml|CITATION.cff|README.md)", "tests/test_repository.py"),
    (r"(_ext/.*|tests/small_book)\.py", "tests/test_extension.py tests/test_site.py"),
    (r"tests/.*conftest.py", "tests/test_repository.py"),
    (r"tools/print\.css", "tests/book/test_pdf.py"),
]


def changed():
    """List the files that differ from where this branch left main, or from the last commit."""

    def git(*command):
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.split()

    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    return {*git("diff", "--name-only", *base), *git("ls-files", "-o", "--exclude-standard")}


def concerned(names):
    """Return the tests that concern these files, and the doctests of those of the package."""
    found = set()
    for name in names:
        stem = Path(name).stem.removeprefix("lop_").removeprefix("_")
        if re.fullmatch(r"tests/.*test_\w+\.py", name):
            found.add(name)
        elif name.endswith((".py", ".js")):
            mirrors = (ROOT / "tests").rglob(f"test_*{stem}.py")
            found |= {path.relative_to(ROOT).as_posix() for path in mirrors}
        for pattern, more in CONCERNS:
            if re.fullmatch(pattern, name):
                found |= set(more.split())
    return sorted(name for name in found if (ROOT / name).is_file())


if __name__ == "__main__":
    names = changed()
    chapters = [name.removesuffix(".md") for name in names if re.fullmatch(r"book/.*\.md", name)]
    if chapters:
        command = [sys.executable, "tools/notebooks.py", "2", *chapters]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    print(*concerned(names))
