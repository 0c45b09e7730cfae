"""Which cases a worker tries, and what came of them."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple, TypeVar

Case = TypeVar("Case")

LEAK = "leaks"
DOUBLE = "double addresses"
FAILED_ADD = "failed ADDs"
FAILED = "other failures"
KINDS = (LEAK, DOUBLE, FAILED_ADD, FAILED)
"""What can be wrong after a case; the columns of the table."""


class Problem(NamedTuple):
    """One thing that was wrong after a case: of which kind, and in words."""

    kind: str
    text: str


class Share(NamedTuple):
    """Which of the cases are this worker's: every so-manieth, or a random sample of them."""

    worker: int = 0
    workers: int = 1
    sample: int = 0
    seed: int = 0

    def of(self, cases: list[Case]) -> list[Case]:
        """Return this worker's."""
        if self.sample:
            chosen = random.Random(self.seed)
            cases = chosen.sample(cases, min(self.sample, len(cases)))
        return cases[self.worker :: self.workers]


class Tally:
    """What was tried and what failed.

    Attributes:
        tried: cases in which what was to happen to the plugin happened.
        missed: cases in which it did not: the plugin had come to its end before.
        wrong: cases with a problem, by kind.
        failures: every case with a problem, in words.
        answers: how often each answer came, where a case has one.
    """

    def __init__(self) -> None:
        self.tried = 0
        self.missed = 0
        self.wrong: Counter[str] = Counter()
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()

    def count(self, what: str, problems: list[Problem]) -> None:
        """Count a case."""
        self.tried += 1
        self.wrong.update({each.kind for each in problems})
        if problems:
            self.failures.append("\n    ".join([what, *(each.text for each in problems)]))

    def miss(self) -> None:
        """Count a case that did not come to pass."""
        self.missed += 1

    def add(self, other: Tally) -> None:
        """Add what another worker counted."""
        self.tried += other.tried
        self.missed += other.missed
        self.wrong += other.wrong
        self.failures += other.failures
        self.answers += other.answers

    def row(self) -> list[str]:
        """Return its columns of the table."""
        return [str(self.tried), *(str(self.wrong[kind]) for kind in KINDS), str(self.missed)]
