"""What the proofs share: the calls there are, one case after the other, and order after a failure."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from prove.runtime import Failed, previous
from prove.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prove.stage import Stage
    from prove.strace import Call
    from prove.tally import Problem

Case = TypeVar("Case")


def every_call(stage: Stage) -> Iterator[tuple[str, int, list[Call]]]:
    """Run ADD and DEL through the list; yield each verb, plugin, and the system calls that it made.

    Without a keeper, those of ADD alone: only the first ADD is another on a new node.

    Raises:
        Failed: a plugin failed.
    """
    if not stage.keeper:
        stage.reset()
    positions = range(len(stage.network.plugins))
    result = None
    for position in positions:
        yield "ADD", position, stage.calls("ADD", position, **previous(result))
        # What strace saw is undone and done again, for the result.
        stage.detach(result)
        result = stage.attach(upto=position + 1)
    if not stage.keeper:
        stage.detach(result)
        return
    for position in reversed(positions):
        yield "DEL", position, stage.calls("DEL", position, prevResult=result)


def tried(
    stage: Stage,
    chosen: Iterable[Case],
    attempt: Callable[[Case], tuple[list[Problem] | None, str]],
    enough: int = 0,
) -> Tally:
    """Try some cases; without a keeper, each on a node that never had an attachment.

    Args:
        stage: where.
        chosen: the cases.
        attempt: tries one; returns what was wrong, None when what was to happen did not, and what it was.
        enough: how many to try, without those in which it did not; 0: all.
    """
    tally = Tally()
    where = "" if stage.keeper else " on a new node"
    for case in chosen:
        if enough and tally.tried == enough:
            break
        if not stage.keeper:
            stage.reset()
        problems, what = attempt(case)
        if problems is None:
            tally.miss()
            continue
        tally.count(f"{stage.network.name}{where}: {what}", problems)
        if problems and stage.keeper:
            mend(stage)
    return tally


def mend(stage: Stage) -> None:
    """After a failure: clean up by force, so that the next case is not blamed for it."""
    with contextlib.suppress(Failed):
        stage.free()
    stage.drop_interface()
    with contextlib.suppress(Failed):
        stage.detach()
        stage.collect()
    stage.baseline = stage.look()
