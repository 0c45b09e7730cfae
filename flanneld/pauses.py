"""Growing pauses between attempts, and waiting for what may come sooner."""

from __future__ import annotations

import asyncio
import random


class Pauses:
    """Pauses that double up to a limit, each shortened at random so that a cluster does not ask in step.

    Args:
        first: seconds of the first pause.
        longest: seconds of the longest.
    """

    __slots__ = ("_first", "_longest", "_next")

    def __init__(self, first: float = 0.25, longest: float = 15.0) -> None:
        self._first = self._next = first
        self._longest = longest

    def next(self) -> float:
        """Return the seconds to wait now."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause * random.uniform(0.6, 1.0)  # noqa: S311

    def reset(self) -> None:
        """Begin anew: something worked."""
        self._next = self._first


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event, for ever or so many seconds; tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
