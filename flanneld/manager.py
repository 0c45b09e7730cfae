"""Subnet managers: where leases are kept. etcd/manager.py and kube/manager.py are the two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flanneld.lease import Event, Key, Lease, LeaseAttrs
    from flanneld.metrics import Metrics
    from flanneld.netconf import NetworkConfig
    from flanneld.uplink import Uplink


class ManagerError(Exception):
    """The source of leases refused or could not be reached; worth another try, but for LeaseLostError."""


class LeaseLostError(ManagerError):
    """Our subnet is another node's, or was taken from us: our pods cannot follow, so the daemon ends."""


class SubnetManager(Protocol):
    """A source of leases."""

    async def network_config(self) -> NetworkConfig:
        """Read the cluster's network.

        Raises:
            NetconfError: what is there cannot be used.
            ManagerError: it cannot be had now.
        """
        ...

    async def public_override(self) -> tuple[str, str]:
        """Return the public addresses, IPv4 and IPv6, that an administrator noted for this node; else "".

        Raises:
            ManagerError: it cannot be had now.
        """
        ...

    async def published(self, uplink: Uplink) -> LeaseAttrs | None:
        """Return what this node published before, if it did.

        Raises:
            ManagerError: it cannot be had now.
        """
        ...

    async def acquire(self, config: NetworkConfig, attrs: LeaseAttrs, previous: Key) -> Lease:
        """Lease a subnet for this node, or take up the one it has, and publish `attrs`.

        Args:
            config: the cluster's network.
            attrs: what to publish.
            previous: the subnets of the last run, by subnet.env; (None, None) when there was none.

        Raises:
            LeaseLostError: the subnet that was acquired before is ours no more.
            ManagerError: none is free, or the source cannot be reached.
        """
        ...

    def watch(self, metrics: Metrics) -> AsyncIterator[list[Event]]:
        """Yield a snapshot, then changes, in batches as they come; another snapshot after every gap.

        It survives the loss of the source: it waits and connects again, with growing pauses, until cancelled.

        Args:
            metrics: where it notes that the source was heard of, and failures.
        """
        ...

    async def keep(self, lease: Lease) -> None:
        """Keep the own lease alive until cancelled; one that ran out is taken up again if nobody else has it.

        Raises:
            LeaseLostError: it was deleted, or the subnet is another node's.
        """
        ...

    async def reconnect(self) -> None:
        """Leave connections that come from an address which is ours no more: nobody answers there."""
        ...

    async def mark_ready(self) -> None:
        """Tell the source that this node's network is there."""
        ...

    async def close(self) -> None:
        """Close connections; the lease stays."""
        ...
