"""Ask mystmd, which is what Jupyter Book 2 reads pages with, what it makes of this book.

usage: forward.py

Writes a project of mystmd from _config.yml and _toc.yml into a temporary folder, lets mystmd
parse every page there, with the network shut and without executing anything, and lists what it
does not understand, by file and line. What only Sphinx can do stands in ONLY_SPHINX.
"""

import importlib.resources
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mystmd_project import write_project

ROOT = Path(__file__).resolve().parent.parent


class OnlySphinx(NamedTuple):
    """What the sources use though mystmd does not know it; says is what mystmd says of it."""

    what: str
    says: str
    why: str
    move: str


ONLY_SPHINX = [
    OnlySphinx(
        "{claims}",
        "unknown directive: claims",
        "its tables are made of what the executed cells of all pages returned",
        "a plugin of mystmd with this directive, or a page that a script writes after execution",
    ),
    OnlySphinx(
        "{status}",
        "unknown directive: status",
        "its tables are made of the execution cache and of the recorded results",
        "the script that writes the Claims page writes this one too",
    ),
    OnlySphinx(
        "{assignments}",
        "unknown directive: assignments",
        "its paragraphs are made of the sources of the assignments and of the book's address",
        "the same MyST, written into the page before the build",
    ),
    OnlySphinx(
        "{goals}",
        "unknown directive: goals",
        "its paragraphs are made of what every chapter says at its beginning",
        "the same MyST, written into the page before the build",
    ),
    OnlySphinx(
        "{eval-rst}",
        "unknown directive: eval-rst",
        "autodoc and napoleon make the API pages of the docstrings",
        "pages written from the docstrings before the build, or the API left to Sphinx",
    ),
    OnlySphinx(
        "{py:func}",
        "unknown role: py:func",
        "it names a function on an API page",
        "a link to what replaces the API pages",
    ),
    OnlySphinx(
        "{doc}",
        "Usage of the {doc} role is not recommended",
        "mystmd understands it, and would like a link without text in its place; but the "
        "notebooks are also read where such a link shows nothing",
        "nothing",
    ),
    OnlySphinx(
        "mystnb: figure",
        "",  # nothing, for as_mystmd rewrites it in the copy
        "myst-nb takes number, caption and alternative text of a figure from the cell's YAML",
        "what as_mystmd does, once, in the sources; mystmd has no place for the alternative text",
    ),
]


class Problem(NamedTuple):
    """One thing that mystmd did not understand; line 0 where none can be told."""

    file: str
    line: int
    rule: str
    text: str


class Reading(NamedTuple):
    """What mystmd made of a book: problems, excused ones included, and the tree of each page."""

    problems: list[Problem]
    trees: dict[str, dict]


# A page that is wrong on purpose. If mystmd does not say so, we no longer understand its answers.
CANARY = "canary-of-forward.md"
WRONG = "# Wrong\n\n```{nodirective}\n```\n\n{norole}`x` {ref}`nolabel` {cite:t}`nocitation`\n"
FOUND = [
    (3, "directive-known"),
    (6, "reference-target-resolves"),
    (6, "reference-target-resolves"),
    (6, "role-known"),
]

SHUT = (
    'import net from "node:net"; net.Socket.prototype.connect = () => {'
    ' throw new Error("no network while forward.py runs") }'
)
MESSAGE = re.compile(r"(?:⚠️|⛔️) +(?:(\S+\.\w+)(?::(\d+))?(?::\d+)? )?(.*)")
RULE = re.compile(r'To suppress this message, add rule: "([\w-]+)"')


