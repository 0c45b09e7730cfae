"""The kernel's tables as far as they are ours: what they hold, and how one thing is written or removed."""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import TYPE_CHECKING

from cni_plugins.address import Prefix
from cni_plugins.kernel import addr, link, neigh
from flanneld import devices, routes, wireguard
from flanneld.state import Address, Device, Forwarding, Neighbour, Peer, Route, backwards

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_plugins.kernel.netlink import Netlink
    from flanneld.state import State, Thing

_NO_LINK = 0


class Links:
    """The indexes of links by name, as they are now."""

    __slots__ = ("_indexes",)

    def __init__(self, nl: Netlink) -> None:
        self._indexes: dict[str, int] = {item.name: item.index for item in link.links(nl)}

    def __getitem__(self, name: str) -> int:
        """Return a link's index; 0, which no link has, for one that is not there."""
        return self._indexes.get(name, _NO_LINK)


class Tables:
    """What the kernel holds on our devices, and its routes.

    Args:
        nl: the namespace.
        links: its links.
        devices: ours.
        families: of which of 4 and 6 routes matter.
    """

    def __init__(self, nl: Netlink, links: Links, devices: Iterable[Device], families: Iterable[int]) -> None:
        self._links = links
        self._held: dict[object, Thing] = {}
        self._wireguards: dict[str, wireguard.Found] = {}
        self._routes: dict[object, routes.Found] = {}
        self._ours: set[int] = set()
        for device in devices:
            if index := links[device.name]:
                self._ours.add(index)
                self._held.update({thing.key: thing for thing in _on_device(nl, device, index)})
                if device.kind == "wireguard" and (found := _wireguard(device.name)):
                    self._wireguards[device.name] = found
                    self._held.update({peer.key: peer for peer in found.peers.values()})
        for family in families:
            self._routes |= {
                routes.identity(route.destination, route.metric): route for route in routes.found(nl, family)
            }

    def has(self, wanted: Thing) -> bool:
        """Tell whether something is there as it is wanted."""
        if isinstance(wanted, Route):
            found = self._routes.get(routes.identity(wanted.destination, wanted.metric))
            return found is not None and found.serves(wanted, self._links[wanted.device])
        if isinstance(wanted, Peer):
            device = self._wireguards.get(wanted.device)
            return device is not None and device.has(wanted)
        return self._held.get(wanted.key) == wanted

    def surplus(self, state: State) -> list[Thing]:
        """Return what is on our devices, or marked as ours, and is not wanted, in the order of removal."""
        wanted = {
            routes.identity(thing.destination, thing.metric) for thing in state if isinstance(thing, Route)
        }
        surplus: list[Thing] = []
        for identity, found in self._routes.items():
            ours = found.protocol == routes.PROTOCOL or (found.link in self._ours and not found.is_kernels)
            if ours and identity not in wanted:
                surplus.append(Route(found.destination, "", metric=found.metric))
        for thing in reversed(list(self._held.values())):
            there = state.get(thing.key)
            # Another MAC address or destination for a wanted key: it is written over, but for FDB entries,
            # of which a MAC address can have several.
            if there is None or (isinstance(thing, Forwarding) and there != thing):
                surplus.append(thing)
        return backwards(surplus)


def _on_device(nl: Netlink, device: Device, index: int) -> Iterator[Thing]:
    name = device.name
    for prefix in addr.of_link(nl, index):
        interface = ip_interface((prefix.address, prefix.length))
        if not interface.is_link_local:
            yield Address(name, interface)
    if device.kind != "vxlan":
        return
    for version in (4, 6):
        for entry in neigh.neighbours(nl, index, version):
            if entry.permanent:
                yield Neighbour(name, ip_address(entry.dst), link.format_mac(entry.mac))
    learns = bool(dict(device.options).get("learning"))
    for entry in neigh.forwarding(nl, index):
        # What the device has learnt, as it was asked to, is its own. What leads by another port is not what
        # we write, and is written over.
        if (learns and not entry.permanent) or not entry.plain:
            continue
        yield Forwarding(name, link.format_mac(entry.mac), ip_address(entry.dst))


def peers_differ(state: State) -> bool:
    """Tell whether a WireGuard device is not as wanted, which the kernel gives no notice of."""
    for device in state:
        if isinstance(device, Device) and device.kind == "wireguard":
            found = _wireguard(device.name)
            wanted = [peer for peer in state if isinstance(peer, Peer) and peer.device == device.name]
            if found is None or len(wanted) != len(found.peers) or not all(map(found.has, wanted)):
                return True
            if not devices.is_configured(device, found):
                return True
    return False


def _wireguard(name: str) -> wireguard.Found | None:
    """Return a WireGuard device; None for one that is gone, or of another kind."""
    try:
        return wireguard.look(name)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP, errno.ENOENT):
            return None
        raise


def write(nl: Netlink, thing: Thing, links: Links) -> None:
    """Write something, over what is there for its key.

    Raises:
        OSError: the kernel refuses.
    """
    match thing:
        case Route():
            routes.put(nl, thing, links[thing.device])
        case Neighbour() | Forwarding():
            neigh.put(nl, _entry(thing, links))
        case Address():
            prefix = _prefix(thing.interface)
            addr.add(nl, links[thing.device], prefix, flags=addr.flags_for(prefix))
        case Peer():
            wireguard.put(thing)
        case Device():
            raise NotImplementedError(f"{thing} is written by devices.ensure")


def remove(nl: Netlink, thing: Thing, links: Links) -> None:
    """Remove something; what is gone already is no error.

    Raises:
        OSError: the kernel refuses.
    """
    match thing:
        case Route():
            routes.delete(nl, thing.destination, thing.metric)
        case Neighbour() | Forwarding():
            neigh.delete(nl, _entry(thing, links))
        case Address():
            addr.delete(nl, links[thing.device], _prefix(thing.interface))
        case Peer():
            wireguard.remove(thing.device, thing.public_key)
        case Device():
            link.delete(nl, thing.name)


def _entry(thing: Neighbour | Forwarding, links: Links) -> neigh.Neighbour:
    forwarding = isinstance(thing, Forwarding)
    there = thing.destination if isinstance(thing, Forwarding) else thing.address
    return neigh.Neighbour(
        links[thing.device], there.packed, link.parse_mac(thing.mac), forwarding=forwarding
    )


def _prefix(interface: IPv4Interface | IPv6Interface) -> Prefix:
    return Prefix(interface.packed, interface.network.prefixlen)
