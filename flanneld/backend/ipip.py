"""ipip: one tunnel device, which sends IPv4 packets in IPv4 packets (RFC 2003).

Device `flannel.ipip`, with our address and any remote one: the next hop of a node's route is the node itself.
The kernel's own `tunl0`, which comes with the module, takes what is for no other device, and stays alone.
"""

from __future__ import annotations

import logging
from ipaddress import ip_interface
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from flanneld.backend.common import demand_ipv4, read_options
from flanneld.lease import LeaseAttrs
from flanneld.netconf import FoldedModel
from flanneld.state import Address, Device, Route, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.state import Thing
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

NAME = "flannel.ipip"
_OVERHEAD = 20
"""Bytes of the outer IP header."""


class IpipOptions(FoldedModel):
    """Options of `Backend` with Type ipip."""

    direct_routing: bool = Field(False, description="No tunnel to nodes in our own subnet.")


class Ipip:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "ipip"

    def __init__(self, config: NetworkConfig) -> None:
        demand_ipv4(config, log)
        self._options = read_options(IpipOptions, config)

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Publish the uplink's addresses; there is nothing else to know."""
        del published
        return LeaseAttrs(uplink.public_ip, uplink.public_ipv6, self.type)

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's, less the tunnel's header."""
        return uplink.mtu - _OVERHEAD

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Return the device, and a route for each node."""
        assert own.subnet is not None
        things: list[Thing] = [
            Device(NAME, "ipip", self.mtu(uplink), options=(("local", str(uplink.address)),)),
            Address(NAME, ip_interface(own.subnet.network_address)),
        ]
        for lease in others:
            node = lease.attrs.public_ip
            if lease.attrs.backend_type == self.type and lease.subnet and node:
                direct = self._options.direct_routing and uplink.is_direct(node)
                things.append(Route(lease.subnet, uplink.name if direct else NAME, node, onlink=True))
        return State(things)

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Do nothing: the kernel does all."""

    async def close(self) -> None:
        """Do nothing: the device stays."""
