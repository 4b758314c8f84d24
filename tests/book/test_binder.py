"""What Binder makes of the repository, as far as a machine without Docker can tell.

repo2docker itself says what it would do; then that is done with pip in the place of conda, which
has the same packages by other names, and JupyterLab is opened at the address of the button.
"""

import os
import re
import shutil
import subprocess
import time
import warnings

import nbformat
import pytest
from lop_course import names
from nbformat.v4 import new_code_cell, new_notebook
from places import RAW, conda_as_pip, copy_tree, make_environment, run

pytestmark = pytest.mark.weekly
CHAPTER = "book/parsimony/law.md"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Return what repo2docker would give to Docker, and by which of its rules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        from repo2docker.app import Repo2Docker

    before = os.getcwd()
    os.chdir(copy_tree(tmp_path_factory.mktemp("plan")))  # it looks where it is
    try:
        app = Repo2Docker()
        packs = (kind(app.base_image) for kind in app.buildpacks)
        pack = next(pack for pack in packs if pack.detect())
        pack.platform = "linux/amd64"
        return pack, pack.python_version, pack.render({"NB_UID": "1000", "NB_USER": "jovyan"})
    finally:
        os.chdir(before)


def test_binder_takes_environment_yml_and_its_python(recipe):
    pack, python, docker = recipe
    assert type(pack).__name__ == "CondaBuildPack"
    assert python == "3.11"
    assert '${MAMBA_EXE} env update -p ${NB_PYTHON_PREFIX} --file "environment.yml"' in docker


def test_binder_runs_postbuild_last_in_the_whole_repository(recipe):
    steps = ["env update", "COPY --chown=1000:1000 src/ ${REPO_DIR}/", "RUN ./postBuild"]
    places = [recipe[2].index(step) for step in steps]
    assert places == sorted(places)


@pytest.fixture(scope="module")
def binder(tmp_path_factory):
    """Do what Binder does; return the environment of its JupyterLab."""
    folder = tmp_path_factory.mktemp("binder")
    repository = copy_tree(folder / "repository")  # which is the home of Binder's user
    python = make_environment(folder / "env", conda_as_pip())
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LANG"))}
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    environment = {**kept, "HOME": str(repository), "PATH": path, "OMP_NUM_THREADS": "1"}
    run("./postBuild", cwd=repository, env=environment)
    yield repository, environment
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def lab(binder):
    """Start JupyterLab as Binder does, in the repository; return its address."""
    repository, environment = binder
    options = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token="]
    options += [] if os.name == "nt" or os.getuid() else ["--allow-root"]
    log = repository.parent / "log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            ["jupyter", "lab", *options],
            cwd=repository,
            env=environment,
            stdout=stream,
            stderr=stream,
            executable=shutil.which("jupyter", path=environment["PATH"]),
        )
    try:
        yield address(log, server)
    finally:
        server.terminate()
        server.wait(timeout=30)


def address(log, server):
    for _ in range(600):
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found.group()
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def test_the_package_is_there_and_works(binder):
    _, environment = binder
    code = "from lop_utils.book import scale; print(scale.load_result('law-wide')['values']['d'])"
    assert run("python", "-c", code, env=environment).strip() == "1000"


def test_the_assignments_wait_there_as_students_get_them(binder):
    repository, _ = binder
    assert {path.stem for path in (repository / "assignments").iterdir()} == set(names())
    for path in (repository / "assignments").iterdir():
        assert "SOLUTION" not in path.read_text(encoding="utf-8")


def test_the_button_opens_a_chapter_as_a_notebook_that_runs(lab, chromium):
    # as high as the first sections: JupyterLab shows only the cells that are seen
    context = chromium.new_context(viewport={"width": 1280, "height": 3000})
    page = context.new_page()
    page.goto(f"{lab}/lab/tree/{CHAPTER}", wait_until="load", timeout=60_000)
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", state="attached", timeout=60_000)
    assert page.query_selector(".jp-FileEditor") is None
    page.locator(".jp-MarkdownCell:visible", has_text="The theorem asks nothing").wait_for()
    for _ in range(100):
        shown = "\n".join(page.locator(".jp-MarkdownCell:visible").all_inner_texts())
        if not (raw := [found.group() for found in RAW.finditer(shown)]):
            break
        page.wait_for_timeout(100)  # cells are rendered one after the other
    assert "Theorem" in shown and raw == []
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    first = page.locator(".jp-Notebook .jp-CodeCell").first
    first.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    done = first.locator(".jp-InputPrompt").filter(has_text="[1]:")
    done.wait_for(timeout=120_000)
    assert page.locator(".jp-Notebook .jp-CodeCell [data-mime-type*=stderr]").count() == 0
    context.close()


PLAY = """
import ipywidgets
from matplotlib.figure import Figure
from lop_utils.book import live as widgets

def power(n=2):
    figure = Figure(figsize=(3, 2))
    figure.subplots().set_title("drawn for " + "one two three".split()[n - 1])
    return figure

shown, drawn = widgets.live("law", d=500), widgets.explore(power, n=(1, 3))
"""
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def test_live_figures_and_sliders_work_in_the_notebook(binder, lab, chromium):
    """With the widgets' own manager, and a kernel that answers."""
    cells = [PLAY, "shown", "drawn", "print(shown.figure.said)", "print(drawn.sliders['n'].value)"]
    notebook = new_notebook(cells=[new_code_cell(each) for each in cells], metadata=KERNEL)
    nbformat.write(notebook, binder[0] / "play.ipynb")
    page = chromium.new_page(viewport={"width": 1280, "height": 3000})
    page.goto(f"{lab}/lab/workspaces/play/tree/play.ipynb", wait_until="load", timeout=60_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth

    def run_cell(i):
        prompt = cell(i).locator(".jp-InputPrompt")
        cell(i).locator(".cm-content").click()
        page.locator(".jp-Notebook.jp-mod-editMode").wait_for()  # now it listens
        page.wait_for_timeout(300)
        page.keyboard.press("Control+Enter")
        prompt.filter(has_text=re.compile(r"\[\d+\]:")).wait_for(timeout=120_000)

    for i in range(3):
        run_cell(i)
    status = cell(1).get_by_role("status")
    status.filter(has_text="After 400 steps: in layer 2, 3 singular values above").wait_for()
    assert "and 494 equal" in status.inner_text()
    rank = cell(1).locator(".widget-slider, .jupyter-widget-slider").filter(has_text="rank r")
    rank.locator(".noUi-handle").press("ArrowRight")
    status.filter(has_text="4 singular values above ρ, 4 below, and 492").wait_for()
    before = cell(2).locator("svg").first.evaluate("(svg) => svg.outerHTML")
    cell(2).locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function(
        "([old]) => [...document.querySelectorAll('.jp-CodeCell')][2]"
        ".querySelector('svg').outerHTML !== old",
        arg=[before],
    )
    for i in (3, 4):
        run_cell(i)
    assert "492 equal" in cell(3).locator(".jp-OutputArea-output").inner_text()
    assert cell(4).locator(".jp-OutputArea-output").inner_text().strip() == "3"
    page.close()
