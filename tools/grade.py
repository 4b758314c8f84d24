"""Grade a folder of submissions into one table.

usage: grade.py NAME SUBMISSIONS [--out FOLDER] [--roster FILE] [--jobs N]
                [--seconds S] [--memory GIB]

NAME         an assignment
SUBMISSIONS  a folder of notebooks or zip files, one a student, or of folders, one a student
--out        where the results go (build/grades/NAME); a folder that has some already is refused
--roster     a text file with one student a line, as the submissions are named: who is missing?
--jobs       submissions graded at once (one a processor)
--seconds    of the processor, for one cell or one call of an answer (60); three times that by the
             clock, and ten times for a submission
--memory     its memory in GiB (4)

grades.csv     a line a student: status, points, each question; written questions are left empty
feedback/      for each student what was lost and why
written.md     the written answers, question by question, to grade by hand
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import NamedTuple

import torch
from grading import judge, report
from grading.handed_in import student_of, submissions
from grading.walls import LIMITS, Host, protection, sweep

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
from lop_course import Assignment, names, read  # noqa: E402

JUDGE = 8 * 2**30  # bytes: what an answer makes the tests compute must not take the machine


class Grader(NamedTuple):
    """An assignment as the grader needs it."""

    assignment: Assignment
    tests: dict[str, list[judge.Test]]
    root: Path

    @property
    def name(self):
        """The assignment's name."""
        return self.assignment.name

    @property
    def points(self):
        """The points of each question that tests grade."""
        return {name: float(sum(t.points for t in each)) for name, each in self.tests.items()}


def grader(name, root=ROOT):
    """Return what grades an assignment."""
    assignment = read(name, root)
    return Grader(assignment, judge.tests(assignment), root)


def graded(submission, known, host):
    """Grade one submission, whatever it is; return its row."""
    student, content, zipped, trouble = submission
    started = time.monotonic()
    if content is None:
        return pending(student, known, "unreadable" if trouble else "missing", trouble)
    found = judge.grade(content, zipped, known.assignment, known.tests, host)
    more = sorted(set(found.imports) - judge.imported(known.assignment))
    look = [f"imports {', '.join(more)}"] if more else []
    return report.Row(student, found, look, time.monotonic() - started)


def pending(student, known, status, trouble=""):
    """Return the row of a student of whom nothing is graded."""
    none = dict.fromkeys(known.tests, judge.Verdict(0.0, [], []))
    return report.Row(student, judge.Graded(status, none, {}, [], [], trouble), [], 0.0)


class Slot:
    """A process that judges one submission after the other, behind whose walls notebooks run.

    An answer may make a test compute without end: then the process is killed, and another begins.
    """

    def __init__(self, known, limits):
        self.known, self.limits, self.process = known, limits, None
        self.source = known.name, known.root

    def start(self):
        """Start the process and its host."""
        # A server that has no threads forks it: this process may have some.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["grading.judge", "grading.walls"])
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *self.source, self.limits))
        self.process.start()
        theirs.close()
        self.ready = False

    def protection(self):
        """Wait until it is ready; return what protects it."""
        said = self.heard(120.0)
        if not isinstance(said, str):
            self.stop()
            raise said or OSError("the grader's own process does not start")
        self.ready = True
        return said

    def heard(self, seconds):
        """Return what the process says, None where it says nothing."""
        with suppress(EOFError, OSError):
            if self.line.poll(seconds):
                return self.line.recv()
        return None

    def grade(self, submission):
        """Return the row of one submission, whatever it does to the process."""
        try:
            if self.process is None:
                self.start()
            if not self.ready:
                self.protection()
        except OSError as error:
            return pending(submission.student, self.known, "not graded", str(error))
        with suppress(OSError):
            self.line.send(submission)
        row = self.heard(self.limits.total + 60.0)
        if not isinstance(row, report.Row):
            self.process.join(1.0)
            status = "time" if self.process.is_alive() else "doubtful"
            row = pending(submission.student, self.known, status, "it ended the tests themselves")
            self.stop()
        return row

    def stop(self):
        """Kill the process, and with it all behind its walls."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.line.close()
            sweep(f"grading-{self.process.pid}-*")
            self.process = None


def serve(line, name, root, limits):
    """Judge what comes over a line; nobody but Slot stops it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process
    torch.set_num_threads(1)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (JUDGE, JUDGE))
    try:
        known, host = grader(name, root), Host(limits)
        host.start()
    except Exception as error:
        return line.send(OSError(f"{type(error).__name__}: {error}"))
    with host, suppress(EOFError, BrokenPipeError):
        line.send(protection(host.nested))
        while True:
            submission = line.recv()
            try:
                row = graded(submission, known, host)
            except OSError:  # the host has died, of the one before perhaps
                host.stop()
                host.start()
                row = graded(submission, known, host)
            line.send(row)


