"""Routes (rtnetlink(7), linux/rtnetlink.h)."""

from __future__ import annotations

import errno
from _struct import Struct

from cni_plugins.address import Prefix, format_address
from cni_plugins.kernel.addr import AF_INET, AF_INET6, received
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE
from cni_plugins.kernel.nlattr import attr, attr_u32, attribute_map, nested, uint, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254
_RTPROT_UNSPEC = 0
_RTPROT_BOOT = 3
_RTPROT_RA = 9
_RTN_UNICAST = 1
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_METRICS = 8
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTAX_MTU = 2
_RTAX_ADVMSS = 8
_RTNH_F_ONLINK = 4

_RTMSG = Struct("=BBBBBBBBI")


class Route:
    """A unicast route.

    Attributes:
        dst: the destination; a prefix of length 0 is the default route.
        gateway: the next hop; None: the destination is on the link.
        link: index of the outgoing link.
        table: routing table.
        priority: metric; 0: the family's default.
        mtu: in bytes; 0: the link's.
        advmss: TCP maximum segment size to advertise; 0: the kernel's choice.
        scope: RT_SCOPE_…; None: universe with a gateway, else link.
        src: the source address of packets that have none yet; None: the kernel's choice.
    """

    __slots__ = ("advmss", "dst", "gateway", "link", "mtu", "priority", "scope", "src", "table")

    def __init__(self, dst: Prefix, gateway: bytes | None, link: int, *, scope: int | None = None) -> None:
        self.dst = dst
        self.gateway = gateway
        self.link = link
        self.table = RT_TABLE_MAIN
        self.priority = 0
        self.mtu = 0
        self.advmss = 0
        self.scope = scope
        self.src: bytes | None = None


def _message(route: Route, protocol: int, *, onlink: bool = False) -> bytes:
    scope = route.scope
    if scope is None:
        scope = RT_SCOPE_UNIVERSE if route.gateway or route.dst.version == 6 else RT_SCOPE_LINK
    family = AF_INET if route.dst.version == 4 else AF_INET6
    table = route.table if route.table < 256 else 0
    flags = _RTNH_F_ONLINK if onlink else 0
    body = _RTMSG.pack(family, route.dst.length, 0, 0, table, protocol, scope, _RTN_UNICAST, flags)
    body += attr_u32(_RTA_TABLE, route.table) + attr_u32(_RTA_OIF, route.link)
    if route.dst.length:
        body += attr(_RTA_DST, route.dst.first())
    if route.gateway:
        body += attr(_RTA_GATEWAY, route.gateway)
    if route.src:
        body += attr(_RTA_PREFSRC, route.src)
    if route.priority:
        body += attr_u32(_RTA_PRIORITY, route.priority)
    if route.mtu or route.advmss:
        mtu = attr_u32(_RTAX_MTU, route.mtu) if route.mtu else b""
        body += nested(_RTA_METRICS, mtu, attr_u32(_RTAX_ADVMSS, route.advmss) if route.advmss else b"")
    return body


def delete(nl: Netlink, route: Route) -> None:
    """Delete a route, whoever made it; one that is gone already is no error."""
    nl.tell(
        RTM_DELROUTE,
        _message(route, _RTPROT_UNSPEC),
        f"failed to delete route {route.dst}",
        gone=(errno.ESRCH,),
    )


def tables(nl: Netlink) -> set[int]:
    """Return the routing tables that hold routes, of either family."""
    found = set()
    for family in (AF_INET, AF_INET6):
        for reply in nl.dump(RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "the routes"):
            given = attribute_map(reply.body, 12)
            found.add(uint(given[_RTA_TABLE]) if _RTA_TABLE in given else reply.body[4])
    return found


def add(nl: Netlink, route: Route, *, onlink: bool = False, replace: bool = False) -> None:
    """Add a route beside those that exist.

    Args:
        nl: the namespace.
        route: the route.
        onlink: the gateway is on the link although no address of ours is in its subnet.
        replace: take the place of one that has the same destination, table and metric.

    Raises:
        OSError: EEXIST: the same route is there already; ENETUNREACH: the gateway is on no link.
    """
    body = _message(route, _RTPROT_BOOT, onlink=onlink)
    nl.tell(
        RTM_NEWROUTE,
        body,
        f"failed to add route {route.dst}",
        NLM_F_CREATE | (NLM_F_REPLACE if replace else 0),
    )


