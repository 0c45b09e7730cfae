"""Which interface is the uplink: by name, address, pattern, a target's route, or the default route.

What is chosen at the start is an interface; afterwards its present name, addresses and MTU are read again
whenever the kernel reports a change (daemon.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from cni_plugins.kernel import addr, link, netlink, route
from flanneld.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld.options import Options

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_FAMILIES = {4: addr.AF_INET, 6: addr.AF_INET6}


class UplinkError(Exception):
    """No interface fits what was asked for, or it lacks an address; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface and the addresses that tunnels can start from: no link-local ones."""

    index: int
    name: str
    mtu: int
    addresses: tuple[Address, ...]

    def first(self, family: int) -> Address | None:
        """Return the first address of family 4 or 6."""
        return next((address for address in self.addresses if address.version == family), None)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen interface, and the addresses that were asked for by themselves.

    Attributes:
        index: the interface.
        pinned: addresses on it to use, if not its first ones.
        public_ip: what to publish, if not the interface's; None for that.
        public_ipv6: the same for IPv6.
    """

    index: int
    pinned: tuple[Address, ...] = ()
    public_ip: IPv4Address | None = None
    public_ipv6: IPv6Address | None = None


def interfaces() -> list[Interface]:
    """Return every interface that is up, but loopback."""
    with netlink.Netlink() as nl:
        return [
            Interface(item.index, item.name, item.mtu, _addresses(nl, item.index))
            for item in link.links(nl)
            if item.is_up and item.name != "lo"
        ]


def choose(options: Options, families: Sequence[int]) -> Choice:
    """Choose the uplink.

    The order: each -iface, each -iface-regex, -iface-can-reach; without any of them, the interface that has
    the public address; without that, the default route's.

    Args:
        options: the flags; `public_ip` and `public_ipv6` may have come from the node's annotations.
        families: which of 4 and 6 are in use.

    Raises:
        UplinkError: nothing fits.
    """
    try:
        public_ip = IPv4Address(options.public_ip) if options.public_ip else None
        public_ipv6 = IPv6Address(options.public_ipv6) if options.public_ipv6 else None
    except ValueError as error:
        raise UplinkError(f"the public address cannot be read: {error}") from None
    present = interfaces()
    found: Interface | None = None
    pinned: tuple[Address, ...] = ()
    asked = [f"iface {name}" for name in options.iface] + [
        f"iface-regex {text}" for text in options.iface_regex
    ]
    for name in options.iface:
        if found is None:
            found, pinned = _by_name(present, name)
    for text in options.iface_regex:
        if found is None:
            found, pinned = _by_pattern(present, text, families)
    if found is None and options.iface_can_reach:
        asked.append(f"iface-can-reach {options.iface_can_reach}")
        found = _towards(present, options.iface_can_reach)
    if not asked:
        for public in (public_ip, public_ipv6):
            if public is not None and found is None:
                found = next((item for item in present if public in item.addresses), None)
                pinned = (public,) if found else ()
        if found is None:
            found = _default(families, present)
            asked.append("the default route")
    if found is None:
        there = ", ".join(f"{item.name} ({', '.join(map(str, item.addresses))})" for item in present)
        raise UplinkError(f"no interface fits {' or '.join(asked)}; there are {there or 'none'}")
    choice = Choice(found.index, pinned, public_ip, public_ipv6)
    look(choice, families)
    return choice


def is_gone(choice: Choice) -> bool:
    """Tell whether the chosen interface is no more; one that is only down is not gone."""
    with netlink.Netlink() as nl:
        return link.find(nl, index=choice.index) is None


def look(choice: Choice, families: Sequence[int]) -> Uplink:
    """Return the chosen interface as it is now.

    Raises:
        UplinkError: it is gone, or down, or has no address of a family in use.
    """
    now = next((item for item in interfaces() if item.index == choice.index), None)
    if now is None:
        raise UplinkError(f"the uplink (interface {choice.index}) is down or gone")
    found: dict[int, Address | None] = {4: None, 6: None}
    for family in families:
        wanted = [item for item in choice.pinned if item.version == family and item in now.addresses]
        found[family] = wanted[0] if wanted else now.first(family)
        if found[family] is None:
            raise UplinkError(f"{now.name} has no IPv{family} address")
    local, local6 = found[4], found[6]
    assert not isinstance(local, IPv6Address)
    assert not isinstance(local6, IPv4Address)
    return Uplink(
        now.index,
        now.name,
        now.mtu,
        local,
        local6,
        choice.public_ip or local if 4 in families else None,
        choice.public_ipv6 or local6 if 6 in families else None,
        _on_link(choice.index, families),
    )


def _addresses(nl: netlink.Netlink, index: int) -> tuple[Address, ...]:
    found = [ip_address(prefix.address) for prefix in addr.of_link(nl, index)]
    return tuple(item for item in found if not item.is_link_local)


def _by_name(present: list[Interface], name: str) -> tuple[Interface | None, tuple[Address, ...]]:
    try:
        address = ip_address(name)
    except ValueError:
        return next((item for item in present if item.name == name), None), ()
    return next((item for item in present if address in item.addresses), None), (address,)


def _by_pattern(
    present: list[Interface], text: str, families: Sequence[int]
) -> tuple[Interface | None, tuple[Address, ...]]:
    """Match addresses of every family in use first, then names; anywhere in the text, as Go does."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UplinkError(f"iface-regex {text} is no regular expression: {error}") from None
    for item in present:
        matching = tuple(
            next(
                (
                    address
                    for address in item.addresses
                    if address.version == family and pattern.search(str(address))
                ),
                None,
            )
            for family in families
        )
        if all(matching):
            return item, tuple(address for address in matching if address)
    return next((item for item in present if pattern.search(item.name)), None), ()


def _towards(present: list[Interface], target: str) -> Interface | None:
    try:
        address = ip_address(target)
    except ValueError:
        raise UplinkError(f"iface-can-reach {target} is no address") from None
    with netlink.Netlink() as nl:
        index = route.towards(nl, address.packed)
    return next((item for item in present if item.index == index), None)


def _default(families: Sequence[int], present: list[Interface]) -> Interface | None:
    """Return the interface of the default routes; those of both families have to lead out of the same one."""
    with netlink.Netlink() as nl:
        leaving = {
            family: [
                (found.priority, item)
                for item in present
                for found in route.of_link(nl, item.index, _FAMILIES[family])
                if found.dst.length == 0 and found.table == route.RT_TABLE_MAIN
            ]
            for family in families
        }
    best = [min(found, key=lambda pair: pair[0])[1] for found in leaving.values() if found]
    if len(best) < len(families):
        return None
    if any(item != best[0] for item in best):
        raise UplinkError(f"the default routes of IPv4 and IPv6 leave by {best[0].name} and {best[1].name}")
    return best[0]


def _on_link(index: int, families: Sequence[int]) -> tuple[Network, ...]:
    with netlink.Netlink() as nl:
        return tuple(
            ip_network((item.dst.address, item.dst.length), strict=False)
            for family in families
            for item in route.of_link(nl, index, _FAMILIES[family])
            if item.gateway is None and item.dst.length and item.table == route.RT_TABLE_MAIN
        )