def grade_folder(known, folder, out, *, roster=(), jobs=1, limits=LIMITS, show=print):
    """Grade all submissions of a folder with what grades an assignment; return the rows."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: wanted a folder of submissions; unpack an archive first")
    waiting = list(submissions(folder, roster))
    if not any(each.content or each.trouble for each in waiting):
        raise ValueError(f"{folder}: wanted notebooks, zip files or folders of students, got none")
    if (out / "grades.csv").exists():
        raise ValueError(f"{out}: has grades.csv already; name another folder with --out")
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    files = report.file_names([each.student for each in waiting])
    rows = {each.student: pending(each.student, known, "not graded") for each in waiting}
    slots = [Slot(known, limits) for _ in range(min(jobs, len(waiting)))]
    free, stopped = SimpleQueue(), Event()

    def one(submission):
        slot = free.get()
        try:
            return rows[submission.student] if stopped.is_set() else slot.grade(submission)
        finally:
            free.put(slot)

    try:
        for slot in slots:
            slot.start()
        show(slots[0].protection())
        check_reference(known, slots[0], show)
        (out / "grades.csv").open("x").close()  # another grader may have begun meanwhile
        for slot in slots:
            free.put(slot)
        with ThreadPoolExecutor(len(slots)) as pool:
            at_work = [pool.submit(one, each) for each in waiting]
            try:
                for number, done in enumerate(as_completed(at_work), start=1):
                    row = done.result()
                    more = ["not on the list"] if roster and row.student not in roster else []
                    more += ["another file has this name"] if row.student.endswith("+") else []
                    rows[row.student] = row = row._replace(look=[*row.look, *more])
                    show(f"{number} of {len(at_work)}: {row.student}: {row.graded.status}")
                    told = out / "feedback" / f"{files[row.student]}.md"
                    try:
                        report.replace(told, report.feedback(row, known))
                    except OSError as error:
                        show(f"{told}: {error.strerror}")
                    report.write(list(rows.values()), known, out)
            except BaseException:  # Ctrl-C: what is at work is let go, the rest not begun
                stopped.set()
                for slot in slots:
                    slot.stop()
                raise
    finally:
        for slot in slots:
            slot.stop()
    return [rows[each.student] for each in waiting]


def check_reference(known, slot, show):
    """Grade the reference solution; raise where it does not get full marks."""
    row = slot.grade(judge.reference(known.assignment))
    if report.points(row) != known.points:
        raise ValueError(
            "the reference solution does not get full marks here: "
            f"{report.line(row, known)['why'] or report.points(row)}"
        )
    show(f"the reference gets {sum(known.points.values()):g} points in {row.seconds:.0f} s")


def main(arguments):
    """Read the command line, grade, and say where the results are."""
    _, usage, more = __doc__.replace("usage: ", "").split("\n\n", 2)
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(usage=usage, epilog=more, formatter_class=raw)
    parser.add_argument("name", choices=names(), metavar="NAME")
    parser.add_argument("submissions", metavar="SUBMISSIONS")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--roster", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=LIMITS.seconds)
    parser.add_argument("--memory", type=float, default=LIMITS.memory)
    said = parser.parse_args(arguments)
    if not said.submissions.strip():
        parser.error("wanted a folder of submissions: make grade NAME=... FROM=...")
    if min(said.jobs, said.seconds, said.memory) <= 0:
        parser.error("wanted --jobs, --seconds and --memory above zero")
    try:
        roster = said.roster.read_text(encoding="utf-8-sig").splitlines() if said.roster else []
    except UnicodeDecodeError:
        parser.error(f"{said.roster}: wanted a text in UTF-8")
    roster = [student_of(each) for each in roster if each.strip()]
    out = said.out or ROOT / "build" / "grades" / said.name
    limits = LIMITS._replace(seconds=said.seconds, memory=said.memory)
    rows = grade_folder(
        grader(said.name), Path(said.submissions), out, roster=roster, jobs=said.jobs, limits=limits
    )
    count = sum(row.graded.status == "graded" for row in rows)
    print(f"{count} of {len(rows)} graded: {out / 'grades.csv'}")


def leave(*_):
    """Leave as at Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"grade.py: {error}")
    except KeyboardInterrupt:
        sys.exit("grade.py: interrupted; what was graded is in the table, the rest is 'not graded'")
