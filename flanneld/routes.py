"""Routes of the main table, over netlink: written, deleted and listed with who wrote them (rtnetlink(7))."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from cni_plugins.kernel.addr import received
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE
from cni_plugins.kernel.nlattr import attr, attr_u32, attribute_map, uint, unpack

if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink, Reply
    from flanneld.state import Route

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
PROTOCOL = 0x66
"""Our mark on routes (rtm_protocol), by which those of a node that left while we were away are known."""
_RTPROT_KERNEL = 2

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_EXTRAS = {7, 8, 11, 22}  # RTA_PREFSRC, RTA_METRICS, RTA_FLOW, RTA_ENCAP
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE = 0
_RT_SCOPE_LINK = 253
_RTN_UNICAST = 1
_RTN_BLACKHOLE = 6
_RTNH_F_ONLINK = 4
_KINDS = {"unicast": _RTN_UNICAST, "blackhole": _RTN_BLACKHOLE}
_FAMILIES = {4: 2, 6: 10}
_IPV6_METRIC = 1024
"""What the kernel makes of an IPv6 route's metric 0."""
_IPV6_BLACKHOLE_LINK = 1
"""The kernel hangs an IPv6 blackhole onto loopback."""

_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Found:
    """A route as the kernel has it; `plain`: without an MTU, a source or the like of its own."""

    destination: IPv4Network | IPv6Network
    link: int
    gateway: IPv4Address | IPv6Address | None
    onlink: bool
    kind: int
    metric: int
    protocol: int
    plain: bool = True

    @property
    def is_kernels(self) -> bool:
        """Whether it came by itself, with an address."""
        return self.protocol == _RTPROT_KERNEL

    def serves(self, wanted: Route, link: int) -> bool:
        """Tell whether it does what a wanted route over the link of this index does."""
        return (
            self.kind == _KINDS[wanted.kind]
            and (self.link == link or self.kind == _RTN_BLACKHOLE)
            and self.gateway == wanted.gateway
            and (self.onlink or not wanted.onlink)
            and self.plain
        )


def identity(destination: IPv4Network | IPv6Network, metric: int) -> tuple[object, int]:
    """Return what makes a route this one in the kernel's table."""
    return destination, metric or (_IPV6_METRIC if destination.version == 6 else 0)


def put(nl: Netlink, route: Route, link: int) -> None:
    """Write a route over the link of this index, in the place of the one for the same destination."""
    doing = f"failed to write the route to {route.destination}"
    message, flags = _message(route, link, PROTOCOL), NLM_F_CREATE | NLM_F_REPLACE
    try:
        nl.tell(RTM_NEWROUTE, message, doing, flags)
    except OSError as error:
        if error.errno != errno.EINVAL or route.destination.version == 4 or not route.onlink:
            raise
        # In IPv6 a gateway may not be behind another link already: here it is, by the route to be replaced.
        delete(nl, route.destination, route.metric)
        nl.tell(RTM_NEWROUTE, message, doing, flags)


def delete(nl: Netlink, destination: IPv4Network | IPv6Network, metric: int, kind: int = 0) -> None:
    """Delete a route, whoever wrote it; one that is gone already is no error."""
    _destination, metric = identity(destination, metric)  # else IPv6 takes that of any metric
    body = _RTMSG.pack(
        _FAMILIES[destination.version], destination.prefixlen, 0, 0, _RT_TABLE_MAIN, 0, 255, kind, 0
    )
    body += attr(_RTA_DST, destination.network_address.packed) if destination.prefixlen else b""
    body += attr_u32(_RTA_PRIORITY, metric) if metric else b""
    nl.tell(RTM_DELROUTE, body, f"failed to delete the route to {destination}", gone=(errno.ESRCH,))


def found(nl: Netlink, version: int) -> list[Found]:
    """Return the routes of the main table that lead somewhere or nowhere, but those over several links."""
    header = _RTMSG.pack(_FAMILIES[version], 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)
    listed = (parse(reply) for reply in nl.dump(RTM_GETROUTE, header))
    return [route for route in listed if route is not None]


def parse(reply: Reply) -> Found | None:
    """Return the route that a message describes; None for those of other tables and kinds."""
    family, length, _src, _tos, table, protocol, _scope, kind, flags = unpack(_RTMSG, reply.body)
    if table != _RT_TABLE_MAIN or kind not in (_RTN_UNICAST, _RTN_BLACKHOLE):
        return None
    given = attribute_map(reply.body, 12)
    destination = received(given.get(_RTA_DST, bytes(4 if family == _FAMILIES[4] else 16)), length).network()
    number = int.from_bytes(destination.address, "big")
    gateway = given.get(_RTA_GATEWAY)
    return Found(
        IPv4Network((number, length)) if destination.version == 4 else IPv6Network((number, length)),
        uint(given.get(_RTA_OIF, b"")),
        ip_address(received(gateway, 0).address) if gateway else None,
        bool(flags & _RTNH_F_ONLINK),
        kind,
        uint(given.get(_RTA_PRIORITY, b"")),
        protocol,
        not given.keys() & _EXTRAS,
    )


def _message(route: Route, link: int, protocol: int) -> bytes:
    blackhole = route.kind == "blackhole"
    scope = (
        _RT_SCOPE_UNIVERSE if route.gateway or blackhole or route.destination.version == 6 else _RT_SCOPE_LINK
    )
    body = _RTMSG.pack(
        _FAMILIES[route.destination.version],
        route.destination.prefixlen,
        0,
        0,
        _RT_TABLE_MAIN,
        protocol,
        scope,
        _KINDS[route.kind],
        _RTNH_F_ONLINK if route.onlink else 0,
    )
    body += attr(_RTA_DST, route.destination.network_address.packed)
    if not blackhole:
        body += attr_u32(_RTA_OIF, link)
    elif route.destination.version == 6:
        body += attr_u32(_RTA_OIF, _IPV6_BLACKHOLE_LINK)
    if route.gateway:
        body += attr(_RTA_GATEWAY, route.gateway.packed)
    if route.metric:
        body += attr_u32(_RTA_PRIORITY, route.metric)
    return body
