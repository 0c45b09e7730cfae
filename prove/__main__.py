"""The long forms: `python -m prove [--proof kill] [--only macvlan] [--sample 100] [--seed 1] [-j 2] SUITE`.

It prints a row of a table for each proof and what it was tried on, then whatever failed. SUITE is a bundle.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from prove import faults, hostile, kill, load, orphan, runner
from prove.networks import networks
from prove.tally import KINDS, Share, Tally

if TYPE_CHECKING:
    from collections.abc import Callable


class Proof(NamedTuple):
    """One way of putting the suite to the proof.

    Attributes:
        name: for --proof.
        title: for the table.
        plan: returns every case of a subject; it is asked once, whatever the number of workers.
        run: tries some of them.
        subjects: what it is tried on, by words in the name: network lists unless it says otherwise.
    """

    name: str
    title: str
    plan: Callable[[str, Any], list[Any]]
    run: Callable[[str, Any, list[Any]], Tally]
    subjects: Callable[[str], list[Any]] = networks


def _new(kind: str) -> Callable[[str, Any], list[Any]]:
    return partial(faults.plan, kind=kind, keeper=False)


_run_new = partial(faults.run, keeper=False)
PROOFS = (
    Proof("kill", "killed at each system call", kill.plan, kill.run),
    Proof("kill-new", "killed at each system call of a first ADD", kill.plan_new, kill.run_new),
    Proof("orphan", "killed while what it started runs on", orphan.plan, orphan.run),
    Proof("runner", "cnictl killed half-way through the list", runner.plan, runner.run),
    Proof("hostile", "hostile input", hostile.plan, hostile.run, hostile.sources),
    Proof("disk", "a file says no", partial(faults.plan, kind="disk"), faults.run),
    Proof("netlink", "the kernel says no", partial(faults.plan, kind="netlink"), faults.run),
    Proof("process", "no descriptor, namespace or process", partial(faults.plan, kind="process"), faults.run),
    Proof("disk-new", "a file says no to a first ADD", _new("disk"), _run_new),
    Proof("netlink-new", "the kernel says no to a first ADD", _new("netlink"), _run_new),
    Proof("load", "load", load.plan, load.run, load.subjects),
)
COLUMNS = ("proof", "tried on", "cases", *KINDS, "not reached", "minutes")


class Task(NamedTuple):
    """One worker's part of one proof of one subject; no cases: find out which there are."""

    proof: str
    subject: str
    suite: str
    cases: list[Any] | None = None


def work(task: Task) -> Any:
    """Do a part, in a process of its own: it enters a node."""
    proof = next(each for each in PROOFS if each.name == task.proof)
    subject = next(each for each in proof.subjects("") if each.name == task.subject)
    if task.cases is None:
        return proof.plan(task.suite, subject)
    return proof.run(task.suite, subject, task.cases)


def main() -> int:
    """Run the proofs; return 1 if anything failed."""
    options = _options()
    print(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: python -m prove {' '.join(sys.argv[1:])}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    failures: list[str] = []
    answers: list[str] = []
    for proof in PROOFS:
        if options.proof not in ("", proof.name):
            continue
        for subject in proof.subjects(options.only):
            start = time.monotonic()
            tally = _prove(proof, subject.name, options)
            failures += tally.failures
            minutes = (time.monotonic() - start) / 60
            print(f"| {' | '.join((proof.title, subject.name, *tally.row(), f'{minutes:.1f}'))} |")
            for failure in tally.failures:
                print(failure, file=sys.stderr)
            sys.stdout.flush()
            if tally.answers:
                came = ", ".join(f"{answer}: {times}" for answer, times in sorted(tally.answers.items()))
                answers.append(f"{proof.title}, {subject.name}: {came}")
    print("", *answers, *failures, sep="\n")
    return 1 if failures else 0


def _prove(proof: Proof, subject: str, options: argparse.Namespace) -> Tally:
    task = Task(proof.name, subject, os.path.abspath(options.suite))
    tally = Tally()
    with multiprocessing.Pool(options.jobs, maxtasksperchild=1) as pool:
        cases = pool.apply(work, (task,))
        shares = [
            Share(each, options.jobs, options.sample, options.seed).of(cases) for each in range(options.jobs)
        ]
        for part in pool.imap(work, [task._replace(cases=share) for share in shares if share]):
            tally.add(part)
    return tally


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove", description=__doc__)
    parser.add_argument("suite", nargs="?", default="dist/cni", help="the plugins' folder")
    parser.add_argument("--proof", default="", help=", ".join(proof.name for proof in PROOFS))
    parser.add_argument("--only", default="", help="words in the name of what it is tried on")
    parser.add_argument("--sample", type=int, default=0, help="so many cases of each, by chance")
    parser.add_argument("--seed", type=int, default=1, help="of that chance")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="workers")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
