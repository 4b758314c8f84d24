"""What stands in a folder of submissions: bytes of notebooks, or why there are none.

Nothing in there is trusted. Regular files alone are read, links are not followed, and no content is
looked at here: a notebook is parsed, and a zip file unpacked, behind the walls.
"""

import os
import stat
import unicodedata
from typing import NamedTuple

from grading.worker import LARGEST

ENDINGS = (".ipynb", ".zip")
DEEPEST = 20  # folders within folders
MOST = 10_000  # entries of a student's folder


class Submission(NamedTuple):
    """What one student handed in: the bytes of a file, or why there are none."""

    student: str
    content: bytes | None = None
    zipped: bool = False
    trouble: str = ""


def clean(text, most=100):
    """Return a text of any origin on one line, without what terminals and files cannot bear."""
    text = str(text)[: 4 * most].encode("utf-8", "replace").decode("utf-8")
    text = " ".join(text.split())
    text = "".join("?" if unicodedata.category(c)[0] == "C" else c for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def student_of(name):
    """Return the student whom a file is named after."""
    for each in ENDINGS:
        if name.strip().lower().endswith(each):
            name = name.strip()[: -len(each)]
    return clean(name) or "?"


def taken(name):
    """Say whether a name had to be cleaned."""
    stem = student_of(name)
    return not name.startswith(stem) or name[len(stem) :].lower() not in ("", *ENDINGS)


def submissions(folder, roster=()):
    """Yield one submission for each student, in the order of their names."""
    found = {}
    with os.scandir(folder) as entries:
        # Whose name is clean comes first: nobody takes another's by a space more.
        for entry in sorted(entries, key=lambda each: (taken(each.name), os.fsencode(each.name))):
            if entry.name.startswith((".", "__")):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            student = clean(entry.name) if is_folder else student_of(entry.name)
            while student in found:  # the same name as a file and as a folder
                student += "+"
            found[student] = entry.path, is_folder
    for student in sorted(found.keys() | set(roster)):
        yield opened(student, *found[student]) if student in found else Submission(student)


def opened(student, path, is_folder=False):
    """Read what one student handed in."""
    try:
        if is_folder:
            inside = [each for each in files(path) if ending(each) in ENDINGS]
            if not inside:
                return Submission(student)
            if len(inside) > 1:
                raise ValueError(f"{len(inside)} notebooks in one folder")
            (path,) = inside
        if ending(path) not in ENDINGS:
            raise ValueError("wanted a notebook (.ipynb) or a zip file")
        return Submission(student, content(path), ending(path) == ".zip")
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        return Submission(student, trouble=clean(said))


def ending(path):
    """Return the ending of a name, in small letters."""
    return os.path.splitext(path)[1].lower()


def files(folder):
    """Yield the files below a folder, links too, in order; raise where it has no bottom."""
    waiting, count = [(folder, 0)], 0
    while waiting:
        where, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} folders within folders")
        with os.scandir(where) as entries:
            for entry in entries:
                count += 1
                if count > MOST:
                    raise ValueError(f"more than {MOST} files in one folder")
                if entry.name == ".ipynb_checkpoints" or entry.name.startswith("__MACOSX"):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))
                else:
                    yield entry.path


def content(path):
    """Return the bytes of a regular file that is small enough."""
    # Neither follow a link nor wait for the other end of a pipe.
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise ValueError("wanted a file, got a pipe or a device")
        found = file.read(LARGEST + 1)
    if len(found) > LARGEST:
        raise ValueError(f"more than {LARGEST // 2**20} MiB")
    return found
