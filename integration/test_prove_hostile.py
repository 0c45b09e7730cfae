"""Hostile input: a share of the cases of prove/hostile.py; `make prove` tries a million."""

from __future__ import annotations

import signal

import pytest

from prove import hostile
from prove.hostile import Source
from prove.tally import Share

SAMPLES = {"calls": 2000, "state": 700, "runtime": 400, "replies": 3000, "streams": 3000}


@pytest.mark.parametrize("source", hostile.SOURCES, ids=lambda source: source.name.partition(":")[0])
def test_a_share_of_hostile_input(suite_bin: str, source: Source) -> None:
    sample = next(number for key, number in SAMPLES.items() if source.name.startswith(key))
    cases = Share(sample=sample, seed=7).of(hostile.plan(suite_bin, source))
    tally = hostile.run(suite_bin, source, cases)
    assert tally.failures == []
    assert tally.tried == sample
    assert len(tally.answers) > 1, "some input is taken, some is not"


def endless(_chance: object) -> str:
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= hostile.SECONDS
    signal.raise_signal(signal.SIGALRM)  # its time is over
    while True:
        pass


def greedy(_chance: object) -> str:
    return str(len(bytearray(2 * hostile.MEMORY)))


def test_what_takes_too_long_is_a_failure() -> None:
    timer = signal.getitimer(signal.ITIMER_REAL)[0]
    tally = hostile.run("", Source("endless", 2, lambda: endless), [0, 1])
    assert tally.row() == ["2", "0", "0", "0", "2", "0"]
    (failure,) = tally.failures
    assert "a case took more than" in failure
    assert bool(signal.getitimer(signal.ITIMER_REAL)[0]) is bool(timer), "what bounds this test still does"


def test_what_takes_too_much_is_a_failure() -> None:
    (failure,) = hostile.run("", Source("greedy", 1, lambda: greedy), [0]).failures
    assert "MemoryError" in failure
