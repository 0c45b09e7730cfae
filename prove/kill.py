"""Killed everywhere: SIGKILL at every system call of every plugin, then one DEL or GC, and nothing is left.

A call that the signal meets has no effect, so that a kill at the next call's entry is a kill after this one.
Between two calls that change something, it is all the same to the node where the kill comes: there the ways
of cleaning up take turns, and each has its turn in each of these stretches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prove import trial
from prove.runtime import Failed, previous
from prove.stage import Stage
from prove.tally import FAILED, Problem, Share

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from prove.networks import Network
    from prove.strace import Call
    from prove.tally import Tally

WAYS = ("DEL", "bare DEL", "DEL without namespace", "GC", "GC beside the namespace")
"""How a runtime cleans up: as after any failed call; with no result and no capabilities; with the namespace
gone; with a GC that names the other containers, after the namespace's end or before. The last finds what has
an end on the host: what is in a namespace alone goes with that."""


class Case(NamedTuple):
    """One kill: which plugin of the list, on which verb, at which call, and how it is cleaned up."""

    verb: str
    position: int
    call: Call
    way: str

    def __str__(self) -> str:
        where = f"{self.call.name} {self.call.number}"
        return f"{self.verb} of plugin {self.position}, killed at {where}, {self.way}"


def stretches(calls: list[Call]) -> list[list[Call]]:
    """Divide calls where one has changed something."""
    found: list[list[Call]] = [[]]
    for call in calls:
        found[-1].append(call)
        if call.changing:
            found.append([])
    return [stretch for stretch in found if stretch]


def cases(verb: str, position: int, calls: list[Call], ways_to_try: tuple[str, ...] = WAYS) -> Iterator[Case]:
    """Yield the kills of one call of a plugin: every system call, and every way in every stretch."""
    turn = 0
    for stretch in stretches(calls):
        ways = ways_to_try if stretch[0].serving else ways_to_try[:1]
        for number in range(max(len(stretch), len(ways))):
            yield Case(verb, position, stretch[number % len(stretch)], ways[turn % len(ways)])
            turn += 1


def sample(suite: str, network: Network, number: int, seed: int, *, keeper: bool) -> Tally:
    """Try so many cases of a list by chance, all on one node; see `run` and `run_new`.

    What a busy machine lets a plugin do less often the second time is replaced by another case.
    """
    with Stage(suite, network, keeper=keeper) as stage:
        return _tried(stage, Share(sample=10 * number, seed=seed).of(all_cases(stage)), number)


def plan(suite: str, network: Network) -> list[Case]:
    """Return every case of a list on a node where another container is attached."""
    with Stage(suite, network, keeper=True) as stage:
        return all_cases(stage)


def plan_new(suite: str, network: Network) -> list[Case]:
    """Return every case of a list's first ADD on a node."""
    with Stage(suite, network, keeper=False) as stage:
        return all_cases(stage)


def run(suite: str, network: Network, chosen: list[Case]) -> Tally:
    """Try some cases on a node where another container is attached."""
    with Stage(suite, network, keeper=True) as stage:
        return _tried(stage, chosen)


def run_new(suite: str, network: Network, chosen: list[Case]) -> Tally:
    """Try some cases, each on a node that never had an attachment."""
    with Stage(suite, network, keeper=False) as stage:
        return _tried(stage, chosen)


def _tried(stage: Stage, chosen: list[Case], enough: int = 0) -> Tally:
    return trial.tried(stage, chosen, lambda case: (attempt(stage, case), str(case)), enough)


def all_cases(stage: Stage) -> list[Case]:
    """Return every case of a list; without a keeper, on a node that is new each time, those of ADD."""
    ways = WAYS if stage.network.paired else WAYS[:-1]
    return [
        case
        for verb, position, calls in trial.every_call(stage)
        for case in cases(verb, position, calls, ways)
    ]


def attempt(stage: Stage, case: Case) -> list[Problem] | None:
    """Try one case; return what was wrong, or None when nothing was killed."""
    result = None
    try:
        before = stage.ready(case.verb, case.position)
        result = before if case.verb == "DEL" else None
        fired = stage.kill(case.call, case.verb, case.position, **previous(before))
        clean_up(stage, case.way, result)
    except Failed as error:
        return [Problem(FAILED, str(error))]
    problems = stage.rests() or stage.cycle()
    return problems if fired or problems else None


def clean_up(stage: Stage, way: str, result: Any) -> None:
    """Clean up once, as a runtime would.

    Raises:
        Failed: a plugin failed.
    """
    if way == "DEL":
        stage.detach(result)
    elif way == "bare DEL":
        stage.detach(ports=False)
    elif way == "GC beside the namespace":
        stage.collect()
    else:
        stage.drop_interface()
        if way == "GC":
            stage.collect()
        else:
            stage.detach(netns=False, ports=False)
