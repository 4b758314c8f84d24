"""Places where a reader runs the book: other machines, as far as this one can play them.

Functions that know neither pytest nor the book's pages.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from page_rules import ROOT

# What only MyST understands.
RAW = re.compile(
    r"^\s*(`{3,}|:{3,})\s*\{|\{[\w:.-]+\}`|^:\w[\w-]*:"  # directives, roles, options
    r"|\$\$ *\((eq|fig)-|^\([a-z][\w-]{2,}\)=\s*$|^%%%|\{\{",  # labels, comments, substitutions
    flags=re.M,
)
# conda's name: PyPI's name
RENAMED = {"matplotlib-base": "matplotlib", "pytorch-cpu": "torch"}


def run(*command, **options):
    """Run a command; what it printed is in the error if it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def copy_tree(target):
    """Copy what git tracks or would track, as a clone has it; return the copy."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def commit_all(folder):
    """Make a folder a git repository with one commit; return what pip installs it from."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    run("git", "init", "-q", folder)
    run("git", "-C", folder, "add", "-A")
    run("git", "-C", folder, *identity, "commit", "-q", "--no-gpg-sign", "-m", "as it is")
    return f"git+{folder.as_uri()}@{run('git', '-C', folder, 'rev-parse', 'HEAD').strip()}"


def make_environment(folder, packages):
    """Make a virtual environment with our torch and without our constraints; return its Python.

    torch and what it asks for, on some machines gigabytes for a GPU, are most of an environment's
    weight, so their files are links to those that are here.
    """
    run(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    there = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    for name in needed("torch"):
        for file in importlib.metadata.distribution(name).files:
            if ".." not in file.parts and file.suffix != ".pyc":
                (there / file).parent.mkdir(parents=True, exist_ok=True)
                link(file.locate(), there / file)
    pip_install(python, f"torch=={importlib.metadata.version('torch')}", *packages)
    return python


def needed(name):
    """Return the names of a package here and of all that it asks for, and so on."""
    todo, met = [name], set()
    while todo:
        if (name := canonicalize_name(todo.pop())) not in met:
            met.add(name)
            asked = map(Requirement, importlib.metadata.requires(name) or [])
            for each in asked:
                if not each.marker or each.marker.evaluate({"extra": ""}):
                    todo.append(each.name)
    return met


def link(source, target):
    """Give a file a second name, or a copy where the disk is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def pip_install(python, *packages):
    """Install packages with the environment's own pip."""
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *packages)


def declared():
    """Return what the package asks for, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {each.name: each for each in map(Requirement, project["dependencies"])}


def lowest():
    """Return the oldest versions that pyproject.toml allows, but that of torch."""
    return [
        f"{name}=={each.version}"
        for name, requirement in declared().items()
        for each in requirement.specifier
        if name != "torch" and each.operator == ">="
    ]


def conda_as_pip():
    """Return environment.yml's packages as pip installs them, but torch and Python."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *packages, by_pip = conda["dependencies"]
    packages = [each.replace("python=", "python==") for each in packages] + by_pip["pip"]
    named = [Requirement(each) for each in packages]
    for each in named:
        each.name = RENAMED.get(each.name, each.name)
    return [str(each) for each in named if each.name not in ("torch", "python", "pip")]
