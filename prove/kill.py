"""Killed everywhere: SIGKILL at every system call of every plugin, then one DEL or GC, and nothing is left.

A call that the signal meets has no effect, so that a kill at the next call's entry is a kill after this one.
Between two calls that change something, it is all the same to the node where the kill comes: there the ways
of cleaning up take turns, and each has its turn in each of these stretches.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from prove import strace
from prove.stage import Failed, Stage, previous
from prove.tally import Share, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prove.networks import Network
    from prove.strace import Call

WAYS = ("DEL", "bare DEL", "DEL without namespace", "GC")
"""How a runtime cleans up: as after any failed call; with no result and no capabilities; with the namespace
gone; with a GC that names the other containers."""


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


def cases(verb: str, position: int, calls: list[Call]) -> Iterator[Case]:
    """Yield the kills of one call of a plugin: every system call, and every way in every stretch."""
    turn = 0
    for stretch in stretches(calls):
        ways = WAYS if stretch[0].serving else WAYS[:1]
        for number in range(max(len(stretch), len(ways))):
            yield Case(verb, position, stretch[number % len(stretch)], ways[turn % len(ways)])
            turn += 1


def prove(suite: str, network: Network, share: Share, *, keeper: bool = True) -> Tally:
    """Kill a list's plugins at this worker's share of their system calls.

    Args:
        suite: the plugins' folder.
        network: the list.
        share: which cases.
        keeper: whether another container is attached. Without it, each case begins on a node that never had
            an attachment, and there only ADD is killed.
    """
    tally = Tally()
    with Stage(suite, network, keeper=keeper) as stage:
        every = all_cases(stage, keeper=keeper)
        for case in share.of(every):
            if not keeper:
                stage.reset()
            problems = attempt(stage, case)
            where = "" if keeper else " on a new node"
            tally.count(f"{network.name}{where}: {case}", problems)
            if problems and keeper:
                _mend(stage)
    return tally


def all_cases(stage: Stage, *, keeper: bool = True) -> list[Case]:
    """Return every case of a list; without a keeper, on a node that is new each time, those of ADD."""
    if not keeper:
        stage.reset()
    plugins = range(len(stage.network.plugins))
    found: list[Case] = []
    result = None
    for position in plugins:
        found += cases("ADD", position, stage.calls("ADD", position, **previous(result)))
        # What strace saw is undone and done again, for the result.
        stage.detach(result)
        result = stage.attach(upto=position + 1)
    for position in reversed(plugins):
        calls = stage.calls("DEL", position, prevResult=result)
        if keeper:
            found += cases("DEL", position, calls)
    return found


def attempt(stage: Stage, case: Case) -> list[str]:
    """Try one case; return what was wrong."""
    before = strace.killed(case.call)
    result = None
    try:
        if case.verb == "ADD":
            first = stage.attach(upto=case.position)
            keys = previous(first)
        else:
            result = stage.attach()
            stage.detach(result, downto=case.position + 1)
            keys = previous(result)
        stage.call(case.verb, case.position, before=before, **keys)
        if case.way == "DEL":
            stage.detach(result)
        elif case.way == "bare DEL":
            stage.detach(ports=False)
        else:
            stage.drop_interface()
            if case.way == "GC":
                stage.collect()
            else:
                stage.detach(netns=False, ports=False)
    except Failed as error:
        return [str(error)]
    return stage.rests() or stage.cycle()


def _mend(stage: Stage) -> None:
    """After a failure: clean up by force, so that the next case is not blamed for it."""
    with contextlib.suppress(Failed):
        stage.detach()
        stage.collect()
    stage.baseline = stage.look()
