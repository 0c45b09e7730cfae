"""The daemon's life: lease a subnet, then keep the kernel, subnet.env and the lease as they should be."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

from flanneld import iface, subnetfile
from flanneld.backend.common import Complaints
from flanneld.iface import UplinkError
from flanneld.lease import Added, Leases, Removed, Snapshot
from flanneld.manager import LeaseLostError, ManagerError
from flanneld.notices import LINKS, Notices
from flanneld.pauses import Pauses
from flanneld.state import Route, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flanneld.backend import Backend
    from flanneld.lease import Event, Key, Lease
    from flanneld.manager import SubnetManager
    from flanneld.metrics import Metrics
    from flanneld.netconf import NetworkConfig
    from flanneld.options import Options
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LOOK = 0.5
"""Seconds between looks at subnet.env: one stat(2)."""
_RETRY = 1.0
"""Seconds between attempts to make the devices, at the start, and to look at the uplink after a failure."""
_UPLINK = 30.0
"""Seconds between looks at the uplink when nothing is reported: routes on it are not."""
_LAST = 0xFFFFFFFE
"""The metric of the blackhole route: the pods' bridge has a route to the same subnet, which comes first."""


class Kernel(Protocol):
    """What keeps the kernel's tables: flanneld.reconcile.Reconciler."""

    async def want(self, state: State) -> bool:
        """Make this the wanted state and write what differs from the one before.

        What the kernel refuses is logged, counted and tried again by `run`.

        Returns:
            Whether every device is there.
        """
        ...

    async def run(self) -> None:
        """Put back whatever somebody changes, until cancelled."""
        ...


class Traffic(Protocol):
    """What keeps the packet filter's rules: flanneld.traffic.Traffic."""

    async def want(self, lease: Lease) -> None:
        """Make the rules for this lease wanted and write them; those of networks that are no more go.

        What is refused is logged, counted and tried again by `run`.
        """
        ...

    async def run(self) -> None:
        """Look at the rules again and again and put back what is missing, until cancelled."""
        ...


