"""The leases that a manager of flanneld's reports, gathered while a test changes them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flanneld.lease import Event, Leases
from flanneld.metrics import Metrics
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flanneld.manager import SubnetManager


class Watched:
    """The leases as a manager's watch reports them."""

    def __init__(self, made: SubnetManager) -> None:
        self.metrics = Metrics()
        self.leases = Leases()
        self.events: list[Event] = []
        self._made = made

    async def run(self) -> None:
        """Gather what is reported until cancelled."""
        async for events in self._made.watch(self.metrics):
            self.events += events
            self.leases = self.leases.after(events)

    async def until(self, ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait for something to be true.

        Raises:
            TimeoutError: it was not within so many seconds.
        """
        async with asyncio.timeout(seconds):
            while not ready():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def count(self, leases: int) -> None:
        """Wait for so many leases."""
        await self.until(lambda: len(self.leases) == leases)


@asynccontextmanager
async def watching(made: SubnetManager) -> AsyncIterator[Watched]:
    """Watch a manager's leases while the block runs."""
    watched = Watched(made)
    running = asyncio.create_task(watched.run())
    try:
        yield watched
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
