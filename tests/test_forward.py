"""mystmd, with which Jupyter Book 2 reads pages, reads the sources too; and the rule bites."""

import os
import re
import shutil

import forward
import pytest

pytestmark = pytest.mark.weekly

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


@pytest.fixture(scope="module", autouse=True)
def node():
    """Without Node skip at home and fail in CI."""
    if shutil.which("node") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("mystmd needs Node 18 or later")


@pytest.fixture(scope="module")
def book():
    return forward.read_book()


def test_every_page_of_the_book_is_understood(book):
    assert forward.unexcused(book[0]) == []


def test_no_excuse_outlives_its_reason(book):
    said = {each.text for each in book[0]}
    unused = [row for row in forward.ONLY_SPHINX if not any(t.startswith(row) for t in said)]
    assert unused == []


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
    for page, tree in book[1].items():
        text = (forward.ROOT / page).read_text(encoding="utf-8")
        written = {kind: len(re.findall(mark, text, re.M)) for kind, mark in IN_SOURCE.items()}
        assert held(tree) == written, page


def test_what_the_chapters_use_is_understood_in_full(tmp_path):
    problems, trees = forward.read_book(write_book(tmp_path, {"right": RIGHT}))
    assert forward.unexcused(problems) == []
    tree = trees["book/part/right.md"]
    references = list(forward.nodes(tree, "crossReference"))  # codespell:ignore
    assert all(each["resolved"] for each in references)
    numbers = {each["label"]: each.get("enumerator") for each in references}
    assert numbers["fig-right"] == numbers["eq-right"] == numbers["thm-right"] == "1"
    (figure,) = forward.nodes(tree, "container")
    assert [each["visibility"] for each in forward.nodes(figure, "code")] == ["hide"]
    words = "".join(each["value"] for each in forward.nodes(figure["children"][-1], "text"))
    assert words.endswith("A caption: of “two” lines with .")


def test_what_is_not_understood_is_found(tmp_path):
    wrong = {"role": "{nothing}`x`", "figure": "{numref}`fig-no`", "formula": "$\\frac{1}{$"}
    pages = {name: f"# {name}\n\n{text}\n" for name, text in wrong.items()}
    problems, _ = forward.read_book(write_book(tmp_path, pages))
    assert {(each.file, each.rule) for each in forward.unexcused(problems)} >= {
        ("book/part/role.md", "role-known"),
        ("book/part/figure.md", "reference-target-resolves"),
        ("book/part/formula.md", "math-renders"),
    }


def test_the_copy_for_mystmd_keeps_its_lines():
    copy = forward.as_mystmd(RIGHT)
    assert ':tags: [hide-input]\n:label: fig-right\n:caption: A caption: of "two" lines' in copy
    assert copy.count("\n") == RIGHT.count("\n")


def test_a_mystmd_that_fails_or_says_other_things_is_not_believed(tmp_path, monkeypatch):
    folder = write_book(tmp_path, {"right": RIGHT})
    monkeypatch.setattr(forward, "MESSAGE", re.compile("another mark: (.)(.)(.)"))
    with pytest.raises(RuntimeError, match=r"mystmd should say .* and said \[\]"):
        forward.read_book(folder)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "node").write_text("#!/bin/sh\necho broken; exit 3\n", encoding="utf-8")
    (tmp_path / "bin" / "node").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(RuntimeError, match="ended with 3:\nbroken"):
        forward.read_book(folder)
