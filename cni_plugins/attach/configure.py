"""Giving the container's interface what IPAM said: addresses, routes, and the announcement of both."""

from __future__ import annotations

from cni_plugins.kernel import addr, link, route, sysctl
from cni_plugins.spec.errors import ConflictError, InvalidConfigError
from cni_plugins.spec.result import dns_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugins.config.base import DNS
    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.netlink import Netlink
    from cni_plugins.kernel.netns import Namespace
    from cni_plugins.spec.result import Result, Route

_EEXIST = 17
_DAD_SECONDS = 10.0


def prepare(ifname: str, result: Result, *, dad: bool = False) -> None:
    """Set the interface's parameters; the process must be in the container's namespace.

    Args:
        ifname: the interface.
        result: its addresses.
        dad: let the kernel look for duplicates of IPv6 addresses. Without it an address is usable at once.
    """
    # The kernel announces the addresses of an interface whose hardware address is set (`announce`).
    sysctl.write_if_present(f"net/ipv4/conf/{ifname}/arp_notify", "1")
    if not any(ip.address.version == 6 for ip in result.ips):
        return
    for name in ("lo", ifname):
        sysctl.write_if_present(f"net/ipv6/conf/{name}/disable_ipv6", "0")
    sysctl.write_if_present(f"net/ipv6/conf/{ifname}/keep_addr_on_down", "1")
    sysctl.write_if_present(f"net/ipv6/conf/{ifname}/ndisc_notify", "1")
    sysctl.write_if_present(f"net/ipv6/conf/{ifname}/accept_dad", "1" if dad else "0")
    if dad:
        sysctl.write_if_present(f"net/ipv6/conf/{ifname}/enhanced_dad", "1")


def apply(
    nl: Netlink,
    interface: Link,
    result: Result,
    *,
    dad: bool = False,
    routed: Sequence[route.Route] = (),
    alias: str = "",
) -> None:
    """Add the addresses, bring the interface up, add the routes.

    Args:
        nl: the container's namespace.
        interface: the container's interface.
        result: what IPAM gave; a route without a next hop goes to the gateway of its family's address.
        dad: see `prepare`.
        routed: routes in the place of those to the addresses' subnets, for a link with only the host beyond:
            every next hop is taken to be on it.
        alias: what is left on the interface; empty: what is there stays.

    Raises:
        ConflictError: two routes are the same for the kernel.
        OSError: the kernel refused an address or a route.
    """
    gateways: dict[int, bytes] = {}
    extra = addr.IFA_F_NOPREFIXROUTE if routed else 0
    for ip in result.ips:
        addr.add(nl, interface.index, ip.address, flags=extra | addr.flags_for(ip.address, dad=dad))
        if ip.gateway is not None:
            gateways.setdefault(ip.address.version, ip.gateway)
    link.set_up(nl, interface.index, alias)
    for own in routed:
        route.add(nl, own)
    for given in result.routes:
        _add_route(nl, interface.index, given, gateways, onlink=bool(routed))


def _add_route(nl: Netlink, index: int, given: Route, gateways: dict[int, bytes], *, onlink: bool) -> None:
    gateway = given.gw if given.gw is not None else gateways.get(given.dst.version)
    wanted = route.Route(given.dst, gateway, index, scope=given.scope)
    if given.scope == route.RT_SCOPE_LINK and given.gw is None:
        wanted.gateway = None
    wanted.table = given.table if given.table is not None else route.RT_TABLE_MAIN
    wanted.priority, wanted.mtu, wanted.advmss = given.priority, given.mtu, given.advmss
    try:
        # Only where it is needed: the kernel shows the flag.
        route.add(nl, wanted, onlink=onlink and wanted.gateway not in (None, gateways.get(given.dst.version)))
    except OSError as error:
        if error.errno == _EEXIST:
            raise ConflictError(
                f"failed to add route {given.dst}: the container has a route to it already",
                "look for the same destination in ipam.routes, in isDefaultGateway and in the plugins before",
            ) from None
        raise


def settle(netns: Namespace, nl: Netlink, interface: Link) -> None:
    """Wait until the kernel has looked for duplicates of the interface's IPv6 addresses: one to two seconds.

    Raises:
        ConflictError: somebody else on the network has one of them.
    """
    try:
        with netns.netlink(groups=addr.RTMGRP_IPV6_IFADDR) as events:
            addr.settle(nl, events, interface.index, _DAD_SECONDS)
    except OSError as error:
        raise ConflictError(f"duplicate address detection on {interface.name!r}: {error.strerror}") from None


def announce(nl: Netlink, interface: Link) -> None:
    """Make the kernel announce every address: gratuitous ARP, unsolicited neighbour advertisements.

    Setting a hardware address, the one it has, is the event on which arp_notify and ndisc_notify
    (ip-sysctl.rst) act. Own packets would take a packet socket, whose close waits for an RCU grace period.
    """
    link.set_mac(nl, interface.index, link.parse_mac(interface.mac))


def prefer_dns(own: DNS, result: Result) -> None:
    """Put the network's own DNS settings in the place of IPAM's, when it has any."""
    if own.nameservers or own.domain or own.search or own.options:
        result.dns = dns_from(own)


def parse_mac(text: str) -> bytes:
    """Return the bytes of a configured MAC address; empty for none.

    Raises:
        InvalidConfigError: it is no unicast MAC address.
    """
    if not text:
        return b""
    try:
        mac = link.parse_mac(text)
    except ValueError as error:
        raise InvalidConfigError(f"invalid mac: {error}") from None
    if mac[0] & 1 or not any(mac):
        raise InvalidConfigError(f"invalid mac: {text!r} is not a unicast address")
    return mac
