"""alloc: leases a subnet and writes subnet.env; somebody else builds the paths, as cloud providers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from flanneld.lease import LeaseAttrs
from flanneld.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.uplink import Uplink


class Alloc:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "alloc"

    def __init__(self, config: NetworkConfig) -> None:
        del config

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Publish the uplink's addresses."""
        del published
        return LeaseAttrs(uplink.public_ip, uplink.public_ipv6, self.type)

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's."""
        return uplink.mtu

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Want nothing of the kernel."""
        del uplink, own, others
        return State()

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""
