"""Checks of host-local's ranges, and the subnets that a network uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.spec.result import OLD

if TYPE_CHECKING:
    from cni_plugins.config.host_local import HostLocalIPAM, Range
    from conflist.findings import Spot

_SPARE_BITS = 2
"""A subnet holds the network's address, the gateway, a container's and the broadcast address."""


class Stretch:
    """The addresses from `first` to `last` of a subnet, and where they are configured."""

    def __init__(self, spot: Spot, subnet: Prefix, first: bytes, last: bytes) -> None:
        self.spot = spot
        self.subnet = subnet
        self.first = first
        self.last = last

    def overlaps(self, other: Stretch) -> bool:
        """Tell whether both hold the same address."""
        return self.subnet.version == other.subnet.version and (
            self.first <= other.last and other.first <= self.last
        )

    def __str__(self) -> str:
        return f"{format_address(self.first)}-{format_address(self.last)}"


def host_local(spot: Spot, conf: HostLocalIPAM, version: str, *, given_at_run_time: bool) -> list[Stretch]:
    """Check the ranges of host-local; return those that are valid.

    Args:
        spot: where the `ipam` object is.
        conf: it, validated.
        version: the version of the network's list.
        given_at_run_time: ranges may come by the capability ipRanges.
    """
    sets: list[tuple[Spot, list[tuple[Spot, Range]]]] = []
    if conf.subnet or conf.range_start or conf.range_end or conf.gateway:
        sets.append((spot.at("subnet"), [(spot, conf)]))
    for index, given in enumerate(conf.ranges):
        here = spot.at("ranges", index)
        if not given:
            here.error("a range set needs at least one range")
        sets.append((here, [(here.at(number), item) for number, item in enumerate(given)]))
    if not sets and not given_at_run_time:
        spot.error(
            "host-local has no range to give addresses from", 'add "ranges": [[{"subnet": "10.1.2.0/24"}]]'
        )
    found: list[Stretch] = []
    families: dict[int, Spot] = {}
    for where, members in sets:
        stretches = [stretch for place, item in members if (stretch := _stretch(place, item)) is not None]
        for stretch in stretches:
            for other in found:
                if stretch.overlaps(other):
                    stretch.spot.error(f"{stretch} overlaps {other} ({other.spot})", "ranges are disjoint")
            found.append(stretch)
        if len({stretch.subnet.version for stretch in stretches}) > 1:
            where.error("one range set holds IPv4 and IPv6", "give each family a range set of its own")
        for family in {stretch.subnet.version for stretch in stretches}:
            if family in families and version in OLD:
                where.error(
                    f"version {version} cannot return two addresses of a family",
                    "set cniVersion to 0.3.0 or later",
                )
            families[family] = where
    return found


def _stretch(spot: Spot, given: Range) -> Stretch | None:
    """Check one range."""
    if not given.subnet:
        spot.error("a range needs a subnet", 'as in "subnet": "10.1.2.0/24"')
        return None
    try:
        subnet = Prefix.parse(given.subnet)
    except ValueError as error:
        spot.at("subnet").error(f"the subnet {error}", "as in 10.1.2.0/24")
        return None
    if subnet.length > subnet.bits - _SPARE_BITS:
        spot.at("subnet").error(f"{subnet} is too small to give addresses from", "take a shorter prefix")
        return None
    if subnet.network() != subnet:
        spot.at("subnet").warning(
            f"{subnet} has host bits; the subnet is {subnet.network()}", f'write "{subnet.network()}"'
        )
        subnet = subnet.network()
    # The broadcast address is never given in IPv4.
    last_host = int.from_bytes(subnet.last(), "big") - (subnet.version == 4)
    first = _inside(spot, "rangeStart", given.range_start, subnet)
    last = _inside(spot, "rangeEnd", given.range_end, subnet)
    _inside(spot, "gateway", given.gateway, subnet)
    low = first or (int.from_bytes(subnet.first(), "big") + 1).to_bytes(len(subnet.address), "big")
    high = last or last_host.to_bytes(len(subnet.address), "big")
    if low > high:
        spot.at("rangeStart").error(
            f"rangeStart {format_address(low)} is after rangeEnd {format_address(high)}", "exchange them"
        )
        return None
    return Stretch(spot.at("subnet"), subnet, low, high)


def _inside(spot: Spot, key: str, text: str, subnet: Prefix) -> bytes | None:
    """Return the address of a key, if it is one of the subnet."""
    if not text:
        return None
    try:
        address = parse_address(text)
    except ValueError as error:
        spot.at(key).error(f"{key} {error}")
        return None
    if address not in subnet:
        spot.at(key).error(f"{key} {text} is outside the subnet {subnet}")
        return None
    return address
