"""When a load's end counts as slower than its begin."""

from __future__ import annotations

import pytest

from prove.latency import LEAST_SECONDS, VERBS, Timing, rows, slower
from prove.load import Load, Plan
from prove.tally import FAILED

STEADY = [0.100] * 99 + [0.500]
SLOW = [0.131] * 99 + [0.500]
ROUGH = [0.100] * 99 + [0.700]
AS_ALLOWED = [0.129] * 99 + [0.649]


def load(first: list[float], last: list[float], seconds: float = 600) -> list[Timing]:
    """Return what the calls of a run took: those of its begin and of its end, and slow ones between."""
    middle = [Timing(seconds / 2, 9.0)] * 50
    return [
        *(Timing(10, took) for took in first),
        *middle,
        *(Timing(seconds - 10, took) for took in last),
        Timing(seconds + 5, 9.0),  # it began in time, and ended with the run
    ]


def steady(**others: list[Timing]) -> dict[str, list[Timing]]:
    return {**{verb: load(STEADY, STEADY) for verb in VERBS}, **others}


def test_a_load_that_stays_as_fast() -> None:
    assert slower(steady(), 600) == []
    assert slower(steady(ADD=load(STEADY, AS_ALLOWED)), 600) == []
    assert slower(steady(ADD=load(SLOW, STEADY)), 600) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_median_that_grows(verb: str) -> None:
    (said,) = slower(steady(**{verb: load(STEADY, SLOW)}), 600)
    figures = "the median of the last 60 s, 131 ms, is 1.31 times that of the first, 100 ms"
    assert said == f"{verb}: {figures}; 1.3 is allowed"


@pytest.mark.parametrize("verb", VERBS)
def test_a_99th_percentile_that_grows(verb: str) -> None:
    (said,) = slower(steady(**{verb: load(STEADY, ROUGH)}), 600)
    figures = "the 99th percentile of the last 60 s, 700 ms, is 1.40 times that of the first, 500 ms"
    assert said == f"{verb}: {figures}; 1.3 is allowed"


def test_every_figure_counts_by_itself() -> None:
    grown = {verb: load(STEADY, [0.200] * 99 + [0.800]) for verb in VERBS}
    assert len(slower(grown, 600)) == 2 * len(VERBS)


def test_gc_may_grow() -> None:
    assert slower(steady(GC=load(STEADY, [1.0] * 9)), 600) == []


@pytest.mark.parametrize(("seconds", "found"), [(LEAST_SECONDS, 3), (LEAST_SECONDS - 1, 0)])
def test_a_short_load_is_not_timed(seconds: float, found: int) -> None:
    timings = {verb: load(STEADY, SLOW, seconds) for verb in VERBS}
    said = slower(timings, seconds)
    assert len(said) == found
    assert all("the median of the last 30 s" in each for each in said)


@pytest.mark.parametrize(
    ("timings", "where"), [([], "first"), (load([], STEADY), "first"), (load(STEADY, []), "last")]
)
def test_nothing_to_compare_is_no_success(timings: list[Timing], where: str) -> None:
    (said,) = slower(steady(DEL=timings), 600)
    assert said == f"DEL: none ended in the {where} 60 s, to be compared"


def test_what_is_slower_fails_the_proof() -> None:
    proved = Load("", Plan())
    proved.timings.update(steady(CHECK=load(STEADY, SLOW)))
    proved.judge()
    assert proved.tally.wrong == {FAILED: 1}
    (failure,) = proved.tally.failures
    assert failure.startswith("CHECK: the median of the last 60 s")


def test_the_table() -> None:
    assert rows({"ADD": load(STEADY, SLOW), "GC": []}, 600)[2:] == [
        "| ADD | 251 | 100, 500 | 131, 500 | 1.31, 1.00 |",
        "| GC | 0 | 0, 0 | 0, 0 |  |",
    ]
