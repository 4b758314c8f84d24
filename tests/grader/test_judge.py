"""What an answer can say to the judge, and what it cannot make him believe."""

import pytest
import torch
from adding import ADD, HONEST, Q1, Q2, SETUP, TOTAL, grade, notebook, points
from grading import judge, walls

pytestmark = pytest.mark.xdist_group("judge")


@pytest.fixture(scope="module")
def host():
    with walls.Host(walls.LIMITS._replace(seconds=3)) as host:
        yield host


# From a blank notebook: each reached every point when tests and answers shared a process.
CHEATS = {
    "patches what runs the tests": """
import torch
for name, module in list(torch.sys.modules.items()):
    if name.startswith(("grading", "otter", "lop_utils.book")):
        for key in list(vars(module)):
            if callable(vars(module)[key]) and not key.startswith("__"):
                setattr(module, key, lambda *_, **__: True)
""",
    "begins like the setup": "# @title Setup: run this cell first\nimport gc, sys\n"
    "for frame in [sys._getframe(i) for i in range(5)]: frame.f_globals.update(points=16)",
    "writes results and dies": "import json, os\nopen('results.json', 'w').write(json.dumps("
    "{'tests': [{'name': 'q1', 'score': 2, 'max_score': 2}]}))\nos._exit(0)",
    "differences of zero": """
import torch
class Zero(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        return torch.tensor(True)
def add(a, b):
    return torch.zeros(2, 2).as_subclass(Zero)
total = Zero()
""",
    "equal to everything": "class Equal:\n    def __eq__(self, other): return True\n"
    "    __hash__ = None\ntotal = Equal()\ndef add(a, b): return Equal()",
    "speaks for the judge": """
import gc
from grading import wire
for each in gc.get_objects():
    if isinstance(each, wire.Channel):
        for said in ({"at": "q1"}, {"at": "q2"}, {"end": []}, {"points": 9}, {"next": True}):
            each.send(said)
""",
    "calls the judge's own functions": """
import gc
from grading import wire
def add(a, b):
    me = [each for each in gc.get_objects() if type(each).__name__ == "Answers"][0]
    remote = wire.Remote("x", 0, me.ask)
    return me.ask(remote, (remote, remote), {})
""",
    "reads the tests": "import glob\nassert 'test_total' in ''.join(open(p).read() "
    "for p in glob.glob('/**/adding*', recursive=True))\ntotal = 42",
}


@pytest.mark.parametrize("name", CHEATS)
def test_nothing_that_a_notebook_does_to_itself_earns_a_point(name, host, known):
    graded = grade(known, host, SETUP, CHEATS[name], Q1, Q2)
    assert sum(points(graded)) == 0, graded


FORGED = [
    '{"at": "q9"}',
    '{"at": ["q1"]}',
    '{"end": 3}',
    '{"end": [[1, 2]]}',
    "[]",
    "3",
    '{"unknown": 1}',
    "[" * 90_000,
    "1" * 10_000,
    "\xff",
    '{"at": "q1"}' * 2,
]


@pytest.mark.parametrize("text", FORGED)
def test_a_message_that_makes_no_sense_is_that_students_row(text, host, known):
    send = f"""
import gc, struct
from grading import wire
for each in gc.get_objects():
    if isinstance(each, wire.Channel):
        each.sock.sendall(struct.pack(">QQ", {len(text)}, 0) + {text.encode("latin-1")!r})
"""
    graded = grade(known, host, SETUP, ADD, Q1, send, TOTAL, Q2)
    assert graded.status in ("doubtful", "ended", "time")
    assert points(graded) == [2, 0]
    assert points(grade(known, host, *HONEST)) == [2, 1]


@pytest.mark.parametrize("length", [2**40, 2**63])
def test_a_length_without_end_is_not_believed(length, host, known):
    send = f"""
import gc, struct
from grading import wire
for each in gc.get_objects():
    if isinstance(each, wire.Channel):
        each.sock.sendall(struct.pack(">QQ", {length}, 0))
"""
    assert grade(known, host, SETUP, send, *HONEST).status == "doubtful"


