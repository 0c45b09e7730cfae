"""Keeps the kernel's tables as they are wanted: writes differences, listens, puts back what others change."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from cni_plugins.kernel import link, netlink
from flanneld import devices
from flanneld.notices import ALL, Lost, Notices
from flanneld.pauses import Pauses
from flanneld.state import Address, Device, Forwarding, Peer, Route, State
from flanneld.tables import Links, Tables, peers_differ, remove, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flanneld.metrics import Metrics
    from flanneld.state import Difference, Thing

log = logging.getLogger(__name__)

_PERIOD = 30.0
"""Seconds between full passes when nothing is reported."""
_LOOK = 0.5
"""Seconds between looks at what the kernel gives no notices of."""
_REST = 100
"""How many times as long as a look it is to the next: many peers are looked at less often."""
_LONGEST = 3.0
"""Seconds between looks at most, where a processor is slow."""

_SETTLE = 0.8
"""Seconds from a notice to the look at the tables where we have just written ourselves.

The kernel tells us of that, too: while nodes join by the hundred, a full pass after each would leave no time
for the next ones. What somebody else changes meanwhile is still put back within a second.
"""


class Reconciler:
    """The keeper (the protocol is daemon.Kernel's).

    Args:
        metrics: where passes, repairs and failures are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._wanted = State()
        self._started = False
        self._refused = False
        self._waiting: asyncio.Timeout | None = None
        self._has_devices = False
        self._wrote = -_SETTLE
        self._names: set[str] = set()
        self._indexes: dict[str, int] = {}
        self._destinations: set[tuple[bytes, int]] = set()

    async def want(self, state: State) -> bool:
        """Make this the wanted state and write what differs from the one before.

        What the kernel refuses is logged, counted and tried again by `run`.

        Returns:
            Whether every device is there.
        """
        before, self._wanted = self._wanted, state
        difference = state.since(before)
        self._names = {thing.name if isinstance(thing, Device) else thing.device for thing in state} - {""}
        self._destinations -= _destinations(difference.remove)
        self._destinations |= _destinations(difference.write)
        changed = (*difference.write, *difference.remove)
        if not self._started or any(isinstance(thing, Device | Address) for thing in changed):
            self._started = True
            self._try(partial(self._delete_devices, before))
            self._try(partial(self._pass, "change", repairs=False))
        else:
            self._try(partial(self._write, before, difference))
            if changed:
                self._wrote = time.monotonic()
        if self._refused:
            self._look_soon()
        return self._has_devices

    async def run(self) -> None:
        """Put back whatever somebody changes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._look_at_peers())

    async def _look_at_peers(self) -> None:
        """Look at WireGuard's peers again and again; without any, this costs nothing."""
        while True:
            began = time.thread_time()
            try:
                differ = any(isinstance(thing, Peer) for thing in self._wanted) and peers_differ(self._wanted)
            except OSError as error:
                self._failed(error)
                differ = False
            pause = max(_LOOK, min(_REST * (time.thread_time() - began), _LONGEST))
            if differ:
                self._try(partial(self._pass, "look", repairs=True))
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        retries = Pauses(first=0.5, longest=_PERIOD)
        with Notices(ALL) as notices:
            while True:
                try:
                    async with asyncio.timeout(retries.next() if self._refused else _PERIOD) as self._waiting:
                        cause = await self._next(notices)
                except TimeoutError:
                    cause = "retry" if self._refused else "timer"
                self._waiting = None
                if cause == "notice" and time.monotonic() < self._wrote + _SETTLE:
                    await asyncio.sleep(_SETTLE)
                self._refused = False
                if self._started:
                    self._try(partial(self._pass, cause, repairs=True))
                if not self._refused:
                    self._metrics.broken.pop("kernel", None)
                    retries.reset()

    async def _next(self, notices: Notices) -> str:
        """Wait until something of ours is reported; return why to look."""
        while True:
            for notice in await notices.gather():
                if isinstance(notice, Lost):
                    log.warning("notices of the kernel were lost; looking at everything")
                    return "overrun"
                ours = notice.link in self._indexes.values() or notice.name in self._names
                # Whoever leads one of our routes elsewhere is told of with the link that it leads to now.
                if ours or notice.destination in self._destinations:
                    return "notice"

    def _look_soon(self) -> None:
        """Let `run` look again in a moment, not at the end of its period."""
        soon = asyncio.get_running_loop().time() + _LOOK
        if self._waiting and not self._waiting.expired() and (self._waiting.when() or 0.0) > soon:
            self._waiting.reschedule(soon)

    def _write(self, before: State, difference: Difference) -> None:
        with netlink.Netlink() as nl:
            links = self._look(nl)
            for thing in difference.remove:
                self._try(partial(remove, nl, thing, links))
            for thing in difference.write:
                old = before.get(thing.key)
                if isinstance(old, Forwarding):  # a MAC address can have several: they are not written over
                    self._try(partial(remove, nl, old, links))
                self._try(partial(write, nl, thing, links))

    def _delete_devices(self, before: State) -> None:
        with netlink.Netlink() as nl:
            for thing in before:
                if isinstance(thing, Device) and self._wanted.get(thing.key) is None:
                    self._try(partial(link.delete, nl, thing.name))

    def _look(self, nl: netlink.Netlink) -> Links:
        """Return the links, and note which notices to heed from now on."""
        links = Links(nl)
        self._indexes = {name: links[name] for name in self._names if links[name]}
        return links

    def _pass(self, cause: str, *, repairs: bool) -> None:
        """Compare the kernel's tables with what is wanted; write and remove what differs.

        Args:
            cause: what is counted.
            repairs: what differs was changed by somebody, so that it is told and counted.
        """
        self._metrics.reconciled(cause)
        with netlink.Netlink() as nl:
            self._has_devices = True
            for thing in self._wanted:
                if isinstance(thing, Device):
                    self._has_devices &= self._try(partial(self._device, nl, thing, repairs=repairs))
            links = self._look(nl)
            own = [thing for thing in self._wanted if isinstance(thing, Device)]
            families = {thing.destination.version for thing in self._wanted if isinstance(thing, Route)}
            tables = Tables(nl, links, own, families or {4, 6})
            for thing in tables.surplus(self._wanted):
                log.info("removing what is not wanted", extra={"thing": thing.key})
                self._try(partial(remove, nl, thing, links))
            for thing in self._wanted:
                if isinstance(thing, Device) or tables.has(thing):
                    continue
                if self._try(partial(write, nl, thing, links)) and repairs:
                    self._repaired(thing)

    def _device(self, nl: netlink.Netlink, wanted: Device, *, repairs: bool) -> None:
        if devices.ensure(nl, wanted, self._indexes.get(wanted.name, 0)) and repairs:
            self._repaired(wanted)

    def _repaired(self, thing: Thing) -> None:
        self._metrics.repaired(type(thing).__name__.lower())
        log.warning("somebody removed or changed this; it is put back", extra={"thing": thing.key})

    def _try(self, act: Callable[[], object]) -> bool:
        """Do something; return False when the kernel refuses."""
        try:
            act()
        except OSError as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: OSError) -> None:
        self._refused = True
        self._metrics.failed("kernel")
        why = self._metrics.broken["kernel"] = "; ".join([str(error), *getattr(error, "__notes__", ())])
        log.warning("the kernel refuses; this is tried again", extra={"why": why})


def _destinations(things: Iterable[Thing]) -> set[tuple[bytes, int]]:
    """Return the destinations of the routes among some things, as notices name them."""
    return {
        (thing.destination.network_address.packed, thing.destination.prefixlen)
        for thing in things
        if isinstance(thing, Route)
    }
