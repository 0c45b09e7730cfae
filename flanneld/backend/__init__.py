"""Backends: how packets get from node to node. What each wants of the kernel is a pure function of leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Lease, LeaseAttrs
    from flanneld.netconf import NetworkConfig
    from flanneld.state import State
    from flanneld.uplink import Uplink


class BackendError(Exception):
    """The backend cannot work here, or with this configuration; the message says what to change."""


class Backend(Protocol):
    """A backend, made with the network's configuration: `BACKENDS[config.backend.type](config)`.

    The constructor validates `config.backend.options` and raises BackendError.
    """

    type: ClassVar[str]

    def __init__(self, config: NetworkConfig) -> None: ...

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Prepare keys and MAC addresses; return what the node publishes. The kernel is not written yet.

        Called again when the uplink's addresses changed.

        Args:
            uplink: as it is now.
            published: what this node had published before it started, if anything: MAC addresses and keys
                are taken from it when they still fit, so that other nodes see no change.

        Raises:
            BackendError: the kernel lacks what it takes, or the uplink the address.
        """
        ...

    def mtu(self, uplink: Uplink) -> int:
        """Return what a pod's packet may have, in bytes: goes into subnet.env."""
        ...

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Return what the kernel must hold for these leases; leases of other backend types are left out.

        Pure and quick: it is called for every change with every lease. Data of a lease that cannot be read is
        another node's mistake: it is logged once and that lease is left out.
        """
        ...

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Do what is not kernel state, after it was written: the udp proxy's table, extension's commands.

        Called for every change with every lease.

        Raises:
            BackendError: without it, the backend is of no use.
        """
        ...

    async def close(self) -> None:
        """End what needs this process; the kernel's state stays."""
        ...
