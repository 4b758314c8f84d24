"""The judge: it holds tests and points, and asks a walled notebook for values and for calls.

The tests stand in the source of an assignment. A test's parameters are names in the student's
notebook: values arrive as copies, functions as such whose calls travel. Whatever the notebook does
to itself, it can only answer.
"""

import ast
import builtins
import inspect
import time
from typing import NamedTuple

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from grading.handed_in import Submission
from grading.wire import Closed, Functions, Received, Sent, put_back

GRACE = 10  # seconds to wait for an answer beyond those that it may take
CALLS = 10_000  # in one question, from either side
ERRORS = {name for name in dir(builtins) if isinstance(getattr(builtins, name), type)}
ERRORS |= {"LinAlgError", "OutOfMemoryError", "a long cell"}


class Test(NamedTuple):
    """A test of one question."""

    points: float
    hidden: bool
    function: object
    names: list[str]


class Verdict(NamedTuple):
    """What one question got: points, and for each lost test what to say to whom."""

    points: float
    said: list[str]  # to the student
    details: list[str]  # to the instructor


class StudentsError(Exception):
    """The student's function raised."""


def known(kind):
    """Return the name of an error, if it is one that everybody knows."""
    kind = str(kind)[:100]
    return kind if kind in ERRORS or kind.startswith("stopped after ") else "an error"


class Late(Exception):
    """The student's function took too long."""


def tests(assignment):
    """Return the tests of each question of an assignment."""
    found, name, inside = {}, None, False
    for cell in assignment.notebook.cells:
        first, _, rest = cell.source.partition("\n")
        if cell.cell_type == "raw":
            if first == "# BEGIN QUESTION":
                name = yaml.safe_load(rest)["name"]
            elif first in ("# BEGIN TESTS", "# END TESTS"):
                inside = first == "# BEGIN TESTS"
        elif inside:
            found.setdefault(name, []).append(test(cell.source, f"{assignment.name}, {name}"))
    return found


def test(source, where):
    """Return one test from its cell."""
    said, code = source.split('""" # END TEST CONFIG\n')
    said = yaml.safe_load(said.removeprefix('""" # BEGIN TEST CONFIG\n'))
    names = {}
    exec(compile(code, f"<{where}>", "exec"), names)
    (function,) = [each for each in names.values() if inspect.isfunction(each)]
    return Test(
        said["points"],
        said.get("hidden", False),
        function,
        list(inspect.signature(function).parameters),
    )


def solved(assignment, instead=()):
    """Return the cells of code of the reference solution, with its checks.

    ``instead`` has other answers to some questions, by their names; what tests do not grade is then
    left out.
    """
    code, part, name, manual = [], "", None, False
    for cell in assignment.notebook.cells:
        first, _, rest = cell.source.partition("\n")
        if cell.cell_type == "raw":
            part = first.removeprefix("# ")
            if part == "BEGIN QUESTION":
                said = yaml.safe_load(rest)
                name, manual = said["name"], said.get("manual", False)
            elif part == "BEGIN SOLUTION" and name in instead:
                code.append(instead[name])
            elif part == "END QUESTION":
                code.append(f'grader.check("{name}")')
        elif cell.cell_type != "code" or part == "BEGIN TESTS" or (instead and manual):
            continue
        elif part != "BEGIN SOLUTION" or name not in instead:
            code.append(cell.source)
    return ["import otter\n\ngrader = otter.Notebook()", *code]


def reference(assignment, instead=()):
    """Return the reference solution, or one with other answers, as one hands it in."""
    cells = [new_code_cell(source) for source in solved(assignment, instead)]
    content = nbformat.writes(new_notebook(cells=cells)).encode("utf-8")
    return Submission("reference", content)


def imported(assignment):
    """Return the modules of the package that an assignment itself imports."""
    found = set()
    for source in solved(assignment):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == "lop_utils":
                found |= {f"lop_utils.{alias.name}" for alias in node.names}
    return found