def find_node():
    """Return the path of Node, which must be 18 or later."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("mystmd needs Node 18 or later, and no node is on PATH")
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    number = re.match(r"v(\d+)\.", done.stdout)
    if not number or int(number[1]) < 18:
        said = (done.stdout + done.stderr).strip()
        raise RuntimeError(f"mystmd needs Node 18 or later, and {node} says {said!r}")
    return node


def run_mystmd(folder):
    """Let mystmd parse the project, and return what it prints."""
    # not the command `myst`: it refuses Node 18, with which its program works, and may ask
    # whether to download another
    program = importlib.resources.files("mystmd_py") / "myst.cjs"
    shut = f"--import=data:text/javascript,{SHUT}"
    command = [find_node(), shut, str(program), "--debug", "build", "--site", "--ci"]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # the name of a rule goes to one, its message to the other
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode or not (folder / "_build/site/config.json").exists():
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise RuntimeError(f"mystmd {version('mystmd')} ended with {done.returncode}:\n{tail}")
    return done.stdout


def read_log(folder, log):
    """Yield the problems that mystmd printed."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if not (match := MESSAGE.match(line)):
            continue
        file, place, text = match.groups(default="")
        if text.endswith("<undefined>"):  # a reference whose loss was reported already
            continue
        rules = (RULE.match(each) for each in lines[number + 1 : number + 8])
        rule = next((each[1] for each in rules if each), "")
        yield Problem(file, int(place or 0) or look_for(text, folder / file), rule, text)


def look_for(text, path):
    """Return the first line of a page with what a message names; mystmd often tells no line."""
    named = re.search(r'"#?([^"]+)"|: (?:term-)?([^\s"].*)$', text)
    if not named or not path.is_file():
        return 0
    name = re.escape(named[1] or named[2])
    lines = path.read_text(encoding="utf-8").splitlines()
    for pattern in (rf"[`<(#]{name}[`>)]", name):  # a reference rather than the bare word
        for number, line in enumerate(lines, 1):
            if re.search(pattern, line, flags=re.I):
                return number
    return 0


def nodes(tree, kind):
    """Yield the nodes of one type, at any depth."""
    if isinstance(tree, list):
        for each in tree:
            yield from nodes(each, kind)
    elif isinstance(tree, dict):
        if tree.get("type") == kind:
            yield tree
        yield from nodes(tree.get("children", []), kind)


def dead_links(folder, page, tree):
    """Yield the links to files that are not there: mystmd takes them for addresses."""
    for link in nodes(tree, "link"):
        known = link.get("internal") or link.get("static") or link["url"].startswith("#")
        if not known and not urlsplit(link["url"]).scheme:
            text = f'Link to a page that is not in the book: "{link["url"]}"'
            yield Problem(page, look_for(text, folder / page), "link-resolves", text)


def read_trees(folder):
    """Return the tree that mystmd wrote of each page, by the page's file."""
    content = (folder / "_build" / "site" / "content").glob("*.json")
    written = (json.loads(path.read_text(encoding="utf-8")) for path in content)
    return {page["location"].lstrip("/"): page["mdast"] for page in written}


def read_book(root=ROOT):
    """Let mystmd read a book; raise RuntimeError if it did not, or does not say what it did."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = write_project(Path(root), folder, {CANARY: WRONG})
        problems = list(read_log(folder, run_mystmd(folder)))
        trees = read_trees(folder)
        if missing := [page for page in [*pages, CANARY] if page not in trees]:
            raise RuntimeError(f"mystmd wrote nothing of {', '.join(missing)}")
        del trees[CANARY]
        found = sorted((each.line, each.rule) for each in problems if each.file == CANARY)
        if found != FOUND:
            raise RuntimeError(
                f"of a wrong page mystmd {version('mystmd')} should say {FOUND}, and said {found}"
            )
        problems = [each for each in problems if each.file != CANARY]
        for page in pages:
            problems += dead_links(folder, page, trees[page])
    return Reading(sorted(problems), trees)


def excuse(problem):
    """Return the row of ONLY_SPHINX that accounts for a problem, or None."""
    rows = [row for row in ONLY_SPHINX if row.says and problem.text.startswith(row.says)]
    return next(iter(rows), None)


def unexcused(problems):
    """Return the problems for which no row of ONLY_SPHINX accounts."""
    return [problem for problem in problems if not excuse(problem)]


if __name__ == "__main__":
    left = unexcused(read_book().problems)
    for problem in left:
        print(f"{problem.file}:{problem.line}: {problem.text} [{problem.rule}]")
    sys.exit(bool(left))
