"""The notebooks for Colab: complete, readable anywhere, and the one that the button opens."""

import re
from types import SimpleNamespace

import lop_notebooks
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from lop_markdown import block, formula, span, table
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from notebooks import chapters
from page_rules import PAGES, ROOT, soup
from places import RAW
from sphinx.util.logging import getLogger

NAMES = [name for name, _ in chapters(ROOT)]
each_chapter = pytest.mark.parametrize("name", NAMES)
HEADING = re.compile(r"(#+) (.*)")
FORMULA = " x "  # stands for every formula, where two renderings are compared


def read(colab, name):
    return nbformat.read(colab / f"{name}.ipynb", as_version=4)


def texts(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def test_each_page_with_code_and_no_other_is_a_notebook(colab):
    written = {path.relative_to(colab).as_posix() for path in colab.rglob("*") if path.is_file()}
    assert written == {f"{name}.ipynb" for name in NAMES}


@each_chapter
def test_no_markup_of_ours_is_left(colab, name):
    assert [raw.group() for text in texts(read(colab, name)) for raw in RAW.finditer(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "```{math}\nx\n```",
        ":::{prf:theorem} Name\nx\n:::",
        "see {eq}`eq-law`",
        "see {prf:ref}`thm-law`",
        "x\n:label: thm",
        "$$\nx\n$$ (eq-law-gd)",
        "(there)=\n",
        "{{ value }}",
    ],
)
def test_markup_of_ours_would_be_found(text):
    assert RAW.search(text)


@each_chapter
def test_the_code_is_that_of_the_source_and_plots_and_checks_are_folded(colab, name):
    source = [cell.source for cell in dict(chapters(ROOT))[name].cells if cell.cell_type == "code"]
    setup, *cells = [cell for cell in read(colab, name).cells if cell.cell_type == "code"]
    assert setup.source.startswith("# @title Setup")
    assert [re.sub(r"\A# @title .*\n", "", cell.source) for cell in cells] == source
    for cell in cells:
        tags = set(cell.metadata.get("tags", []))
        folded = bool(tags & {"claim", "hide-input", "remove-input", "remove-cell"})
        assert (cell.metadata.get("cellView") == "form") == folded
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == folded
        assert cell.source.startswith("# @title ") == folded


@each_chapter
def test_every_sentence_of_the_page_is_there(html, colab, name):
    markdown = MarkdownIt().enable("table").use(dollarmath_plugin)
    rendered = soup_of("".join(map(markdown.render, texts(read(colab, name)))))
    for link in rendered.select("a[id]"):
        link.decompose()
    said = words(rendered)
    lost = [text for text in paragraphs(html / f"{name}.html") if text not in said]
    assert lost == []


def soup_of(text):
    return BeautifulSoup(text, "html.parser")


def words(element):
    """Return what a reader sees as one line, each formula as one sign."""
    for math in element.select(".math"):
        math.replace_with(FORMULA)
    return re.sub(r"\s+", "", element.get_text())


def paragraphs(page):
    """Yield the paragraphs, titles and captions of a page, but not what its code printed."""
    article = soup_of(str(soup(page).find("article")))
    captions = [caption.extract() for caption in article.select(".caption-text")]
    for other in article.select(".cell, .headerlink, .toggle-button, .lop-cite"):
        other.decompose()
    for element in [*article.select("p, h2, h3, td, th, summary"), *captions]:
        yield words(element)


@each_chapter
def test_each_option_of_a_quiz_opens_and_its_formulas_are_markdown(html, colab, name):
    markdown = MarkdownIt().use(dollarmath_plugin)
    text = "\n\n".join(texts(read(colab, name)))
    found = soup_of(markdown.render(text)).select("details")
    page = soup(html / f"{name}.html")
    options = page.select("article details.option, article details.sd-dropdown")
    assert [words(option.summary) for option in found] == [words(o.summary) for o in options]
    assert [[words(p) for p in option.select("p")] for option in found] == [
        [words(p) for p in option.select("p")] for option in options
    ]
    # Colab and JupyterLab read Markdown again only behind an empty line
    lines = re.findall(r"^.*</?(?:details|summary)>.*$", text, flags=re.M)
    assert len(lines) == 2 * len(options)
    assert all(f"\n\n{line}\n\n" in f"{text}\n\n" for line in lines)


@each_chapter
def test_what_is_numbered_on_the_page_has_its_number(html, colab, name):
    page = soup(html / f"{name}.html")
    numbers = [each.get_text().strip() for each in page.select("article .caption-number")]
    numbers = [each.replace("Fig.", "Figure").rstrip() for each in numbers]
    text = "\n".join(texts(read(colab, name)))
    assert [each for each in numbers if not re.search(rf"{re.escape(each)}\b", text)] == []
    equations = [each.get_text() for each in page.select("article .eqno")]
    tags = re.findall(r"\\tag\{([\d.]+)\}", text)
    assert [f"({tag})" for tag in tags] == [re.sub(r"[^\d.()]", "", each) for each in equations]


@each_chapter
def test_links_lead_to_places(html, colab, name):
    notebook = read(colab, name)
    text = "\n".join(texts(notebook))
    places = set(re.findall(r'<a id="([^"]+)" name="\1">', text))
    here = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert here == places
    site = lop_notebooks.site_address(config())
    for target, anchor in re.findall(rf"\]\({re.escape(site)}([^)#]*)#?([^)]*)\)", text):
        if target == "slides/":  # published beside the pages, see test_slides.py
            continue
        assert (html / target).is_file(), target
        assert not anchor or soup(html / target).find(id=anchor), f"{target}#{anchor}"
    assert re.findall(r"\]\((?!https?://|#|data:image/svg)[^)]*\)", text) == []


def config():
    """Return what Sphinx knows of _config.yml, as far as the notebooks ask."""
    read = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    options = {f"repository_{key}": value for key, value in read["repository"].items()}
    baseurl = read["html"].get("baseurl", "")
    return SimpleNamespace(html_baseurl=baseurl, html_theme_options=options)


@each_chapter
def test_solutions_are_folded_and_nothing_else_is(colab, name):
    notebook = read(colab, name)
    closed, level = [], None
    for cell in notebook.cells:
        heading = HEADING.match(cell.source) if cell.cell_type == "markdown" else None
        if heading and (level is None or len(heading[1]) <= level):
            level = len(heading[1]) if heading[2].startswith("Solution") else None
            if level:
                closed.append(cell.id)
                assert cell.metadata["jp-MarkdownHeadingCollapsed"] is True
        if cell.cell_type == "code":
            assert ("solution" in cell.metadata.get("tags", [])) == (level is not None)
    assert notebook.metadata.colab.collapsed_sections == closed
    assert [cell.metadata.id for cell in notebook.cells] == [cell.id for cell in notebook.cells]


def test_the_setup_installs_from_the_repository_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("LOP_SOURCE", raising=False)
    options = config().html_theme_options
    wanted = f"git+{options['repository_url']}@{options['repository_branch']}"
    assert lop_notebooks.source_of(config()) == wanted
    monkeypatch.setenv("LOP_SOURCE", "git+file:///there@abc")
    assert lop_notebooks.source_of(config()) == "git+file:///there@abc"


def test_an_unknown_kind_of_node_is_a_warning(caplog):
    getLogger("lop_markdown").logger.propagate = True
    assert span(nodes.superscript("", "2")) == "2"
    assert block(nodes.sidebar("", nodes.paragraph("", "aside"))) == "aside"
    found = [record.getMessage() for record in caplog.records]
    assert [each.split(" has")[0] for each in found] == ["superscript", "sidebar"]


def test_lines_of_a_formula_get_an_environment_and_a_number():
    assert formula(r"a \\ b", "3.1") == (
        "$$\n\\begin{split}\na \\\\ b\n\\end{split} \\tag{3.1}\n$$"
    )
    matrix = r"\begin{pmatrix} a \\ b \end{pmatrix}"
    assert formula(matrix) == f"$$\n{matrix}\n$$"


def test_what_the_text_holds_is_no_markup():
    assert span(nodes.Text("5 $ for a*b_c <x>")) == r"5 \$ for a\*b\_c \<x>"
    assert span(nodes.Text("[a](b) [c]")) == r"[a\](b) [c]"
    assert span(nodes.literal("", "a `b`")) == "`` a `b` ``"
    for start in ("1. x", "# x", "- x", "12) x"):
        assert MarkdownIt().render(block(nodes.paragraph("", start))) == f"<p>{start}</p>\n"
    assert block(nodes.paragraph("", "2.5 times")) == "2.5 times"
    fenced = block(nodes.literal_block("", "```\nx\n```"))
    assert "<code>```\nx\n```\n</code>" in MarkdownIt().render(fenced)


def test_a_bar_does_not_end_a_cell():
    cells = [
        nodes.entry("", nodes.paragraph("", "", each))
        for each in (nodes.math("", r"|x| + \|y\|"), nodes.literal("", "a | b"), nodes.Text("c|d"))
    ]
    written = table(nodes.table("", nodes.tgroup("", nodes.tbody("", nodes.row("", *cells)))))
    assert written.splitlines()[0] == r"| $\vert x\vert  + \Vert y\Vert$ | `a \| b` | c\|d |"


@each_chapter
def test_the_download_is_the_same_notebook_with_outputs(html, colab, name):
    there, here = (
        nbformat.read(html / "_sources" / f"{name}.ipynb", as_version=4),
        read(colab, name),
    )
    assert texts(there) == texts(here)
    cells, own = ([c for c in each.cells if c.cell_type == "code"][1:] for each in (there, here))
    assert [cell.source for cell in cells] == [cell.source for cell in own]
    assert all(cell.execution_count for cell in cells) and any(cell.outputs for cell in cells)


@pytest.mark.parametrize("page", PAGES)
def test_the_buttons_open_the_notebook_of_the_page(html, colab, page):
    name = page.removesuffix(".html")
    links = [link["href"] for link in soup(html / page).select(".dropdown-launch-buttons a[href]")]
    if name not in NAMES:
        assert links == []
        return
    options = config().html_theme_options
    repository = options["repository_url"].removeprefix("https://github.com/")
    colab_url, binder_url = links
    opened = f"https://colab.research.google.com/github/{repository}/blob/notebooks/"
    assert colab_url == f"{opened}{name}.ipynb"
    assert (colab / f"{name}.ipynb").is_file()
    branch = options["repository_branch"]
    start = f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/"
    assert binder_url == f"{start}{name}.md"
    assert (ROOT / f"{name}.md").is_file()
