"""The uplink: the interface by which this node reaches the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class Uplink:
    """The uplink as it is now; it may be renamed, and change addresses and MTU, while the daemon runs.

    Attributes:
        index: the kernel's number of the interface, which a rename leaves alone.
        name: its name now.
        mtu: in bytes.
        address: its IPv4 address, from which tunnels start; None without IPv4.
        ipv6_address: the same for IPv6.
        public_ip: what other nodes are told; differs from `address` behind a NAT.
        public_ipv6: the same for IPv6.
        on_link: networks that the main table reaches through this interface without a gateway.
    """

    index: int
    name: str
    mtu: int
    address: IPv4Address | None
    ipv6_address: IPv6Address | None
    public_ip: IPv4Address | None
    public_ipv6: IPv6Address | None
    on_link: tuple[IPv4Network | IPv6Network, ...] = ()

    def local(self, family: int) -> IPv4Address | IPv6Address | None:
        """Return the interface's address of family 4 or 6."""
        return self.address if family == 4 else self.ipv6_address

    def is_direct(self, node: IPv4Address | IPv6Address) -> bool:
        """Tell whether a node is in one of our own subnets, so that packets need no tunnel to it."""
        return any(node in network for network in self.on_link)
