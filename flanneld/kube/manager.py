"""The subnet manager that keeps leases in Kubernetes' nodes: podCIDRs given, annotations published."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flanneld.kube.annotations import Annotations, parse_cidrs
from flanneld.kube.client import GoneError, node_name
from flanneld.lease import Added, Lease, Removed, Snapshot
from flanneld.manager import LeaseLostError, ManagerError
from flanneld.netconf import NetconfError, NetworkConfig
from flanneld.pauses import Pauses, happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flanneld.kube.client import Client, Node
    from flanneld.lease import Event, Key, LeaseAttrs
    from flanneld.metrics import Metrics
    from flanneld.options import Options
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

_SILENCE = 150.0
"""Seconds without a change or bookmark after which a watch is begun anew; bookmarks come every minute."""
_BRIEF = 1.0
"""Seconds that a watch of use lasts at least; after another the next one waits, longer and longer."""
_RESYNC = 6 * 3600.0
"""Seconds, about, after which all nodes are listed though the watch has told of every change, should it be
wrong. A list of 1,000 nodes is 10 MB of the apiserver's, and each of them asks for one: so it is seldom."""


class KubeManager:
    """Leases in nodes (the protocol is manager.SubnetManager's).

    Args:
        client: the connection.
        options: the flags.
        clock: the time, in seconds, that tells watches which end at once, and when to list all nodes again.
    """

    def __init__(self, client: Client, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._annotations = Annotations(options.annotation_prefix())
        self._families: tuple[int, ...] = (4,)
        self._name = ""
        self._own: Lease | None = None
        self._own_changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._seen: dict[str, Lease] = {}
        self._complaints: dict[str, str] = {}
        self._marked = ""

    async def network_config(self) -> NetworkConfig:
        """Read the file that the ConfigMap is mounted as."""
        path = self._options.net_config_path
        try:
            with open(path, "rb") as file:  # noqa: ASYNC230
                config = NetworkConfig.parse(file.read())
        except OSError as error:
            raise ManagerError(f"cannot read {path}: {error.strerror}") from None
        except NetconfError as error:
            raise NetconfError(f"{path}: {error}") from None
        self._families = config.families
        return config

    async def public_override(self) -> tuple[str, str]:
        """Return what the annotations node-public-ip and node-public-ipv6 say."""
        return self._annotations.node_public((await self._node()).annotations)

    async def published(self, uplink: Uplink) -> LeaseAttrs | None:
        """Return what our node's annotations say."""
        del uplink
        try:
            return self._annotations.decode((await self._node()).annotations)
        except ValueError as error:
            log.warning("what this node published before cannot be read", extra={"why": error})
            return None

    async def acquire(self, config: NetworkConfig, attrs: LeaseAttrs, previous: Key) -> Lease:
        """Take our node's podCIDR and publish how to reach us."""
        del previous
        node = await self._node()
        try:
            subnet, ipv6_subnet = parse_cidrs(node.pod_cidrs)
            attrs = self._annotations.overwrite(node.annotations, attrs)
        except ValueError as error:
            raise ManagerError(f"node {self._name}: {error}") from None
        lease = Lease(
            subnet if 4 in self._families else None, ipv6_subnet if 6 in self._families else None, attrs
        )
        for family in config.families:
            _check(self._name, config, lease, family)
        self._own = lease  # before the change that it makes is reported
        await self._publish(node, attrs)
        return lease

    async def watch(self, metrics: Metrics) -> AsyncIterator[list[Event]]:
        """Yield a snapshot and then changes; a new snapshot where the apiserver has forgotten some."""
        pauses = Pauses()
        version, due = "", 0.0
        while True:
            began, pause = self._clock(), 0.0
            try:
                if not version or began > due:
                    due = began + _RESYNC * random.uniform(0.8, 1.2)  # noqa: S311
                    nodes, version = await self._client.nodes()
                    metrics.heard()
                    yield [self._snapshot(nodes)]
                self._moved.clear()
                began = self._clock()
                changes = aiter(self._client.changes(version))
                while change := await self._next(changes):
                    kind, node = change
                    metrics.heard()
                    if self._clock() > began + _BRIEF:
                        pauses.reset()
                    version = node.metadata.resourceVersion
                    if event := self._event(kind, node):
                        yield [event]
            except StopAsyncIteration:  # as we asked for, after a time
                if self._clock() < began + _BRIEF:
                    pause = pauses.next()
                    log.warning("the apiserver ends watches at once", extra={"retry_in": f"{pause:.1f}s"})
            except GoneError as error:
                version, pause = "", pauses.next()
                log.info("listing all nodes again", extra={"why": error, "retry_in": f"{pause:.1f}s"})
            except TimeoutError:
                log.warning("the apiserver was silent; watching anew")
            except ManagerError as error:
                metrics.failed("manager")
                pause = pauses.next()
                log.warning("the watch ended", extra={"why": error, "retry_in": f"{pause:.1f}s"})
            await asyncio.sleep(pause)

    async def _next(self, changes: AsyncIterator[tuple[str, Node]]) -> tuple[str, Node] | None:
        """Return the next change; None when the connection it comes by is one to leave.

        Raises:
            TimeoutError: none comes, not even a bookmark.
        """
        change = asyncio.ensure_future(anext(changes))
        moved = asyncio.create_task(self._moved.wait())
        try:
            done, _ = await asyncio.wait(
                (change, moved), timeout=_SILENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise TimeoutError
            return await change if change in done else None
        finally:
            change.cancel()
            moved.cancel()

    async def keep(self, lease: Lease) -> None:
        """Publish again when somebody removed the annotations; end when the node's podCIDR has changed.

        A node that is deleted and registers anew has none of the annotations, is not marked as ready, and is
        given its podCIDR a moment later.
        """
        del lease  # `acquire` may have published another address since
        pauses = Pauses()
        pause = None
        while True:
            await happens(self._own_changed, pause)
            self._own_changed.clear()
            try:
                await self._publish_again()
                pauses.reset()
                pause = None
            except LeaseLostError:
                raise
            except (ManagerError, ValueError) as error:
                pause = pauses.next()
                log.warning("our node cannot be published", extra={"why": error, "retry_in": f"{pause:.1f}s"})

    async def _publish_again(self) -> None:
        lease = self._own
        assert lease is not None
        node = await self._node()
        subnet, ipv6_subnet = parse_cidrs(node.pod_cidrs)
        now = (subnet if lease.subnet else None, ipv6_subnet if lease.ipv6_subnet else None)
        if not any(now):
            raise ManagerError(f"node {self._name} has no podCIDR yet; it had {lease}")
        if now != lease.key:
            raise LeaseLostError(f"this node's podCIDR was {lease}, now it is {node.pod_cidrs}")
        await self._publish(node, lease.attrs)
        if self._marked and self._marked != node.metadata.uid:
            await self.mark_ready()

    async def reconnect(self) -> None:
        """Open other connections; the watch goes on over one of them."""
        await self._client.leave()
        self._moved.set()

    async def mark_ready(self) -> None:
        """Clear the condition NetworkUnavailable, which keeps pods away from a node."""
        if not self._options.set_node_network_unavailable:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "FlannelIsUp",
            "message": "Flannel is running on this node",
            "lastTransitionTime": now,
            "lastHeartbeatTime": now,
        }
        self._marked = await self._client.patch_status(self._name, {"status": {"conditions": [condition]}})

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _node(self) -> Node:
        if not self._name:
            self._name = await node_name(self._client)
        return await self._client.node(self._name)

    async def _publish(self, node: Node, attrs: LeaseAttrs) -> None:
        wanted = self._annotations.encode(attrs)
        changed = {name: value for name, value in wanted.items() if node.annotations.get(name) != value}
        if changed:
            log.info("publishing how to reach this node", extra={"node": self._name, "annotations": changed})
            await self._client.patch_status(self._name, {"metadata": {"annotations": changed}})

    def _snapshot(self, nodes: list[Node]) -> Snapshot:
        self._seen.clear()
        for node in nodes:
            self._event("ADDED", node)
        if self._own is not None and self._name not in self._seen:
            self._own_changed.set()
        return Snapshot(tuple(Added(lease, name) for name, lease in self._seen.items()))

    def _event(self, kind: str, node: Node) -> Event | None:
        """Return what a change of a node means for the leases; None for a heartbeat and a bookmark."""
        name = node.metadata.name
        if kind == "BOOKMARK":
            return None
        lease = self._lease(node) if kind != "DELETED" else None
        if name == self._name and self._own is not None and lease != self._own:
            self._own_changed.set()
        if self._seen.get(name) == lease:
            return None
        if lease is None:
            del self._seen[name]
            return Removed(origin=name)
        self._seen[name] = lease
        return Added(lease, name)

    def _lease(self, node: Node) -> Lease | None:
        name = node.metadata.name
        try:
            lease = self._annotations.lease(node.annotations, node.pod_cidrs, self._families)
        except ValueError as error:
            if self._complaints.get(name) != str(error):  # once, not at every heartbeat
                self._complaints[name] = str(error)
                log.warning("this node cannot be reached", extra={"node": name, "why": error})
            return None
        self._complaints.pop(name, None)
        return lease


def _check(node: str, config: NetworkConfig, lease: Lease, family: int) -> None:
    """Demand a subnet of a family that lies in the cluster's network."""
    subnet, network = lease.network(family), config.cluster(family)
    if subnet is None:
        raise ManagerError(
            f"node {node} has no IPv{family} podCIDR: the controller-manager gives it (--allocate-node-cidrs)"
        )
    # Of one version by now, which a type checker cannot see.
    if not subnet.subnet_of(network):  # type: ignore[arg-type]
        raise ManagerError(f"node {node} has the podCIDR {subnet}, outside the network {network}")
