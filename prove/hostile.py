"""Hostile input: a million cases from every side, each made from the seed and its number.

Whatever comes, the answer is a result or a plain error, nothing is written outside of the state folders, and
no case takes long or much. tests/hostile*.py make the cases; the tests try some of each.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import traceback
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from integration.node import Node
from prove.tally import FAILED, Problem, Tally
from tests.hostile import Calls
from tests.hostile_replies import Replies
from tests.hostile_runtime import Runtime
from tests.hostile_state import State
from tests.hostile_streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 60.0
"""That a case may take. The kernel has its pace, and other workers theirs: most take milliseconds."""
MEMORY = 1 << 30
"""Bytes of address space that a worker may take beyond what it has at the start."""


class Source(NamedTuple):
    """Where hostile input comes from.

    Attributes:
        name: what the table calls it.
        cases: how many there are; each is made from its number.
        begin: returns what makes and tries a case, and says what the answer was. It runs inside a node.
    """

    name: str
    cases: int
    begin: Callable[[], Callable[[random.Random], str]]


SOURCES = [
    Source("calls: standard input and environment", 400_000, Calls),
    Source("state: notes, leases, reservations, subnet.env", 40_000, State),
    Source("runtime: cached results and lists of cnictl", 20_000, Runtime),
    Source("replies of the kernel", 300_000, Replies),
    Source("streams: JSON, gob, DHCP, D-Bus", 240_000, Streams),
]


class Overtime(BaseException):
    """A case took too long. No Exception: whoever catches those must not swallow it."""


def sources(only: str = "") -> list[Source]:
    """Return the sources whose name has some words."""
    return [source for source in SOURCES if only in source.name]


def plan(_suite: str, source: Source) -> list[int]:
    """Return the numbers of a source's cases."""
    return list(range(source.cases))


def run(_suite: str, source: Source, cases: list[int]) -> Tally:
    """Try some of a source's cases, in this process; a failure that many have is told once."""
    tally = Tally()
    told = set()
    with Node() as node, node.entered(), bounded(), quiet():
        attempt = source.begin()
        for number in cases:
            try:
                tally.answers[attempt_in_time(attempt, random.Random(number))] += 1
            except (Exception, Overtime) as error:  # noqa: BLE001 (that it does not raise is what is tried)
                what = summary(error)
                problems = [Problem(FAILED, what)]
                if what.partition("\n")[0] in told:
                    tally.tried += 1
                    tally.wrong[FAILED] += 1
                    continue
                told.add(what.partition("\n")[0])
                tally.count(f"{source.name}: case {number}", problems)
            else:
                tally.count("", [])
    return tally


def attempt_in_time(attempt: Callable[[random.Random], str], chance: random.Random) -> str:
    """Try a case; raise Overtime when it does not end."""
    before = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return attempt(chance)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)  # a test's own limit


def summary(error: BaseException) -> str:
    """Return what is worth to know of a failure; the same failure has the same first line."""
    if isinstance(error, AssertionError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = "".join(traceback.format_exception(error))
    return f"{type(error).__name__} at {place.filename}:{place.lineno}\n{said}"


@contextmanager
def bounded() -> Iterator[None]:
    """Let nothing take more than its time and memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)

    def late(_signal: int, _frame: object) -> None:
        raise Overtime(f"a case took more than {SECONDS:.0f} s")

    handler = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Throw away what plugins and cnictl say."""
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "wb"))
        for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            kept = os.dup(fd)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, fd)
            stack.callback(stream.flush)
            os.dup2(nowhere.fileno(), fd)
        yield
