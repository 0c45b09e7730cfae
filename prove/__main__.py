"""The long forms: `python -m prove [--proof kill] [--only macvlan] [--sample 100] [--seed 1] [-j 2] SUITE`.

It prints a row of a table for each proof and list, then whatever failed. SUITE is a bundle.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from prove import kill
from prove.networks import Network, networks
from prove.tally import Share, Tally

if TYPE_CHECKING:
    from collections.abc import Callable


class Proof(NamedTuple):
    """One way of putting a list to the proof."""

    name: str
    title: str
    run: Callable[[str, Network, Share], Tally]


def _kill_new(suite: str, network: Network, share: Share) -> Tally:
    return kill.prove(suite, network, share, keeper=False)


PROOFS = (
    Proof("kill", "killed at each system call", kill.prove),
    Proof("kill-new", "killed at each system call of a first ADD", _kill_new),
)


class Task(NamedTuple):
    """One worker's part of one proof of one list."""

    proof: str
    network: str
    share: Share
    suite: str


def work(task: Task) -> Tally:
    """Do a part, in a process of its own: it enters a node."""
    proof = next(each for each in PROOFS if each.name == task.proof)
    network = next(each for each in networks() if each.name == task.network)
    return proof.run(task.suite, network, task.share)


def main() -> int:
    """Run the proofs; return 1 if anything failed."""
    options = _options()
    suite = os.path.abspath(options.suite)
    print(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: python -m prove {' '.join(sys.argv[1:])}\n")
    print("| proof | network | cases | failures | minutes |\n|---|---|---|---|---|", flush=True)
    failures: list[str] = []
    for proof in PROOFS:
        if not proof.name.startswith(options.proof):
            continue
        for network in networks(options.only):
            start = time.monotonic()
            tasks = [
                Task(proof.name, network.name, Share(each, options.jobs, options.sample, options.seed), suite)
                for each in range(options.jobs)
            ]
            with multiprocessing.Pool(options.jobs, maxtasksperchild=1) as pool:
                tallies = pool.map(work, tasks, chunksize=1)
            tried = sum(tally.tried for tally in tallies)
            wrong = [line for tally in tallies for line in tally.failures]
            failures += wrong
            minutes = (time.monotonic() - start) / 60
            row = (proof.title, network.name, str(tried), str(len(wrong)), f"{minutes:.1f}")
            print(f"| {' | '.join(row)} |", flush=True)
    print("", *failures, sep="\n")
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove", description=__doc__)
    parser.add_argument("suite", nargs="?", default="dist/cni", help="the plugins' folder")
    parser.add_argument("--proof", default="", help=", ".join(proof.name for proof in PROOFS))
    parser.add_argument("--only", default="", help="words in the list's name")
    parser.add_argument("--sample", type=int, default=0, help="so many cases of each, by chance")
    parser.add_argument("--seed", type=int, default=1, help="of that chance")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="workers")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
