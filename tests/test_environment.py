"""environment.yml, pyproject.toml and constraints.txt ask for one and the same thing."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
INSTALLED = ("book", "test", "course", "frames", "peft")  # by make env
EXTRAS = (*INSTALLED, "mup", "weekly", "lab")
# conda's name: PyPI's name
RENAMED = {"matplotlib-base": "matplotlib", "pytorch-cpu": "torch"}
# Not pinned: the reader chooses it (TORCH in the Makefile), or it is this project.
FREE = {"torch", "lop-utils", "pip"}
# What stack and theme need to work together, see the comments in pyproject.toml.
DECIDED = {
    "sphinx-book-theme": "==1.1.4",
    "pydata-sphinx-theme": "==0.15.4",
    "soupsieve": "==2.8.4",
    "ipykernel": "==6.",
}


def requirements(*extras):
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def conda_packages():
    *entries, by_pip = CONDA["dependencies"]
    entries = entries + by_pip["pip"]
    parts = [re.fullmatch(r"([\w.-]+?)\s*([=<>!].*)?", entry).groups() for entry in entries]
    return {RENAMED.get(name, name): version or "" for name, version in parts}


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in found}


def pinned(name):
    return str(pins()[name].specifier).removeprefix("==")


def needed(*extras):
    """Follow the requirements through what is installed; yield every name met on the way."""
    todo, met = list(requirements(*extras).values()), {}
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        options = frozenset(requirement.extras)
        if name in met and options <= met[name]:
            continue
        met[name] = met.get(name, frozenset()) | options
        if name in FREE:
            continue
        for line in importlib.metadata.requires(name) or []:
            child = Requirement(line)
            wanted = child.marker is None or any(
                child.marker.evaluate({"extra": extra}) for extra in ["", *options]
            )
            if wanted:
                todo.append(child)
    return met


def test_conda_brings_every_dependency_of_the_package_and_of_jupyterlab():
    missing = requirements("lab").keys() - conda_packages().keys()
    assert not missing


def test_conda_never_brings_less_than_the_package_asks_for():
    asked = requirements(*EXTRAS)
    for name, version in conda_packages().items():
        if name in asked and version.startswith(">="):
            lowest = version.removeprefix(">=").split(",")[0]
            assert asked[name].specifier.contains(lowest), f"{name}{version}"


def test_conda_names_only_known_packages():
    known = requirements(*EXTRAS).keys() | {"python", "pip"}
    assert conda_packages().keys() <= known


def test_conda_is_the_channel_the_torch_and_the_python_that_binder_needs():
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
    names = [str(entry) for entry in CONDA["dependencies"]]
    assert any(name.startswith("pytorch-cpu>=") for name in names)
    (python,) = [name for name in names if name.startswith("python=")]
    minor = python.removeprefix("python=")
    assert f"{minor}.0" in Requirement(f"x{PROJECT['requires-python']}").specifier
    script = (ROOT / "postBuild").read_text(encoding="utf-8")
    assert "--no-deps" in script and "-e ." in script


def test_constraints_are_exact_versions():
    assert [str(r) for r in pins().values() if [s.operator for s in r.specifier] != ["=="]] == []


def test_everything_needed_is_pinned():
    missing = needed(*INSTALLED).keys() - pins().keys() - FREE
    assert not missing


def test_the_present_environment_is_the_pinned_one():
    present = {name: importlib.metadata.version(name) for name in needed(*INSTALLED).keys() - FREE}
    assert {name: v for name, v in present.items() if v not in pins()[name].specifier} == {}


def test_pins_meet_what_is_asked():
    wrong = [
        str(asked)
        for name, asked in requirements(*EXTRAS).items()
        if name not in FREE
        and str(pins()[name].specifier).removeprefix("==") not in asked.specifier
    ]
    assert wrong == []


@pytest.mark.parametrize("name", DECIDED)
def test_decided_versions_are_kept(name):
    assert f"=={pinned(name)}".startswith(DECIDED[name])
