"""The subnets of a network that can be leased: their range, and what makes a subnet one of them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_PARTS = 2
"""A network is split into four subnets at least: the first one is not used, and one node is no cluster."""
_HOST_BITS = 2
"""A subnet has room for the tunnel's device and the pods' bridge at least."""


@dataclass(frozen=True, slots=True)
class SubnetRange:
    """Subnets of one length, from the one that starts at `first` to the one that starts at `last`."""

    length: int
    first: Address
    last: Address

    @classmethod
    def within(cls, network: Network, length: int, first: Address, last: Address) -> SubnetRange:
        """Return the range that a configuration means.

        Args:
            network: what is split.
            length: of a subnet; 0 for the default: 24 for IPv4, 64 for IPv6, or two more than the network's
                where that leaves fewer than four subnets.
            first: where the first subnet starts; the unspecified address for the default: the network's
                second, for the first one's first address is the network's own.
            last: where the last one starts; unspecified: the network's last.

        Raises:
            ValueError: the message says what does not fit.
        """
        bits = network.max_prefixlen
        default = 24 if network.version == 4 else 64
        if length == 0:
            if network.prefixlen > bits - _PARTS - _HOST_BITS:
                raise ValueError(
                    f"{network} is too small; it needs a /{bits - _PARTS - _HOST_BITS} or larger"
                )
            length = max(default, network.prefixlen + _PARTS)
        elif length > bits - _HOST_BITS:
            raise ValueError(f"a subnet's length of {length} leaves no addresses for pods")
        elif length < network.prefixlen + _PARTS:
            raise ValueError(f"{network} has no room for four subnets of length {length}")
        size = 1 << (bits - length)
        first = network.network_address + size if first.is_unspecified else first
        last = network.broadcast_address + 1 - size if last.is_unspecified else last
        for name, address in (("min", first), ("max", last)):
            if address not in network:
                raise ValueError(f"subnet {name} {address} is outside {network}")
            if int(address) % size:
                raise ValueError(f"subnet {name} {address} is not where a subnet of length {length} starts")
        return cls(length, first, last)

    def __contains__(self, subnet: Network | None) -> bool:
        return (
            subnet is not None
            and subnet.version == self.first.version
            and subnet.prefixlen == self.length
            and int(self.first) <= int(subnet.network_address) <= int(self.last)
        )

    def free(self, taken: list[Network]) -> Iterator[Network]:
        """Yield the subnets that overlap none of `taken`, in order."""
        size = 1 << (self.first.max_prefixlen - self.length)
        held = sorted((int(other.network_address), int(other.broadcast_address)) for other in taken)
        position = 0
        start = int(self.first)
        while start <= int(self.last):
            while position < len(held) and held[position][1] < start:
                position += 1
            if position < len(held) and held[position][0] < start + size:
                start = (held[position][1] // size + 1) * size  # the first boundary behind it
                continue
            # int alone would make an IPv4 address of a small IPv6 one
            yield _network(self.first.version, start, self.length)
            start += size


def _network(version: int, start: int, length: int) -> Network:
    return IPv4Network((start, length)) if version == 4 else IPv6Network((start, length))
