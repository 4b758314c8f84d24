"""The shape of the package: layers, public names, docstrings, and nothing global."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

import lop_utils

PACKAGE = Path(lop_utils.__file__).parent
LAYERS = {
    0: ["_checks", "answers", "claims", "scale", "svg"],
    1: ["cost", "dln", "downloads", "footprint", "recursions", "spectra"],
    2: ["checkpoints", "features", "images", "losses", "readouts", "sampling"],
    3: [
        "batches",
        "datasets",
        "descent",
        "factored",
        "parsimony",
        "mean_field",
        "networks",
        "ratings",
    ],
    4: ["compression"],
    5: ["completion", "sharded", "adapters"],
    6: ["plots"],
    7: ["widgets"],
}
LAYER = {name: number for number, names in LAYERS.items() for name in names}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
each_module = pytest.mark.parametrize("name", MODULES)


def source(name):
    return (PACKAGE / f"{name}.py").read_text()


def imported(tree):
    """Return (names of modules of the package, names of other top-level packages)."""
    ours, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "lop_utils":
                ours |= {alias.name for alias in node.names}
            elif node.module.startswith("lop_utils."):
                ours.add(node.module.split(".")[1])
            else:
                others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                ours.update(rest[:1]) if first == "lop_utils" else others.add(first)
    return ours, others


def wrong_imports(name, tree):
    ours, others = imported(tree)
    wrong = {other for other in ours if LAYER.get(other, 99) >= LAYER[name]}
    if name not in ("plots", "widgets"):
        wrong |= others & {"matplotlib", "ipywidgets", "IPython"}
    return wrong


@each_module
def test_layers(name):
    assert name in LAYER, f"{name} has no layer: add it to the table above"
    assert not wrong_imports(name, ast.parse(source(name)))


@pytest.mark.parametrize(
    "line",
    [
        "from lop_utils import descent",  # the same layer
        "from lop_utils import dln, parsimony",  # a higher one
        "import lop_utils.plots",
        "from lop_utils.compression import split",
        "from lop_utils import unheard_of",
        "def f():\n    import matplotlib.pyplot as plt",
        "from ipywidgets import interact",
    ],
)
def test_layers_would_be_broken_by(line):
    assert wrong_imports("datasets", ast.parse(line))


def test_the_package_itself_imports_nothing():
    assert imported(ast.parse(source("__init__"))) == (set(), set())


def named_in_order(names):
    """Sort as ruff does: CONSTANTS, then Classes, then functions."""
    return sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))


@each_module
def test_public_names(name):
    module = import_module(f"lop_utils.{name}")
    defined = {
        node.name
        for node in ast.parse(source(name)).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    assert defined <= set(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)
    assert module.__all__ == named_in_order(set(module.__all__))
    assert module.__doc__


@each_module
def test_a_module_has_one_subject(name):
    assert len(source(name).splitlines()) <= 400


# Docstrings

FUNCTIONS = [
    pytest.param(name, public, id=f"{name}.{public}")
    for name in MODULES
    if not name.startswith("_")
    for public in getattr(import_module(f"lop_utils.{name}"), "__all__", [])
    if inspect.isfunction(getattr(import_module(f"lop_utils.{name}"), public))
]
each_function = pytest.mark.parametrize(("name", "public"), FUNCTIONS)
# Its result is whatever has been recorded, so no example could be run.
WITHOUT_EXAMPLE = {"recorded"}


def sections(doc):
    """Split a numpydoc docstring at its underlined titles."""
    lines, found, title = inspect.cleandoc(doc).splitlines(), {"": []}, ""
    for line, below in pairwise([*lines, ""]):
        if re.fullmatch(r"-{3,}", below):
            title = line
            found[title] = []
        elif not re.fullmatch(r"-{3,}", line):
            found[title].append(line)
    return found


def described(lines):
    """Return the names at the left margin of a Parameters section."""
    heads = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


@each_function
def test_docstring(name, public):
    function = getattr(import_module(f"lop_utils.{name}"), public)
    doc = sections(function.__doc__)
    assert re.match(r"[A-Z].*[.:]", " ".join(doc[""])), "a sentence comes first"
    assert described(doc.get("Parameters", [])) == list(inspect.signature(function).parameters)
    assert {"Returns", "Yields"} & set(doc) or inspect.signature(function).return_annotation in (
        None,
        "None",
    )
    assert ">>> " in "".join(doc.get("Examples", [])) or public in WITHOUT_EXAMPLE


@each_function
def test_what_a_function_raises_is_said(name, public):
    function = getattr(import_module(f"lop_utils.{name}"), public)
    raised = set()
    for node in ast.walk(ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            raised.add(node.exc.func.id)
        # A check raises too, in its caller's name.
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "_checks":
            raised.add("ValueError")
    assert all(error in "\n".join(sections(function.__doc__).get("Raises", [])) for error in raised)


def test_docstrings_would_be_refused():
    doc = "Do.\n\n    Parameters\n    ----------\n    a, b : int\n        Two.\n    *c : str\n"
    assert described(sections(doc)["Parameters"]) == ["a", "b", "c"]
    assert set(sections(doc)) == {"", "Parameters"}


# Global state

STATE = """
import json, sys, torch
def state():
    return [
        str(torch.get_default_dtype()), torch.initial_seed(), torch.get_num_threads(),
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(), torch.get_rng_state().tolist(), str(torch.get_default_device()),
    ]
torch.manual_seed(5)
before = state()
from lop_utils import {modules}
assert state() == before
assert "matplotlib" not in sys.modules or {plots}, "matplotlib came with the numerics"
"""


@pytest.mark.parametrize("plots", [False, True], ids=["numerics", "all"])
def test_importing_changes_nothing_in_torch(plots):
    modules = [name for name in MODULES if plots or LAYER.get(name, 0) < LAYER["plots"]]
    code = STATE.format(modules=", ".join(modules), plots=plots)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
