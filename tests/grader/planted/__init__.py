"""Mistakes to plant into the reference solutions, one module for each assignment."""

from typing import NamedTuple


class Mistake(NamedTuple):
    """A mistake, what it must cost, and what the student must be told."""

    name: str
    old: str
    new: str
    lost: dict[str, float]
    message: str


def plant(notebook, mistake):
    """Make the mistake in the one cell of code of a solution that has the old text once."""
    cells = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and mistake.old in cell.source and "CHECKS" not in cell.source
    ]
    if len(cells) != 1 or cells[0].source.count(mistake.old) != 1:
        raise ValueError(f"{mistake.name}: wanted {mistake.old!r} once in the solution")
    cells[0].source = cells[0].source.replace(mistake.old, mistake.new)
    return notebook