def towards(nl: Netlink, address: bytes) -> int | None:
    """Return the index of the link by which packets to an address leave; None when there is no way to it."""
    family = AF_INET if len(address) == 4 else AF_INET6
    body = _RTMSG.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + attr(_RTA_DST, address)
    try:
        reply = nl.get(RTM_GETROUTE, body)
    except OSError as error:
        if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            error.add_note(f"failed to look up the route to {format_address(address)}")
            raise
        return None
    found = attribute_map(reply.body, 12)
    return uint(found[_RTA_OIF]) if _RTA_OIF in found else None


def default_link(nl: Netlink) -> int | None:
    """Return the index of the link of the main table's default route; None when there is none.

    IPv4's before IPv6's; of several the one with the lowest metric, of several next hops the first.
    """
    for family in (AF_INET, AF_INET6):
        body = _RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)
        try:
            replies = nl.dump(RTM_GETROUTE, body)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                error.add_note("failed to list the routes")
                raise
            continue  # no route was ever in that table, or the family is switched off
        found = []
        for reply in replies:
            _family, length, _src, _tos, _table, _proto, _scope, kind, _flags = unpack(_RTMSG, reply.body)
            if length or kind != _RTN_UNICAST:
                continue
            given = attribute_map(reply.body, 12)
            # struct rtnexthop: length, flags, hops, then the index
            out = given.get(_RTA_OIF) or given.get(_RTA_MULTIPATH, b"")[4:8]
            if out:
                found.append((uint(given.get(_RTA_PRIORITY, b"")), uint(out)))
        if found:
            return min(found, key=lambda each: each[0])[1]
    return None


def advertised_links(nl: Netlink) -> set[int]:
    """Return the indexes of links with a default route that a router's advertisement made (RFC 4861)."""
    found = set()
    asked = _RTMSG.pack(AF_INET6, 0, 0, 0, 0, _RTPROT_RA, 0, 0, 0)
    for reply in nl.dump(RTM_GETROUTE, asked, "the routes that routers advertise"):
        _family, length, _src, _tos, _table, protocol, _scope, _kind, _flags = unpack(_RTMSG, reply.body)
        given = attribute_map(reply.body, 12)
        out = given.get(_RTA_OIF) or given.get(_RTA_MULTIPATH, b"")[4:8]
        if protocol == _RTPROT_RA and not length and out:
            found.add(uint(out))
    return found


def of_link(nl: Netlink, index: int, family: int) -> list[Route]:
    """Return the unicast routes over a link, of every table.

    Args:
        nl: the namespace.
        index: the link.
        family: AF_INET or AF_INET6.
    """
    size = 4 if family == AF_INET else 16
    routes = []
    for reply in nl.dump(RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "the routes"):
        _family, length, _src, _tos, table, _proto, scope, kind, _flags = unpack(_RTMSG, reply.body)
        found = attribute_map(reply.body, 12)
        if kind != _RTN_UNICAST or uint(found.get(_RTA_OIF, b"")) != index:
            continue
        gateway = found.get(_RTA_GATEWAY)
        if gateway is not None:
            gateway = received(gateway, 0).address
        route = Route(received(found.get(_RTA_DST, bytes(size)), length), gateway, index, scope=scope)
        route.table = uint(found[_RTA_TABLE]) if _RTA_TABLE in found else table
        route.priority = uint(found.get(_RTA_PRIORITY, b""))
        route.src = found.get(_RTA_PREFSRC)
        metrics = attribute_map(found.get(_RTA_METRICS, b""))
        route.mtu = uint(metrics.get(_RTAX_MTU, b""))
        route.advmss = uint(metrics.get(_RTAX_ADVMSS, b""))
        routes.append(route)
    return routes
