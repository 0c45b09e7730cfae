"""What the kernel is wanted to hold, as data: devices, addresses, neighbours, FDB entries, peers, routes.

A `State` is a set of such things with an order of writing, and is removed in reverse: a device and its
address, then for each remote node the route, the neighbour, the FDB entry. With the route there first and
last, no pod's packet for that node leaves by the default route meanwhile, bare, and no connection is tracked
on that way: it waits at the neighbour, or is dropped at our own device. A WireGuard peer comes before its
route: without it, the kernel answers senders with ENOKEY.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator
    from ipaddress import (
        IPv4Address,
        IPv4Interface,
        IPv4Network,
        IPv6Address,
        IPv6Interface,
        IPv6Network,
    )

Option = tuple[str, "int | str | bool"]


@dataclass(frozen=True, slots=True)
class Device:
    """A link that is ours to make, and up.

    Attributes:
        name: such as `flannel.1`.
        kind: rtnetlink's: `vxlan`, `ipip`, `wireguard`, `tun`.
        mtu: in bytes.
        mac: its address, for kinds that have one.
        options: the kind's own (devices.py); not shown, for a key can be among them.
        offloads: features of ethtool(8) to switch, such as `tx-checksum-ip-generic` to off.
    """

    name: str
    kind: str
    mtu: int
    mac: str | None = None
    options: tuple[Option, ...] = field(default=(), repr=False)
    offloads: tuple[tuple[str, bool], ...] = ()

    @property
    def key(self) -> Hashable:
        """A name exists once."""
        return "device", self.name


@dataclass(frozen=True, slots=True)
class Address:
    """An address of one of our devices, the only one of its family there besides link-local ones."""

    device: str
    interface: IPv4Interface | IPv6Interface

    @property
    def key(self) -> Hashable:
        """An address stands on a device once."""
        return "address", self.device, self.interface


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent entry of the ARP or NDP table."""

    device: str
    address: IPv4Address | IPv6Address
    mac: str

    @property
    def key(self) -> Hashable:
        """An address has one entry on a device."""
        return "neighbour", self.device, self.address


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A permanent FDB entry of a vxlan device: frames to this MAC address go to that node."""

    device: str
    mac: str
    destination: IPv4Address | IPv6Address

    @property
    def key(self) -> Hashable:
        """A MAC address has one destination."""
        return "forwarding", self.device, self.mac


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer of a wireguard device.

    Attributes:
        device: its name.
        public_key: in base64, as wg(8) shows it.
        endpoint: address and UDP port; None before it has one, which is never wanted.
        allowed: what may come from it and goes to it; IPv4 first.
        keepalive: seconds between packets that keep a NAT's entry; 0 for none.
        preshared_key: in base64, or empty.
    """

    device: str
    public_key: str
    endpoint: tuple[IPv4Address | IPv6Address, int] | None
    allowed: tuple[IPv4Network | IPv6Network, ...]
    keepalive: int = 0
    preshared_key: str = field(default="", repr=False)

    @property
    def key(self) -> Hashable:
        """A key is one peer."""
        return "peer", self.device, self.public_key


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table.

    Attributes:
        destination: with a length.
        device: out of which it leads; empty for a blackhole.
        gateway: next hop, or None for what is on the link.
        onlink: the gateway counts as a neighbour though no route says so.
        kind: `unicast` or `blackhole`.
        metric: lower is preferred; 0 is the kernel's default.
    """

    destination: IPv4Network | IPv6Network
    device: str
    gateway: IPv4Address | IPv6Address | None = None
    onlink: bool = False
    kind: str = "unicast"
    metric: int = 0

    @property
    def key(self) -> Hashable:
        """A destination has one route of ours with a metric."""
        return "route", self.destination, self.metric


Thing = Device | Address | Neighbour | Forwarding | Peer | Route

_ORDER = {kind: rank for rank, kind in enumerate((Device, Address, Peer, Route, Neighbour, Forwarding))}


class Difference(NamedTuple):
    """What leads from one state to another: `remove` first to last, then `write` first to last."""

    remove: tuple[Thing, ...]
    write: tuple[Thing, ...]


class State:
    """Wanted things by their keys. Immutable."""

    __slots__ = ("_things",)

    def __init__(self, things: Iterable[Thing] = ()) -> None:
        self._things: dict[Hashable, Thing] = {thing.key: thing for thing in things}

    def __iter__(self) -> Iterator[Thing]:
        """Return the things in the order of writing."""
        return iter(sorted(self._things.values(), key=_rank))

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, thing: Thing) -> bool:
        return self._things.get(thing.key) == thing

    def __or__(self, other: State) -> State:
        """Return the things of both; `other` decides where they share a key."""
        merged = State()
        merged._things = self._things | other._things
        return merged

    def get(self, key: Hashable) -> Thing | None:
        """Return the thing with this key."""
        return self._things.get(key)

    def since(self, old: State) -> Difference:
        """Return what leads from `old` to this state; what changed under its key is written over."""
        gone = [thing for key, thing in old._things.items() if key not in self._things]
        new = [thing for key, thing in self._things.items() if old._things.get(key) != thing]
        return Difference(tuple(backwards(gone)), tuple(sorted(new, key=_rank)))


def backwards(things: Iterable[Thing]) -> list[Thing]:
    """Return things in the order in which they are removed."""
    return sorted(things, key=_rank, reverse=True)


def _rank(thing: Thing) -> int:
    return _ORDER[type(thing)]
