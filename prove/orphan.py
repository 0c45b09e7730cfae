"""Killed while a program runs on: the plugin is dead, iptables or a delegate is not, and cleaning up begins.

The program is held up until then, so that without more it would do its work after the DEL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prove import kill, trial
from prove.runtime import Failed, previous
from prove.stage import Stage
from prove.tally import FAILED, Problem

if TYPE_CHECKING:
    from prove.kill import Case
    from prove.networks import Network
    from prove.tally import Tally

WAYS = ("DEL", "bare DEL", "GC")


def plan(suite: str, network: Network) -> list[Case]:
    """Return a case for each program that a plugin of a list waits for, and each way of cleaning up."""
    with Stage(suite, network, keeper=True) as stage:
        return cases(stage)


def cases(stage: Stage) -> list[Case]:
    """Return the same for a stage that is there."""
    found = {
        case._replace(way=way)
        for case in kill.all_cases(stage)
        if case.call.own and case.call.name == "wait4"
        for way in WAYS
    }
    return sorted(found, key=lambda case: (case.verb, case.position, case.call.number, case.way))


def run(suite: str, network: Network, chosen: list[Case]) -> Tally:
    """Try some of them."""
    with Stage(suite, network, keeper=True) as stage:
        return trial.tried(
            stage,
            chosen,
            lambda case: (attempt(stage, case), f"{case}, while what it waits for runs on"),
        )


def attempt(stage: Stage, case: Case) -> list[Problem] | None:
    """Try one case; return what was wrong, or None when nothing was killed."""
    result = None
    try:
        before = stage.ready(case.verb, case.position)
        result = before if case.verb == "DEL" else None
        with stage.orphan(case.call, *stage.command(case.verb, case.position, **previous(before))) as fired:
            kill.clean_up(stage, case.way, result)
    except Failed as error:
        return [Problem(FAILED, str(error))]
    problems = stage.rests() or stage.cycle()
    return problems if fired or problems else None
