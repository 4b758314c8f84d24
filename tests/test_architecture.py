"""The shape of the package: layers, sizes, public names, docstrings, and nothing global."""

import ast
import inspect
import re
import statistics
import subprocess
import sys
from importlib import import_module
from pathlib import Path

PACKAGE = Path(import_module("lop_utils").__file__).parent
LAYERS = [  # a module imports only from rows above its own
    "_effects _files _scalars _threads",
    "_checks",
    "init networks observed spectra",
    "features law losses rules",
    "_adapting _wide compression data descent factored images readouts",
    "_finishing _gradients _starting adapters mean_field",
    "_completing",
    "adaptive completion",
    "_estimating _estimated _peft_tuner",
    "estimator peft_bridge",
    "book.answers book.claims book.cost book.lora_task book.ratings book.scale book.sharded "
    "book._svg book.noise book.width",
    "book.lora_study book.methods book.plots",
    "book.live",
]
LAYER = {name: number for number, row in enumerate(LAYERS) for name in row.split()}
SOURCE = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
ON_DEMAND = {"_peft_tuner", "peft_bridge"}  # need an extra; tests/test_peft_bridge.py imports them
IMPORTED = [name for name in SOURCE if name not in ON_DEMAND]
ASIDE = {
    "_estimating",
    "_estimated",
    "estimator",
}  # nothing imports it; takes a second, for sklearn
LIBRARY = [name for name in IMPORTED if not name.startswith("book.") and name not in ASIDE]
MODULE = {name: import_module(f"lop_utils.{name}") for name in IMPORTED}
PUBLIC = [(name, each) for name in IMPORTED if name[0] != "_" for each in MODULE[name].__all__]


def wrong_imports(name, code):
    """Return what a module must not import, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = "lop_utils." * node.level + str(node.module)  # a relative one is refused
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    right = tuple(f"lop_utils.{other}." for other in LAYER if LAYER[other] < LAYER[name])
    more = "" if name in ("book.plots", "book.live") else "|matplotlib|ipywidgets|anywidget|IPython"
    wrong = re.compile(rf"(lop_utils{more})\b")
    return {each for each in found if wrong.match(each) and not f"{each}.".startswith(right)}


def test_imports_point_downward():
    assert [name for name in SOURCE if name not in LAYER] == [], "add them to the table above"
    found = {name: wrong_imports(name, code) for name, code in SOURCE.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_sizes():
    lines = {name: len(code.splitlines()) for name, code in SOURCE.items()}
    assert {name: count for name, count in lines.items() if count > 320} == {}
    assert statistics.median(lines[name] for name in LIBRARY) <= 290
    assert len([name for name in LIBRARY if name[0] != "_"]) <= 18
    assert len([name for name, _ in PUBLIC if name in LIBRARY]) <= 120
    assert (PACKAGE / "py.typed").is_file()


def test_a_public_name_has_one_home():
    for module in MODULE.values():
        known = set(getattr(module, "__all__", []))
        own, others = set(), set()
        for name, thing in vars(module).items():
            if inspect.isfunction(thing) or inspect.isclass(thing):
                (own if thing.__module__ == module.__name__ else others).add(name)
        assert {name for name in own if name[0] != "_"} <= known, module.__name__
        assert not known & others, f"{module.__name__}: what was imported is public elsewhere"


def missing(function, conventions):
    """Return what a numpydoc docstring lacks; a module's own says ``what`` holds everywhere."""
    signature = inspect.signature(function)
    summary, *parts = re.split(r"^(.+)\n-{3,}\n", inspect.getdoc(function) + "\n", flags=re.M)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    heads = re.findall(r"^(\S.*?)(?: :.*)?$", sections.get("Parameters", ""), flags=re.M)
    said = {name.strip(" *") for head in heads for name in head.split(",")}
    lacking = set(signature.parameters) - said - set(re.findall(r"``(\w+)``", conventions))
    lacking |= said - set(signature.parameters)
    told = re.match("Return|Yield|Train", summary)
    if signature.return_annotation not in (None, "None") and not told:
        lacking |= {"Returns"} - set(sections)
    if re.search(r"Error\n(?! )", sections.get("Raises", "") + "\n"):  # says that, but not when
        lacking |= {"Raises"}
    return lacking | (set() if ">>> " in sections.get("Examples", "") else {"Examples"})


def test_docstrings():
    found = {}
    for name, public in PUBLIC:
        if inspect.isfunction(function := getattr(MODULE[name], public)):
            found[f"{name}.{public}"] = missing(function, MODULE[name].__doc__)
    assert {name: lacking for name, lacking in found.items() if lacking} == {}


def test_the_rules_bite():
    for line in ("import lop_utils.descent", "from . import init", "def f():\n import matplotlib"):
        assert wrong_imports("data", line)
    assert not wrong_imports("data", "import torch\nfrom lop_utils import _checks, init")

    def f(a, b, c, *d) -> int:
        raise ValueError

    f.__doc__ = "Do.\n\nParameters\n----------\na, b : int\n    Two.\ne\n"
    f.__doc__ += "\nRaises\n------\nValueError\n"
    assert missing(f, "``c`` is known") == {"d", "e", "Returns", "Raises", "Examples"}


STATE = """
import sys, torch
def state():
    flags = torch.is_grad_enabled(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    return flags, torch.get_default_dtype(), torch.initial_seed(), torch.get_rng_state().tolist()
torch.manual_seed(5)
before = state()
import {library}
assert not {{"matplotlib", "ipywidgets"}} & set(sys.modules), "pictures came with the numerics"
import {all}
assert state() == before
"""


def test_nothing_is_global():
    names = {name: f"lop_utils.{name}" for name in IMPORTED}
    code = STATE.format(library=", ".join(map(names.get, LIBRARY)), all=", ".join(names.values()))
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    globally = re.compile(r"torch\.(cuda\.)?(manual_)?seed|random\.seed|set_default|\.cuda\(")
    assert [name for name, text in SOURCE.items() if globally.search(text)] == []
