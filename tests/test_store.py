"""What nbmake executed goes into the cache, unless something has changed since."""

import nbformat
import notebooks
import pytest
from small_book import HEADER, Book

CELL = "```{code-cell}\n1\n```\n"
EMPTY = HEADER.format("One") + "```{code-cell}\n```"


def execute(path):
    """Stand in for nbmake: give each code cell an output."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
            cell.outputs = [nbformat.v4.new_output("stream", text="seen by nbmake\n")]
            cell.metadata["execution"] = {
                "iopub.execute_input": "2026-01-01T00:00:01.250000Z",
                "shell.execute_reply": "2026-01-01T00:00:43.750000Z",
            }
    nbformat.write(notebook, path)
    assert notebooks.seconds(notebook) == 42.5


@pytest.mark.parametrize(
    ("name", "text"),
    [("lop_utils/__init__.py", "VALUE = 6\n"), ("chapter/one.md", EMPTY)],
)
def test_what_was_executed_is_stored_until_something_changes(tmp_path, name, text):
    book = Book(tmp_path, index="# Index", **{"chapter/one": HEADER.format("One") + CELL})
    assert notebooks.write(book.folder) == ["chapter/one"]
    assert notebooks.store(book.folder) == []  # not executed yet
    execute(book.folder / "build" / "nb" / "chapter" / "one.ipynb")
    assert notebooks.store(book.folder) == ["chapter/one"]
    book.write(name, text)
    assert notebooks.store(book.folder) == []
