"""The notebooks on a machine like Colab's: no `lop_utils`, no constraints, a torch of its own.

Each is executed from another folder. The cells are those that the build has executed already, so
a few notebooks that import much and take seconds are enough here; all of them run inside Colab's
own image (.github/workflows/weekly.yml).
"""

import json
import re
import shutil

import assignments
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from places import commit_all, copy_tree, lowest, make_environment, pip_install, run

pytestmark = pytest.mark.weekly

NEWEST = ["intro", "parsimony/law", "compression/exact", "representations/metrics"]
OLDEST = ["parsimony/linear-networks", "representations/metrics"]
# What Colab has before a notebook is opened. pooch is left out: pip must bring it.
BEFORE = ["ipykernel", "ipywidgets", "matplotlib", "numpy", "requests", "scikit-learn", "scipy"]
CHECK = 'grader.check("q1")'
STATE = """
import importlib.metadata as m, json
names = {d.name.lower(): d.version for d in m.distributions()}
print(json.dumps(names))
"""


@pytest.fixture(scope="module")
def package_source(tmp_path_factory) -> str:
    """Return what pip installs the package of this very tree from."""
    return commit_all(copy_tree(tmp_path_factory.mktemp("repository")))


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Return the Python of an environment with what Colab has."""
    folder = tmp_path_factory.mktemp("machine")
    yield make_environment(folder, BEFORE)
    shutil.rmtree(folder, ignore_errors=True)  # more than a gigabyte


@pytest.fixture
def kernel(machine, tmp_path, monkeypatch):
    """Make that Python known as the kernel "there"."""
    run(machine, "-m", "ipykernel", "install", "--prefix", tmp_path, "--name", "there")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def execute(kernel, colab, package_source, tmp_path):
    """Return a function that executes a notebook there and returns the executed one.

    Its first cell installs the package of this tree, not the published one.
    """

    def execute(name):
        notebook = nbformat.read(colab / "book" / f"{name}.ipynb", as_version=4)
        setup = notebook.cells[1]
        setup.source, found = re.subn(r"git\+\S+", lambda _: package_source, setup.source)
        assert found == 1
        content = tmp_path / "content"
        content.mkdir(exist_ok=True)
        resources = {"metadata": {"path": str(content)}}
        client = NotebookClient(notebook, kernel_name="there", timeout=300, resources=resources)
        return client.execute()

    return execute


def installed(machine):
    """Return names and versions; -I, since Python looks into the folder where it is started."""
    return json.loads(run(machine, "-I", "-c", STATE))


def test_the_first_cell_brings_the_package_and_changes_nothing_else(machine, execute):
    run(machine, "-m", "pip", "uninstall", "-q", "-y", "lop-utils", "pooch")
    before = installed(machine)
    assert not before.keys() & {"lop-utils", "lop_utils", "pooch"}
    executed = execute(NEWEST[0])
    after = installed(machine)
    assert {name.replace("_", "-") for name in after.keys() - before.keys()} >= {"lop-utils"}
    assert {name: after[name] for name in before} == before
    assert printed(executed.cells[1]).splitlines()[-1].startswith("torch ")  # below what pip says
    again = execute(NEWEST[0])  # it is there now: nothing to do
    assert printed(again.cells[1]).startswith("torch ")


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.parametrize("name", NEWEST[1:])
def test_a_notebook_runs_and_its_claims_hold(execute, name):
    """A claim that does not hold raises, and the execution would end there."""
    check_outputs(execute(name))


def check_outputs(executed):
    claims = [cell for cell in executed.cells if "claim" in cell.metadata.get("tags", [])]
    assert claims
    for cell in claims:
        assert all(
            output.output_type in ("execute_result", "display_data") for output in cell.outputs
        )
        assert cell.outputs
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    # Colab shows HTML without formulas
    data = [output.get("data", {}) for cell in code for output in cell.outputs]
    assert [each["text/html"] for each in data if "$" in each.get("text/html", "")] == []


def test_an_assignment_brings_what_it_needs_and_checks_answers(
    machine, kernel, package_source, tmp_path, monkeypatch
):
    """As a student opens it: one file in an empty folder, neither the package nor Otter there."""
    monkeypatch.setenv("LOP_SOURCE", package_source)
    assignments.write_students("whitening", tmp_path)
    notebook = nbformat.read(tmp_path / "whitening.ipynb", as_version=4)
    check = next(i for i, cell in enumerate(notebook.cells) if cell.source == CHECK)
    answer = "def whiten(X):\n    return torch.linalg.svd(X, full_matrices=False).Vh"
    answered = [new_code_cell(answer), new_code_cell(CHECK)]
    notebook.cells = notebook.cells[: check + 1] + answered
    content = tmp_path / "content"
    content.mkdir()
    run(machine, "-m", "pip", "uninstall", "-q", "-y", "lop-utils", "otter-grader")
    resources = {"metadata": {"path": str(content)}}
    executed = NotebookClient(notebook, kernel_name="there", timeout=300, resources=resources)
    cells = executed.execute().cells
    said = [c.outputs[0].data["text/plain"] for c in cells if c.source == CHECK]
    assert "whiten returns nothing: replace the dots, and return the result" in said[0]
    assert "passed" in said[1] and "failed" not in said[1]


@pytest.fixture(scope="module")
def oldest(machine):
    """Put the oldest versions that pyproject.toml allows in the place of the newest.

    The tests that use it are the last of this file, and the machine is not used after it.
    """
    run(machine, "-m", "pip", "uninstall", "-q", "-y", "lop-utils")
    pip_install(machine, *lowest())
    return machine


SHOWN = """
from lop_utils.book import live as widgets
for name in ("law", "completion", "features", "cost"):
    shown = widgets.live(name)
    bundle, _ = shown._repr_mimebundle_()
    print(name, bundle[widgets.VIEW_MIME]["model_id"] == shown.box.model_id)
"""


@pytest.mark.parametrize("name", OLDEST)
def test_a_notebook_runs_with_the_oldest_versions(oldest, execute, name):
    check_outputs(execute(name))
    now = installed(oldest)
    wanted = dict(each.split("==") for each in lowest())
    have = {name: now[name] for name in wanted}
    assert have == {name: full(version) for name, version in wanted.items()}
    assert run(oldest, "-I", "-c", SHOWN).split()[1::2] == ["True"] * 4


def full(version):
    """Return a version with three numbers, as packages write their own."""
    return ".".join([*version.split("."), "0", "0"][:3])


def test_the_docstrings_hold_with_the_oldest_versions(oldest, colab, tmp_path):
    pip_install(oldest, "pytest")
    modules = run(oldest, "-I", "-c", "import lop_utils; print(*lop_utils.__path__)").strip()
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, "--doctest-modules"]
    flags = ["-o", "doctest_optionflags=NORMALIZE_WHITESPACE ELLIPSIS", "-W", "ignore"]
    assert " passed" in run(oldest, "-I", "-m", "pytest", *options, *flags, modules, cwd=tmp_path)
