"""Ask mystmd, which is what Jupyter Book 2 reads pages with, what it makes of this book.

usage: forward.py

Writes a project of mystmd from _config.yml and _toc.yml into a temporary folder, lets mystmd
parse every page there, with the network shut and without executing anything, and lists what it
does not understand. Needs Node 18 or later.
"""

import importlib.resources
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
# What mystmd says of what only Sphinx can do, and what would take its place.
ONLY_SPHINX = {
    "unknown directive: claims": "a page that a script writes from the executed notebooks",
    "unknown directive: status": "the same script",
    "unknown directive: assignments": "the same MyST, written into the page before the build",
    "unknown directive: goals": "the same MyST, written into the page before the build",
    "unknown directive: eval-rst": "API pages written from the docstrings, or left to Sphinx",
    "unknown role: py:func": "a link to what takes the place of the API pages",
    "unknown role: py:class": "the same",
    "Usage of the {doc} role is not recommended": "nothing: mystmd understands it",
}
# A page that is wrong on purpose: if mystmd does not say so, we no longer understand what it says.
CANARY = "canary-of-forward.md"
WRONG = "# Wrong\n\n```{nodirective}\n```\n\n{norole}`x` {ref}`nolabel` {cite:t}`nocitation`\n"
WRONG_RULES = ["directive-known", *["reference-target-resolves"] * 2, "role-known"]
SHUT = (
    'import net from "node:net"; net.Socket.prototype.connect = () => {'
    ' throw new Error("no network while forward.py runs") }'
)
MESSAGE = re.compile(r"(?:⚠️|⛔️) +(?:(\S+\.\w+)(?::(\d+))?(?::\d+)? )?(.*)")
RULE = re.compile(r'To suppress this message, add rule: "([\w-]+)"')
OPTIONS = re.compile(r"^(`{3,}\{code-cell\}[^\n]*\n)---\n(.*?\n)---\n", flags=re.M | re.S)


class Problem(NamedTuple):
    """One thing that mystmd did not understand; line 0 where it tells none."""

    file: str
    line: int
    rule: str
    text: str


def as_mystmd(text):
    """Rewrite the YAML of code cells as options of mystmd's directive; no line moves."""

    def rewrite(match):
        options = yaml.safe_load(match[2])
        tags, mystnb = options.pop("tags", []), options.pop("mystnb", {})
        figure = mystnb.get("figure", {})
        given = {"label": figure.get("name"), "caption": figure.get("caption"), **options}
        lines = [f":tags: [{', '.join(tags)}]"] if tags else []
        lines += [
            f":{key}: {' '.join(str(value).split())}" for key, value in given.items() if value
        ]
        spare = match[2].count("\n") + 2 - len(lines)
        return match[1] + "".join(f"{line}\n" for line in lines) + "\n" * spare

    return OPTIONS.sub(rewrite, text)


def entries(site_map, document):
    """Return the table of contents below a document, as mystmd wants it."""
    found = []
    for part in document.subtrees:
        children = []
        for name in map(str, part.items):
            below = entries(site_map, site_map[name]) if name in site_map else []
            children.append({"file": f"{name}.md", **({"children": below} if below else {})})
        found += [{"title": part.caption, "children": children}] if part.caption else children
    return found


def write_project(root, folder):
    """Write a book as a project, with a theme that is empty and so not fetched; list its pages."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    site_map = parse_toc_yaml(root / "_toc.yml")
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("vendor"))
    if (formal := root / "formal").is_dir():  # pages show its text
        shutil.copytree(formal, folder / "formal")
    pages = [f"{name}.md" for name in site_map]
    for page in pages:
        text = (folder / page).read_text(encoding="utf-8")
        (folder / page).write_text(as_mystmd(text), encoding="utf-8")
    (folder / CANARY).write_text(WRONG, encoding="utf-8")
    toc = [{"file": pages[0]}, *entries(site_map, site_map.root), {"file": CANARY}]
    project = {"bibliography": config.get("bibtex_bibfiles", []), "toc": toc}
    whole = {"version": 1, "project": project, "site": {"template": "theme"}}
    (folder / "myst.yml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    (folder / "theme").mkdir()
    (folder / "theme" / "template.yml").write_text("jtex: v1\ntitle: none\n", encoding="utf-8")
    return pages


def run_mystmd(folder):
    """Let mystmd parse the project, and return what it prints."""
    # not the command `myst`: it refuses Node 18, with which its program works, and may ask
    # whether to download another
    program = importlib.resources.files("mystmd_py") / "myst.cjs"
    shut = f"--import=data:text/javascript,{SHUT}"
    done = subprocess.run(
        ["node", shut, str(program), "--debug", "build", "--site", "--ci"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # the name of a rule goes to one, its message to the other
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode or not (folder / "_build/site/config.json").exists():
        raise RuntimeError(f"mystmd ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def read_log(log):
    """Yield the problems that mystmd printed."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        match = MESSAGE.match(line)
        # a reference whose loss was reported already ends so
        if match and not match[3].endswith("<undefined>"):
            rules = (RULE.match(each) for each in lines[number + 1 : number + 8])
            rule = next((each[1] for each in rules if each), "")
            yield Problem(match[1] or "", int(match[2] or 0), rule, match[3])


def nodes(tree, kind):
    """Yield the nodes of one type, at any depth."""
    if isinstance(tree, list):
        for each in tree:
            yield from nodes(each, kind)
    elif isinstance(tree, dict):
        if tree.get("type") == kind:
            yield tree
        yield from nodes(tree.get("children", []), kind)


def read_book(root=ROOT):
    """Let mystmd read a book; return the problems, and the tree of each page by its file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = write_project(Path(root), folder)
        problems = list(read_log(run_mystmd(folder)))
        written = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in (folder / "_build" / "site" / "content").glob("*.json")
        ]
    trees = {page["location"].lstrip("/"): page["mdast"] for page in written}
    del trees[CANARY]
    if trees.keys() != set(pages):
        raise RuntimeError(f"mystmd wrote nothing of {set(pages) - trees.keys()}")
    found = sorted(each.rule for each in problems if each.file == CANARY)
    if found != WRONG_RULES:
        raise RuntimeError(f"of a wrong page mystmd should say {WRONG_RULES}, and said {found}")
    return sorted(each for each in problems if each.file != CANARY), trees


def unexcused(problems):
    """Return the problems for which ONLY_SPHINX does not account."""
    return [each for each in problems if not each.text.startswith(tuple(ONLY_SPHINX))]


if __name__ == "__main__":
    left = unexcused(read_book()[0])
    for each in left:
        print(f"{each.file}:{each.line}: {each.text} [{each.rule}]")
    sys.exit(bool(left))
