"""A class of whatever: honest notebooks among broken, mutated and hostile ones."""

import io
import json
import os
import zipfile
from random import Random

from adding import ADD, HONEST, Q1, Q2, SETUP, TOTAL, notebook

CELLS = [
    "while True:\n    pass",
    "import os\nos._exit(3)",
    "import os\nos.kill(os.getppid(), 9)",
    "import os\nos.kill(-1, 9)",
    "import os\nos.fork()",
    "import os\nfor i in range(3, 99):\n    try: os.write(i, b'\\x00' * 40)\n"
    "    except OSError: pass",
    "import ctypes\nctypes.memset(0, 1, 1)",
    "import sys\nsys.modules.clear()",
    "import builtins\nbuiltins.__dict__.clear()",
    "import signal\nfor i in (1, 2, 3, 10, 14, 15): signal.signal(i, signal.SIG_IGN)",
    "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "x = bytes(2**34)",
    "raise BaseException('\\ud83d' * 10**6)",
    "class E(Exception):\n    __str__ = None\nraise E",
    "def add(a, b):\n    raise SystemExit",
    "def add(a, b):\n    return add",
    "def add(a, b):\n    import os\n    os._exit(0)",
    "def add(a, b):\n    yield a + b",
    "add = type",
    "total = float('nan')",
    "total = 10**5000",
    "total = {1: [2, (3, {4: None})], None: ...}",
    "import torch\ntotal = torch.zeros(0, 10**9)",
    "import torch\ntotal = torch.sparse_coo_tensor([[0]], [1.0], (10**9,))",
    "import numpy\ntotal = numpy.array(['a', None])",
    "import numpy\ntotal = numpy.broadcast_to(numpy.zeros(()), (10**6, 10**6))",
    "from grading import wire\nwire.Sent.plain = lambda *_: {'tensor': ['float64', [-1], 0, 8]}",
    "from grading import wire\nwire.Sent.plain = lambda *_: {'yours': 10**9}",
    "from grading import wire\nwire.Sent.plain = lambda *_: {'list': 3}",
    "from grading import worker\nworker.Notebook.visit = None",
    "from grading import worker\n"
    "worker.Answers.serve = lambda self: self.judge.sock.sendall(b'x' * 99)",
    "%%bash\nsleep 1 &",
    "%reset -f",
    "exit()",
    "input()",
    "\x00",
    "(" * 5000,
    "# " + "é" * 5000,
]
VALUES = [None, 3, -1e300, "", "x" * 10**5, [], {}, [[[]]], {"cells": []}, True]


def generated(seed):
    """Return a name, the bytes of a file, and whether it is honest."""
    chance = Random(seed)
    content = notebook(*HONEST)
    kind = chance.choice(["honest", "honest", "cells", "cells", "bytes", "json", "zip", "zip"])
    name = "".join(chance.choice("ab é=+-@#/\n\x1b😀") for _ in range(chance.randrange(9)))
    name = f"{seed:04d}{name.replace('/', '_')}"
    if kind == "cells":
        cells = [SETUP, ADD, Q1, TOTAL, Q2]
        for _ in range(chance.randrange(1, 3)):
            cells.insert(chance.randrange(6), chance.choice(CELLS))
        content = notebook(*cells)
    elif kind == "json":
        content = json.dumps(mutated(json.loads(content), chance)).encode()
    elif kind == "zip":
        content = zipped(content, chance)
    if kind in ("bytes", "zip"):
        content = scratched(content, chance)
    ending = ".zip" if kind == "zip" else chance.choice([".ipynb", ".IPYNB"])
    return name.encode()[:200] + ending.encode(), content, kind == "honest"


def zipped(content, chance):
    """Return a zip file of a notebook, packed in any way."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", chance.choice([0, 8, 12, 14])) as archive:
        for i in range(chance.choice([0, 1, 1, 1, 2])):
            archive.writestr(f"{i}{chance.choice(['a.ipynb', '/../a.IPYNB', '.txt'])}", content)
    return file.getvalue()


def scratched(content, chance):
    """Return bytes of which some are others, gone, or twice there."""
    content = bytearray(content)
    for _ in range(chance.randrange(1, 8)):
        if not content:
            break
        start = chance.randrange(len(content))
        end = start + chance.randrange(1, 40)
        content[start:end] = chance.choice(
            [b"", bytes([chance.randrange(256)]), bytes(content[start:end]) * 3]
        )
    return bytes(content)


def mutated(value, chance):
    """Return a notebook in which something is of another kind."""
    if chance.random() < 0.03:
        return chance.choice(VALUES)
    if isinstance(value, dict):
        return {key: mutated(each, chance) for key, each in value.items() if chance.random() > 0.03}
    if isinstance(value, list):
        return [mutated(each, chance) for each in value for _ in range(chance.choice([1, 1, 1, 2]))]
    return value


def write_class(folder, seeds):
    """Write a class into a folder; return the names of those who are honest."""
    honest = []
    for seed in seeds:
        name, content, is_honest = generated(seed)
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(content)
        if is_honest:
            honest.append(os.fsdecode(name))
    return honest