ANSWERS = {
    "later cells": ([SETUP, ADD, Q1, TOTAL, Q2, "add = total = None"], [2, 1]),
    "checked again": ([SETUP, "def add(a, b): return 0", Q1, ADD, Q1, TOTAL, Q2], [2, 1]),
    "guesses": ([SETUP, ADD, Q1, *[f"total = {i}\n{Q2}" for i in (41, 42, 43)]], [2, 0]),
    "threads": (
        [
            "import torch\ntorch.set_num_threads(4)\nA = torch.ones(999, 999)\nA @ A",
            SETUP,
            "def add(a, b):\n    A @ A\n    return a + b",
            Q1,
            TOTAL,
            Q2,
        ],
        [2, 1],
    ),
    "no check cells": ([ADD, TOTAL], [2, 1]),
    "no setup": ([ADD, Q1, TOTAL, Q2], [2, 1]),
    "checked often": ([SETUP, ADD, Q1, Q1, Q1, TOTAL, Q2, "total = None", Q2], [2, 0]),
    "in place": (
        [SETUP, "def add(a, b):\n    a += b\n    return a", Q1, "total = 42", Q2],
        [1, 1],
    ),
    "a cell that fails": ([SETUP, ADD, "1 / 0", "this is no Python", Q1, TOTAL, Q2], [2, 1]),
    "magic": (["%matplotlib inline", "!ls", *HONEST, "%%time\n1"], [2, 1]),
    "numpy": (["import numpy as np", SETUP, ADD, Q1, "total = np.int64(42)", Q2], [2, 1]),
    "a callable": (
        ["class A:\n    def __call__(self, a, b): return a + b", "add = A()", "total = 42.0"],
        [2, 1],
    ),
    "a module": (
        [
            "import torch",
            "class A(torch.nn.Module):\n    def forward(self, a, b): return a + b",
            "add = A()",
            "total = torch.tensor(42)",
        ],
        [2, 1],
    ),
    "a name without value": (["add = ...", "total = None"], [0, 0]),
    "memory of the judge": (
        [
            "from grading import wire\nwire.Sent.tensor = lambda *_: ['float64', [9], 0, 0]",
            "def add(a, b):\n    return torch.ones(2, 2)",
            "import torch\ntotal = torch.ones(1)",
        ],
        [0, 0],
    ),
    "far too large": (["import torch", "total = torch.zeros(2**28)", ADD, "2"], [2, 0]),
    "without end": (["total = []\ntotal.append(total)", ADD], [2, 0]),
    "half an emoji": (["total = '\\ud83d'", ADD], [2, 0]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_gets_what_it_deserves(name, host, known):
    cells, wanted = ANSWERS[name]
    graded = grade(known, host, *cells)
    assert (graded.status, points(graded)) == ("graded", wanted), graded


def test_an_error_is_told_and_a_hidden_test_keeps_its_case(host, known):
    add = "def add(a, b):\n    if isinstance(a, int): return 3\n    raise ValueError(f'got {a}')"
    graded = grade(known, host, SETUP, add, Q1, "1 / 0", "total = 41", Q2)
    assert points(graded) == [1, 0]
    q1, q2 = graded.verdicts.values()
    assert q1.said == ["add raised ValueError"]
    assert "got tensor" in q1.details[0]  # the instructor sees it
    assert q2.said == ["total: not 42"]
    assert graded.failed == [[4, "ZeroDivisionError", "division by zero"]]


def test_no_name_of_a_class_tells_what_a_hidden_test_asks_for(host, known):
    add = "def add(a, b):\n    if a is b: return 3\n    raise type(f'got {a}', (Exception,), {})"
    cell = "raise type('got it', (Exception,), {})"
    total = "total = type('got it', (), {})()"
    graded = grade(known, host, SETUP, add, Q1, cell, total, Q2)
    said = [text for verdict in graded.verdicts.values() for text in verdict.said]
    assert said and not any("got" in text for text in said)
    assert graded.failed == [[4, "an error", ""]]


def test_a_test_can_hand_functions_and_generators_over(host, known):
    def test(run):
        generator = torch.Generator().manual_seed(0)
        twice = run(lambda x, y=1: 2 * x + y, [torch.ones(2), 3], generator)
        assert torch.equal(twice(torch.tensor(4.0)), torch.tensor(9.0))
        other = torch.Generator().manual_seed(0)
        torch.rand(3, generator=other)
        assert torch.equal(generator.get_state(), other.get_state())

    tests = {"q1": [judge.Test(1.0, False, test, ["run"])]}
    cell = (
        "import torch\ndef run(f, X, generator):\n    torch.rand(3, generator=generator)\n"
        "    assert f(X[0]).tolist() == [3, 3] and f(x=X[1], y=0) == 6\n    return f"
    )
    graded = judge.grade(notebook(cell), False, known.assignment, tests, host)
    assert points(graded) == [1], graded
