"""mystmd, with which Jupyter Book 2 reads pages, reads the sources too; and the rule bites."""

import os
import re

import forward
import pytest
from mystmd_project import OPTIONS, as_mystmd

# A page with most of what the chapters use.
RIGHT = """---
description: A page that is right
kernelspec: {name: python3, display_name: Python 3}
---

# Right

In {numref}`fig-right` and {eq}`eq-right` {prf:ref}`thm-right` shows a {term}`Core <core>`, see
{cite:t}`known2020`, {doc}`./right` and {doc}`../root`.

:::{prf:theorem} Of {cite:t}`known2020`
:label: thm-right
$$
x = 1
$$ (eq-right)
:::

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    name: fig-right
    caption: >-
      A caption: of "two" lines
      with $x^2$.
  image: {alt: words}
---
x = 1
```

```{exercise-start} To do
:label: ex-right
```
Do it.
```{exercise-end}
```

````{solution-start} ex-right
:class: dropdown
````
Done.

```{code-cell} ipython3
:tags: [solution]
x = 2
```
````{solution-end}
````

```{glossary}
core
: What moves.

rest
: What is no {term}`core`.
```
"""

# What is wrong, below a title and so from line 3; the rule of mystmd that finds it, and the line.
BROKEN = {
    "directive": ("```{nothing-of-the-kind}\n```", "directive-known", 3),
    "role": ("{nothing}`x`", "role-known", 3),
    "option": ("```{prf:theorem}\n:colour: 1\nx\n```", "directive-options-correct", 4),
    "cell": ("```{code-cell} ipython3\n---\nx: 2\n---\n```", "directive-options-correct", 4),
    "figure": ("{numref}`fig-nowhere`", "reference-target-resolves", 3),
    "equation": ("{eq}`eq-nowhere`", "reference-target-resolves", 3),
    "theorem": ("{prf:ref}`thm-nowhere`", "reference-target-resolves", 3),
    "term": ("nowhere is the\n{term}`nowhere`", "reference-target-resolves", 4),
    "anchor": ("[](#nowhere)", "reference-target-resolves", 3),
    "citation": ("{cite:t}`nobody1900`", "reference-target-resolves", 3),
    "page": ("{doc}`nowhere`", "link-resolves", 3),
    "link": ("[a page](nowhere.md)", "link-resolves", 3),
    "clash": ("{doc}`right`\n\n## Right", "reference-syntax-valid", 3),  # heading, not page
    "formula": ("$\\frac{1}{$", "math-renders", 3),
    "gate": ("```{exercise-start}\n:label: ex-open\n```\nx", "gated-nodes-join", 0),
    "glossary": ("```{glossary}\nword\n  as in Sphinx\n```", "glossary-uses-definition-list", 4),
    "label": ("(twice)=\n## One\n\n(twice)=\n## Two", "identifier-is-unique", 7),
    "network": ("[](https://doi.org/10.1000/182)", "doi-link-valid", 3),
}
BROKEN_HEADS = {
    "unreadable": ("title: [a", "frontmatter-is-yaml"),
    "key": ("nobody-knows: 1", "valid-page-frontmatter"),
    "description": ("description: [a, b]", "valid-page-frontmatter"),
}


# By the type of mystmd's node, how it begins in a source.
IN_SOURCE = {
    "code": r"^`{3,}\{code-cell\}",
    "exercise": r"\{exercise-start\}",
    "solution": r"\{solution-start\}",
    "proof": r"\{prf:(?!ref)",
    "container": r"^ +(?:figure: \{)?name: fig-",
    "math": r"^:label: eq-|^\$\$ \(eq-",
}