class Question:
    """One question at one moment of the notebook, asked over a socket of its own."""

    def __init__(self, channel, seconds):
        self.channel, self.seconds, self.until = channel, seconds, channel.until
        self.functions, self.calls, self.late = Functions(), 0, None

    def values(self):
        """Return the values of the question's names."""
        self.channel.until = min(self.until, time.monotonic() + GRACE)
        message, arrays = self.channel.receive_with_arrays()
        received = Received(arrays, self.functions, self.call)
        pairs = message["values"]["dict"]
        return {
            received.value(name): received.value(said, received.value(name)) for name, said in pairs
        }

    def send(self, kind, value):
        """Send a value to the notebook."""
        sent = Sent(value, self.functions)
        self.channel.send({kind: sent.said}, sent.arrays)

    def call(self, function, arguments, named):
        """Let the notebook call one of its functions; give back what it did to the arguments."""
        if self.late:
            raise Late(self.late)
        name = function.__name__
        self.channel.until = min(self.until, time.monotonic() + 3 * self.seconds + GRACE)
        try:
            self.send("call", (function, arguments, named))
        except TimeoutError:
            raise Late(f"{name} does not take its arguments") from None
        while True:
            self.calls += 1
            if self.calls > CALLS:
                raise StudentsError(f"{name} calls back without end")
            try:
                message, arrays = self.channel.receive_with_arrays()
            except TimeoutError:
                message, arrays = {"late": self.seconds}, b""
            received = Received(arrays, self.functions, self.call)
            if "call" in message:
                self.called(*received.value(message["call"]))
            elif "late" in message:
                self.late = f"{name} took longer than {self.seconds:g} s"
                raise Late(self.late)
            elif "error" in message:
                kind, text = message["error"]
                raise StudentsError(f"{name} raised {known(kind)}", str(text)[:1000])
            else:
                result, *changed = received.value(message["result"], f"what {name} returns")
                put_back([arguments, named], changed)
                return result

    def called(self, function, arguments, named):
        """Call a function of a test for the notebook."""
        try:
            self.send("result", function(*arguments, **named))
        except Exception as error:
            self.channel.send({"error": f"{type(error).__name__}: {error}"[:300]})


def verdict(tests, channel, seconds):
    """Grade one question over its socket."""
    points, said, details = 0.0, [], []
    question = Question(channel, seconds)
    try:
        values = question.values()
    except (Closed, TimeoutError):
        return Verdict(0.0, *[["the notebook ended here, by itself or for want of memory"]] * 2)
    except Exception as error:
        return Verdict(0.0, *[[f"the answers cannot be read: {error}"]] * 2)
    for test in tests:
        try:
            test.function(**{name: values.get(name) for name in test.names})
        except AssertionError as error:
            text = shown = str(error)
        except StudentsError as error:  # whose text may tell what hidden tests ask for
            text, shown = ": ".join(error.args), error.args[0]
        except Late as error:
            text = shown = str(error)
        except Closed:
            text = shown = "the process of the answer ended, by itself or for want of memory"
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            shown = f"{type(error).__name__}: is the answer of the kind that is asked for?"
        else:
            points += test.points
            continue
        said.append(shown)
        details.append(text)
    return Verdict(points, list(dict.fromkeys(said)), list(dict.fromkeys(details)))


class Graded(NamedTuple):
    """What became of one submission."""

    status: str
    verdicts: dict[str, Verdict]
    written: dict[str, str]
    imports: list[str]
    failed: list[list]  # cells: number, kind of the error, text
    trouble: str = ""


def grade(content, zipped, assignment, known_tests, host):
    """Grade the bytes of one submission behind the walls of a host."""
    names = {
        question: sorted({n for t in each for n in t.names})
        for question, each in known_tests.items()
    }
    manual = [question.name for question in assignment.questions if question.manual]
    verdicts = {question: Verdict(0.0, ["no answer was reached"], []) for question in known_tests}
    found = Graded("graded", verdicts, {}, [], [])
    with host.job(names, manual) as (main, sockets, ended):
        try:
            main.send({"zipped": zipped}, [content])
            about = main.receive()
            if "unreadable" in about:
                said = str(about["unreadable"])[:300]
                return found._replace(status="unreadable", trouble=said)
            if (belongs := str(about["belongs"])) not in ("", assignment.name):
                return found._replace(status="other assignment", trouble=belongs[:100])
            written = {name: str(about["written"].get(name, "")) for name in manual}
            imports = [str(name)[:60] for name in about["imports"][:20]]
            found = found._replace(written=written, imports=imports)
            ask, at_checks = None, set()
            while True:
                message = main.receive()
                if "end" in message:
                    failed = [
                        [int(i), known(kind), str(text)[:200]]
                        for i, kind, text in message["end"][:5]
                    ]
                    found = found._replace(failed=failed)
                    ask = [name for name in known_tests if name not in at_checks]
                else:
                    name = message["at"]
                    channel = sockets[name].pop(0)
                    verdicts[name] = verdict(known_tests[name], channel, host.limits.seconds)
                    at_checks.add(name)
                    main.send({"next": True})
                if ask is not None:
                    if not ask:
                        main.send({})
                        return found
                    main.send({"again": ask.pop(0)})
        except TimeoutError:
            ended()
            return found._replace(status="time")
        except Closed:
            status = ended()
            if status == "ended" and host.has_died():
                raise OSError("the host has died") from None
            return found._replace(status=status)
        except Exception as error:  # whatever a notebook says that makes no sense
            return found._replace(status="doubtful", trouble=f"{type(error).__name__}: {error}")
