"""Which cases a worker tries, and what came of them."""

from __future__ import annotations

import random
from typing import NamedTuple, TypeVar

Case = TypeVar("Case")


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
    """What was tried and what failed."""

    def __init__(self) -> None:
        self.tried = 0
        self.failures: list[str] = []

    def count(self, what: str, problems: list[str]) -> None:
        """Count a case."""
        self.tried += 1
        if problems:
            self.failures.append("\n    ".join([what, *problems]))
