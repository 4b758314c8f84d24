"""The wheel holds the package, the recorded results and the live figures, and nothing else."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_readme import write_ratings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that no build folder is left in the repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    package = ROOT / "lop_utils"
    modules = [p.relative_to(ROOT) for p in (*package.rglob("*.py"), package / "py.typed")]
    records = [path.relative_to(ROOT) for path in (ROOT / "book" / "_recorded").glob("*.json")]
    figures = [path.relative_to(ROOT) for path in (ROOT / "book" / "_figures").iterdir()]
    for name in [*modules, *records, *figures, "pyproject.toml", "README.md", "LICENSE"]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    sample = source / "book" / "_recorded" / "sample.json"
    sample.parent.mkdir(parents=True, exist_ok=True)
    sample.write_text("{}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(out)]
    command = [*pip, *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive


def test_every_module_is_in_the_wheel(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lop_utils").rglob("*.py")}
    assert modules | {"lop_utils/py.typed"} <= set(wheel.namelist())


def test_recorded_results_are_in_the_wheel(wheel):
    records = {path.name for path in (ROOT / "book" / "_recorded").glob("*.json")}
    assert {f"lop_utils/_recorded/{name}" for name in records | {"sample.json"}} <= set(
        wheel.namelist()
    )


def test_live_figures_are_in_the_wheel(wheel):
    figures = {f"lop_utils/_figures/{path.name}" for path in (ROOT / "book/_figures").iterdir()}
    assert "lop_utils/_figures/law.svg" in figures
    assert figures <= set(wheel.namelist())


def test_the_wheel_holds_nothing_else(wheel):
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert {folder.split("-")[0] for folder in folders} == {"lop_utils"}


def test_the_readme_runs_on_the_wheel_alone(wheel, tmp_path):
    with zipfile.ZipFile(wheel.filename) as archive:
        archive.extractall(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    write_ratings(tmp_path)
    where = "import lop_utils\nprint(lop_utils.__file__, lop_utils.__version__)"
    code = "\n".join([f"import sys\nsys.path.insert(0, {str(tmp_path)!r})", *examples, where])
    words = [sys.executable, "-I", "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(str(tmp_path / "lop_utils"))
    assert f"lop_utils-{done.stdout.split()[-1]}.dist-info/METADATA" in wheel.namelist()