class Daemon:
    """One node's daemon.

    Args:
        options: the flags.
        manager: where leases are kept.
        metrics: what is counted.
        backend: makes the backend that a configuration names.
        kernel: keeps the kernel's tables.
        traffic: makes what keeps the packet filter's rules.
    """

    def __init__(
        self,
        options: Options,
        manager: SubnetManager,
        metrics: Metrics,
        backend: Callable[[NetworkConfig], Backend],
        kernel: Kernel,
        traffic: Callable[[NetworkConfig], Traffic],
    ) -> None:
        self._options = options
        self._manager = manager
        self._metrics = metrics
        self._make_backend = backend
        self._kernel = kernel
        self._make_traffic = traffic
        self._changed = asyncio.Event()
        self._listed = asyncio.Event()
        self._moved = asyncio.Event()
        self._up = asyncio.Event()
        self._leases = Leases()
        self._complaints = Complaints(log)
        self._content = b""
        self._written = b""

    async def run(self) -> None:
        """Run until cancelled; the data path stays.

        Raises:
            LeaseLostError: the subnet may be another node's by now.
            NetconfError, BackendError: the configuration cannot be used.
            ExceptionGroup: of one of these, or of what nobody foresaw.
        """
        self._config = await self._insist(self._manager.network_config)
        backend = self._make_backend(self._config)
        traffic = self._make_traffic(self._config)
        try:
            self._choice, self._uplink = await self._insist(self._choose)
            log.info(
                "chose the uplink",
                extra={
                    "uplink": self._uplink.name,
                    "public_ip": self._uplink.public_ip or self._uplink.public_ipv6,
                },
            )
            old = subnetfile.SubnetFile.read(self._options.subnet_file)
            self._lease = await self._insist(lambda: self._publish(backend, old.key))
            await traffic.want(self._lease)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._manager.keep(self._lease))
                tasks.create_task(self._kernel.run())
                tasks.create_task(traffic.run())
                tasks.create_task(self._watch_leases())
                tasks.create_task(self._watch_uplink())
                tasks.create_task(self._follow(backend))
                tasks.create_task(self._apply(backend))
                tasks.create_task(self._tell_ready())
                tasks.create_task(self._guard_file())
        finally:
            await backend.close()

    async def _insist(self, step: Callable[[], Awaitable[_T]], what: str = "start") -> _T:
        """Take a step again and again until it works: a node may come up before its cluster."""
        pauses = Pauses()
        while True:
            try:
                return await step()
            except LeaseLostError:
                raise
            except (ManagerError, UplinkError) as error:
                self._metrics.failed(what)
                pause = pauses.next()
                log.warning("cannot %s yet", what, extra={"why": error, "retry_in": f"{pause:.1f}s"})
                await asyncio.sleep(pause)

    async def _choose(self) -> tuple[iface.Choice, Uplink]:
        public_ip, public_ipv6 = await self._manager.public_override()
        self._options.public_ip = public_ip or self._options.public_ip
        self._options.public_ipv6 = public_ipv6 or self._options.public_ipv6
        choice = iface.choose(self._options, self._config.families)
        return choice, iface.look(choice, self._config.families)

    async def _publish(self, backend: Backend, previous: Key) -> Lease:
        published = await self._manager.published(self._uplink)
        attrs = await backend.start(self._uplink, published)
        return await self._manager.acquire(self._config, attrs, previous)

    async def _watch_leases(self) -> None:
        if self._config.backend.type == "alloc" and self._options.kube_subnet_mgr:
            self._listed.set()
            self._changed.set()  # others make the routes: there is nobody to listen to
            return
        async for events in self._manager.watch(self._metrics):
            self._listed.set()
            after = self._leases.after(map(self._usable, events))
            if after is not self._leases or not self._content:
                self._leases = after
                self._changed.set()

    def _usable(self, event: Event) -> Event:
        """Leave out leases outside the cluster's network: their routes could take the place of the host's."""
        if isinstance(event, Snapshot):
            return Snapshot(tuple(added for added in event.leases if self._is_inside(added.lease)))
        if isinstance(event, Added) and not self._is_inside(event.lease):
            return Removed(event.lease.key, event.origin)
        return event

    def _is_inside(self, lease: Lease) -> bool:
        for family in self._config.families:
            subnet, network = lease.network(family), self._config.cluster(family)
            # Of one version by now, which a type checker cannot see.
            if subnet and network and not subnet.subnet_of(network):  # type: ignore[arg-type]
                self._complaints.about(lease, f"{subnet} is outside the network {network}")
                return False
        return True

    async def _watch_uplink(self) -> None:
        """Follow the uplink's name, addresses and MTU; while it is down, everything stays as it is.

        The first look is for what changed while the lease was published, which may have taken long.
        """
        with Notices(LINKS) as notices:
            while True:
                seen = await self._look_at_uplink()
                try:
                    async with asyncio.timeout(_UPLINK if seen else _RETRY):
                        await notices.gather()
                except TimeoutError:
                    continue

    async def _look_at_uplink(self) -> bool:
        """Take over what has changed; return False where that could not be seen now."""
        try:
            if iface.is_gone(self._choice):
                self._find_again()
            now = iface.look(self._choice, self._config.families)
        except (OSError, UplinkError) as error:
            log.warning("the uplink is not usable now", extra={"why": error})
            return isinstance(error, UplinkError)  # the kernel tells when it is there again
        before, self._uplink = self._uplink, now
        if now == before:
            return True
        log.info("the uplink has changed", extra={"uplink": now.name, "mtu": now.mtu, "address": now.address})
        self._changed.set()  # what is ours follows at once; others may not hear of it for long
        if (now.address, now.ipv6_address) != (before.address, before.ipv6_address):
            await self._manager.reconnect()
        if (now.public_ip, now.public_ipv6) != (before.public_ip, before.public_ipv6):
            self._moved.set()
        return True

    async def _follow(self, backend: Backend) -> None:
        """Tell the others where we are when that has changed, until they can be told.

        Raises:
            LeaseLostError: the node has another subnet now, which pods that run cannot follow.
        """
        while True:
            await self._moved.wait()
            self._moved.clear()
            lease = await self._insist(lambda: self._publish(backend, self._lease.key), "publish")
            if lease.key != self._lease.key:
                raise LeaseLostError(f"this node had {self._lease}, now it has {lease}")
            self._lease = lease
            self._changed.set()

    def _find_again(self) -> None:
        """Take an interface of the uplink's name in its place: a driver that was loaded again, a new bond.

        Any other is left alone: it may be there for a moment only, and other nodes would have to follow.

        Raises:
            UplinkError: nothing fits the flags.
        """
        choice = iface.choose(self._options, self._config.families)
        if iface.look(choice, self._config.families).name == self._uplink.name:
            self._choice = choice

    async def _apply(self, backend: Backend) -> None:
        """Bring the kernel, then subnet.env, up to date; changes that come at once are one."""
        await self._listed.wait()  # before that, other nodes' routes would be taken for surplus
        while True:
            await self._changed.wait()
            self._changed.clear()
            uplink, lease = self._uplink, self._lease
            others = self._leases.others(lease)
            state = backend.desired(uplink, lease, others)
            if self._options.ip_blackhole_route:
                state |= State(_blackhole(lease))
            if not await self._kernel.want(state) and not self._up.is_set():
                await asyncio.sleep(_RETRY)  # no pod may be made before there is a path
                self._changed.set()
                continue
            await backend.settle(uplink, lease, others)
            self._metrics.leases = len(others)
            self._content = subnetfile.compose(
                self._config, lease, backend.mtu(uplink), masquerade=self._options.ip_masq
            )
            self._write_file()
            if not self._up.is_set():
                self._up.set()
                self._metrics.up = True
                log.info("the paths are up", extra={"subnet": lease, "leases": len(others)})

    async def _tell_ready(self) -> None:
        """Tell the source of leases, which may be away just then, that the paths are up."""
        await self._up.wait()
        await self._insist(self._manager.mark_ready, "publish")

    def _write_file(self) -> bool:
        """Put subnet.env in place; return whether it was right already."""
        try:
            wrote = subnetfile.write(self._options.subnet_file, self._content)
        except OSError as error:
            self._metrics.failed("subnetfile")
            self._metrics.broken["subnetfile"] = str(error)
            log.warning("subnet.env cannot be written", extra={"why": error})
            return False
        self._metrics.broken.pop("subnetfile", None)
        if wrote and self._content == self._written:
            self._metrics.repaired("subnetfile")
            log.warning("somebody changed subnet.env; it is written again")
        self._written = self._content
        return not wrote

    async def _guard_file(self) -> None:
        """Put subnet.env back when somebody removes or changes it."""
        right: object = None
        while True:
            await asyncio.sleep(_LOOK)
            # What the file looked like before it was read: a change while it is read is seen the next time.
            now = (_fingerprint(self._options.subnet_file), self._content)
            if self._content and (now != right or "subnetfile" in self._metrics.broken):
                right = now if self._write_file() else None


def _fingerprint(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _blackhole(lease: Lease) -> list[Route]:
    return [Route(subnet, "", kind="blackhole", metric=_LAST) for subnet in lease.key if subnet]
