"""A small assignment, and notebooks that are handed in for it."""

import nbformat
from grade import grader
from grading import judge
from nbformat.v4 import new_code_cell, new_notebook

SOURCE = '''\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
assignment:
  after: [parsimony/law]
  summary: A sum, a number, and a word.
---

# Adding

## Add

```{raw-cell}
# BEGIN QUESTION
name: q1
points: 2
```

```{code-cell} ipython3
def add(a, b):
    # BEGIN SOLUTION
    return a + b
    # END SOLUTION
```

```{raw-cell}
# BEGIN TESTS
```

```{code-cell} ipython3
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_numbers(add):
    assert add(1, 2) == 3, "add: not the sum"
```

```{code-cell} ipython3
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_tensors(add):
    import torch

    a, b = torch.ones(2, 2), torch.eye(2)
    got = add(a, b)
    assert torch.equal(a, torch.ones(2, 2)), "add changes its argument"
    assert torch.equal(got, torch.ones(2, 2) + torch.eye(2)), "add: not the sum of tensors"
```

```{raw-cell}
# END TESTS
```

```{raw-cell}
# END QUESTION
```

+++ {"tags": ["instructor"]}

**Tests.** A sum.

**Usual mistakes.** A difference.

**Time.** 5 minutes.

+++

## Sum up

```{raw-cell}
# BEGIN QUESTION
name: q2
points: 1
```

```{code-cell} ipython3
total = add(20, 22)  # SOLUTION
```

```{raw-cell}
# BEGIN TESTS
```

```{code-cell} ipython3
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_total(total):
    assert total == 42, "total: not 42"
```

```{raw-cell}
# END TESTS
```

```{raw-cell}
# END QUESTION
```

+++ {"tags": ["instructor"]}

**Tests.** The number.

**Usual mistakes.** Another number.

**Time.** 5 minutes.

+++

## Say why

```{raw-cell}
# BEGIN QUESTION
name: q3
points: 3
manual: true
```

**Question 3.** Why?

```{raw-cell}
# END QUESTION
```

+++ {"tags": ["instructor"]}

**Tests.** A reason.

**Usual mistakes.** None.

**Rubric.** One point for each reason.

**Time.** 5 minutes.
'''
SETUP = "import otter\ngrader = otter.Notebook()"
ADD = "def add(a, b):\n    return a + b"
TOTAL = "total = add(20, 22)"
Q1, Q2 = "grader.check('q1')", "grader.check('q2')"
HONEST = [SETUP, ADD, Q1, TOTAL, Q2]


def adding(folder):
    """Write the assignment into a folder; return what grades it."""
    path = folder / "book" / "teaching" / "assignments" / "adding.md"
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE, encoding="utf-8")
    return grader("adding", folder)


def notebook(*cells):
    """Return the bytes of a notebook of cells of code."""
    return nbformat.writes(new_notebook(cells=[new_code_cell(cell) for cell in cells])).encode()


def grade(known, host, *cells):
    """Grade a notebook of cells of code."""
    return judge.grade(notebook(*cells), False, known.assignment, known.tests, host)


def points(graded):
    """Return the points of each question, in a row."""
    return [verdict.points for verdict in graded.verdicts.values()]