def write_book(folder, pages):
    """Write a book of these pages."""
    chapters = "".join(f"  - file: book/part/{name}\n" for name in pages)
    files = {
        "_config.yml": "title: A book\nbibtex_bibfiles: [book/references.bib]\n",
        "_toc.yml": f"format: jb-book\nroot: book/root\nparts:\n- chapters:\n{chapters}",
        "book/references.bib": "@book{known2020, author={A. B}, title={C}, year=2020}\n",
        "book/root.md": "# Root\n",
        **{f"book/part/{name}.md": text for name, text in pages.items()},
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def node():
    """Return the path of Node; without one, skip at home and fail in CI."""
    try:
        return forward.find_node()
    except RuntimeError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture(scope="module")
def book(node):
    return forward.read_book()


@pytest.fixture(scope="module")
def broken(node, tmp_path_factory):
    """Read a book in which every page but one is wrong."""
    pages = {name: f"# {name}\n\n{wrong}\n" for name, (wrong, _, _) in BROKEN.items()}
    pages |= {name: f"---\n{head}\n---\n\n# x\n" for name, (head, _) in BROKEN_HEADS.items()}
    folder = write_book(tmp_path_factory.mktemp("broken"), {"right": RIGHT, **pages})
    return forward.read_book(folder)


def found_in(reading, name):
    """Return the rule and the line of each problem of a page."""
    found = forward.unexcused(reading.problems)
    return [(each.rule, each.line) for each in found if each.file == f"book/part/{name}.md"]


def test_every_page_of_the_book_is_understood(book):
    assert forward.unexcused(book.problems) == []


def test_no_excuse_outlives_its_reason(book):
    used = {forward.excuse(problem) for problem in book.problems}
    assert [row.what for row in forward.ONLY_SPHINX if row.says and row not in used] == []
    assert any(OPTIONS.search((forward.ROOT / page).read_text("utf-8")) for page in book.trees)
    assert all(row.why and row.move for row in forward.ONLY_SPHINX)


def held(tree):
    """Count what a tree holds; a solution counts with its code, a figure with its number."""
    nodes = {kind: list(forward.nodes(tree, kind)) for kind in IN_SOURCE}
    return {
        **{kind: len(found) for kind, found in nodes.items()},
        "code": sum(bool(each.get("executable")) for each in nodes["code"]),
        "solution": sum(any(forward.nodes(each, "code")) for each in nodes["solution"]),
        "container": sum("enumerator" in str(each) for each in nodes["container"]),
        "math": sum("label" in each for each in nodes["math"]),
    }


def test_nothing_that_a_page_holds_is_lost(book):
    for page, tree in book.trees.items():
        text = (forward.ROOT / page).read_text(encoding="utf-8")
        written = {kind: len(re.findall(mark, text, re.M)) for kind, mark in IN_SOURCE.items()}
        assert held(tree) == written, page


def test_a_right_page_is_understood(broken):
    assert found_in(broken, "right") == []
    tree = broken.trees["book/part/right.md"]
    references = list(forward.nodes(tree, "crossReference"))  # codespell:ignore
    assert all(each["resolved"] for each in references)
    numbers = {each["label"]: each.get("enumerator") for each in references}
    assert numbers["fig-right"] == numbers["eq-right"] == numbers["thm-right"] == "1"
    (figure,) = forward.nodes(tree, "container")
    assert [each["visibility"] for each in forward.nodes(figure, "code")] == ["hide"]
    words = "".join(each["value"] for each in forward.nodes(figure["children"][-1], "text"))
    assert words.endswith("A caption: of “two” lines with .")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_found_where_it_stands(broken, name):
    _, rule, line = BROKEN[name]
    assert (rule, line) in found_in(broken, name)


@pytest.mark.parametrize("name", BROKEN_HEADS)
def test_wrong_front_matter_is_found(broken, name):
    assert BROKEN_HEADS[name][1] in dict(found_in(broken, name))


def test_the_copy_for_mystmd_keeps_its_lines():
    options = OPTIONS.search(RIGHT)
    copy = as_mystmd(RIGHT)
    assert ':tags: [hide-input]\n:label: fig-right\n:caption: A caption: of "two" lines' in copy
    assert copy.count("\n") == RIGHT.count("\n")
    assert copy[len(copy) - len(RIGHT) + options.end() :] == RIGHT[options.end() :]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "no node is on PATH"),
        ("echo v16.20.0", "needs Node 18 or later, and .* says 'v16.20.0'"),
        ("echo not found >&2; exit 127", "needs Node 18 or later, and .* says 'not found'"),
        ("echo v20.0.0", "mystmd .* ended with 0"),
        (
            '[ "$1" = --version ] && echo v20.0.0 || { echo broken; exit 3; }',
            "ended with 3:\nbroken",
        ),
    ],
)
def test_without_mystmd_there_is_no_answer(tmp_path, monkeypatch, script, message):
    (tmp_path / "bin").mkdir()
    if script:
        (tmp_path / "bin" / "node").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "bin" / "node").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(RuntimeError, match=message):
        forward.read_book(write_book(tmp_path, {"right": RIGHT}))


def test_a_mystmd_that_says_other_things_is_not_believed(node, tmp_path, monkeypatch):
    monkeypatch.setattr(forward, "MESSAGE", re.compile("another mark: (.)(.)(.)"))
    with pytest.raises(RuntimeError, match=r"mystmd .* should say .* and said \[\]"):
        forward.read_book(write_book(tmp_path, {"right": RIGHT}))


def test_a_page_of_which_nothing_is_written_is_missed(node, tmp_path, monkeypatch):
    write = forward.read_trees

    def without(folder):
        return {name: tree for name, tree in write(folder).items() if "right" not in name}

    monkeypatch.setattr(forward, "read_trees", without)
    with pytest.raises(RuntimeError, match=r"wrote nothing of book/part/right.md"):
        forward.read_book(write_book(tmp_path, {"right": RIGHT}))
