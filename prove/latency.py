"""How long a load's calls take at its end, beside its begin: what fills up with time makes them slower."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST = 1.3
"""How many times as long as at the begin a call may take at the end."""
LEAST_SECONDS = 120.0
"""Of a shorter run nothing is demanded: there the machine's moods weigh more than what fills up."""
VERBS = ("ADD", "DEL", "CHECK")
"""Of which it is demanded; GC, which has more to look at when more has been killed, is only shown."""
_LONGEST_WINDOW = 60.0
_FIGURES = ("median", "99th percentile")


class Timing(NamedTuple):
    """One call that was not killed: when it ended, since the begin, and how long it took; in seconds."""

    ended: float
    took: float


def slower(timings: Mapping[str, Sequence[Timing]], seconds: float) -> list[str]:
    """Return in words what takes longer at the end than it may.

    Args:
        timings: by verb.
        seconds: how long the load was.
    """
    if seconds < LEAST_SECONDS:
        return []
    found = []
    span = f"{window(seconds):.0f} s"
    for verb in VERBS:
        first, last = ends(timings.get(verb, ()), seconds)
        if not first or not last:
            found.append(f"{verb}: none ended in the {'last' if first else 'first'} {span}, to be compared")
            continue
        for name, before, after in zip(_FIGURES, figures(first), figures(last), strict=True):
            if after > MOST * before:
                found.append(
                    f"{verb}: the {name} of the last {span}, {1000 * after:.0f} ms, is "
                    f"{after / before:.2f} times that of the first, {1000 * before:.0f} ms; {MOST} is allowed"
                )
    return found


def rows(timings: Mapping[str, Sequence[Timing]], seconds: float) -> list[str]:
    """Return latencies of the begin and of the end as a table."""
    found = ["| call | calls | first: median, p99 (ms) | last: median, p99 (ms) | last / first |"]
    found.append("|---|---|---|---|---|")
    for verb, every in sorted(timings.items()):
        first, last = map(figures, ends(every, seconds))
        cells = [verb, str(len(every))]
        cells += [", ".join(f"{1000 * value:.0f}" for value in each) for each in (first, last)]
        cells.append(", ".join(f"{b / a:.2f}" for a, b in zip(first, last, strict=True) if a))
        found.append(f"| {' | '.join(cells)} |")
    return found


def window(seconds: float) -> float:
    """Return how much of a load is its begin, and its end: a minute, of a short one a quarter."""
    return min(_LONGEST_WINDOW, seconds / 4)


def ends(timings: Sequence[Timing], seconds: float) -> tuple[list[Timing], list[Timing]]:
    """Return the calls of the begin and of the end."""
    span = window(seconds)
    first = [each for each in timings if each.ended <= span]
    return first, [each for each in timings if 0 <= seconds - each.ended <= span]


def figures(timings: Sequence[Timing]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in seconds; 0 of nothing."""
    took = sorted(each.took for each in timings) or [0.0]
    return statistics.median(took), took[int(len(took) * 0.99)]
