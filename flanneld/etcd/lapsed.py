"""Leases that ran out: their paths stay for a while, as their nodes may be alive and about to lease again.

A lease runs out a day after etcd last heard of its node. Where one node is dead, minutes do not matter then.
Where etcd was out of reach for long, all leases run out, though pods talk all the time: their nodes lease
their subnets again as soon as they hear of it, and no path is to be torn down in between. What somebody
deletes goes at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.lease import Added, Removed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from flanneld.lease import Event, Key, Lease

log = logging.getLogger(__name__)

GRACE = 600.0
"""Seconds that the paths of a lease which ran out stay: more than a kubelet waits before it starts a daemon
that keeps ending, which is five minutes at most."""

_AT_ONCE = 100
"""Questions under way at once: a cluster's leases may all have run out."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as etcd has it: `etcd_lease` is 0 for a reservation."""

    lease: Lease
    etcd_lease: int
    revision: int


class Lapsed:
    """The leases that etcd has, and those that ran out not long ago.

    Args:
        is_over: tells whether an etcd lease has run out.
        clock: the time, in seconds, that GRACE is counted in.
    """

    def __init__(
        self, is_over: Callable[[int], Awaitable[bool]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_over = is_over
        self._clock = clock
        self._known: dict[Key, Held] = {}
        self._until: dict[Key, tuple[Lease, float]] = {}
        self._marks: dict[object, Key] = {}

    async def listed(self, held: Iterable[Held]) -> list[Lease]:
        """Take note of all leases there are; return those beside them whose paths stay."""
        now = {item.lease.key: item for item in held}
        missing = {key: item.etcd_lease for key, item in self._known.items() if key not in now}
        over = await self._over(missing)
        for key in missing:  # `over` has no order of its own, and the events have this one
            if key in over:
                self._keep(self._known[key].lease)
        self._known = now
        for item in now.values():
            self._replace(item.lease)
        self.overdue()
        return [lease for lease, _until in self._until.values()]

    async def changed(self, changes: Sequence[tuple[Key, Held | None]]) -> list[Event]:
        """Take note of changes, None for a lease that is gone; return what they mean for the paths."""
        now = {key: self._known.get(key) for key, _item in changes}
        asked = {}
        for key, item in changes:
            last, now[key] = now[key], item or now[key]
            if item is None and last is not None:
                asked[key] = last.etcd_lease
        over = await self._over(asked)  # first, as it may fail: then all is told again
        events: list[Event] = []
        for key, item in changes:
            if item is not None:
                events += [Removed(gone) for gone in self._replace(item.lease) if gone != key]
                events.append(Added(item.lease))
                self._known[key] = item
                continue
            before = self._known.pop(key, None)
            if before is not None and key in over:
                self._keep(before.lease)
            elif key not in self._until:
                events.append(Removed(key))
        return events

    def overdue(self) -> list[Event]:
        """Forget the leases whose nodes have not come back in time, and return what that means."""
        now = self._clock()
        gone = [key for key, (_lease, until) in self._until.items() if until < now]
        for key in gone:
            log.info("this node did not lease its subnet again", extra={"subnet": self._forget(key)})
        return [Removed(key) for key in gone]

    async def _over(self, etcd_leases: dict[Key, int]) -> set[Key]:
        """Return the keys whose etcd leases have run out; a reservation has none."""
        keys = [key for key, etcd_lease in etcd_leases.items() if etcd_lease]
        over: set[Key] = set()
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            answers = await asyncio.gather(*(self._is_over(etcd_leases[key]) for key in some))
            over |= {key for key, answer in zip(some, answers, strict=True) if answer}
        return over

    def _keep(self, lease: Lease) -> None:
        log.warning("this lease has run out; its paths stay for now", extra={"subnet": lease})
        self._until[lease.key] = lease, self._clock() + GRACE
        self._marks |= dict.fromkeys(_marks(lease), lease.key)

    def _replace(self, lease: Lease) -> list[Key]:
        """Forget what ran out where a lease takes its place: its subnet, or its node has another one now."""
        gone = dict.fromkeys(self._marks[mark] for mark in _marks(lease) if mark in self._marks)
        for key in gone:
            self._forget(key)
        return list(gone)

    def _forget(self, key: Key) -> Lease:
        lease, _until = self._until.pop(key)
        for mark in _marks(lease):
            if self._marks.get(mark) == key:
                del self._marks[mark]
        return lease


def _marks(lease: Lease) -> list[object]:
    """Return what no two leases have in common: the subnets, and the node's address."""
    return [mark for mark in (*lease.key, lease.attrs.public_ip or lease.attrs.public_ipv6) if mark]
