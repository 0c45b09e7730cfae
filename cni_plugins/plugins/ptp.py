"""ptp: a veth pair between the container and the host, which routes (CNI 1.1.0, section 2).

It owns the pair. Its host end has the gateways' addresses and a route to each of the container's addresses,
all of which go with it. Masquerade rules are in `attach`; addresses come from an IPAM delegate. The
container's only neighbour is the host: it has a route to the gateway, and one to its subnet via the gateway.

With `gatewayAddress` everything goes via one link-local address, the same on every node and outside every
subnet.
"""

from __future__ import annotations

from cni_plugins.address import Prefix, families, format_address, parse_address
from cni_plugins.attach import configure, gateway, ipam, veth
from cni_plugins.attach.detach import detach, leave, noted
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import addr, link, notes, route, sysctl
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Interface, Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import masquerade, ready, verify
    from cni_plugins.config.ptp import PtpConf
    from cni_plugins.kernel import newlink
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request
else:
    masquerade = Lazy("cni_plugins.attach.masquerade")
    newlink = Lazy("cni_plugins.kernel.newlink")
    ready = Lazy("cni_plugins.attach.ready")
    verify = Lazy("cni_plugins.attach.verify")

_LINK_LOCAL = {4: Prefix(bytes((169, 254, 0, 0)), 16), 6: Prefix(b"\xfe\x80" + bytes(14), 10)}
_NEXT_HOPS = {4: bytes((169, 254, 1, 1)), 6: b"\xfe\x80" + bytes(13) + b"\1"}


def add(request: Request) -> Result:
    """Make the pair, get addresses, configure both ends."""
    conf: PtpConf = request.conf
    next_hops = _validate(conf)
    # Undoing comes before closing what it needs.
    with Namespace(request.netns) as netns, Netlink() as host, Undo() as undo, netns.netlink() as inside:
        name = veth.create(request, host, inside, netns.fd, undo, mtu=conf.mtu)
        port, interface = link.get(host, name), link.get(inside, request.ifname)
        result = ipam.add(request, undo)
        _plan(result, next_hops)
        _configure_host(host, port, result, conf)
        with netns.entered():
            configure.prepare(request.ifname, result)
        routed = _container_routes(interface.index, result, subnets=not next_hops)
        configure.apply(inside, interface, result, routed=routed)
        port = newlink.get_carrying(host, name)
        if conf.ip_masq:
            undo.push(masquerade.remove, request)
            masquerade.add(request, [ip.address for ip in result.ips], conf.ip_masq_backend)
    result.interfaces = [
        Interface(port.name, port.mac, port.mtu),
        Interface(interface.name, interface.mac, interface.mtu, request.netns),
    ]
    for ip in result.ips:
        ip.interface = 1
    configure.prefer_dns(conf.dns, result)
    return result


def delete(request: Request) -> None:
    """Remove the pair, the addresses and the rules; what is gone already is no error."""
    conf: PtpConf = request.conf
    teardown = Teardown()
    detach(request, teardown)
    teardown.step(veth.forget, request)
    if conf.ip_masq or noted(request, notes.MASQUERADE):
        teardown.step(masquerade.remove, request)
    teardown.finish()


def check(request: Request) -> None:
    """Compare everything ADD set with the kernel."""
    conf: PtpConf = request.conf
    next_hops = _validate(conf)
    result = verify.previous(request)
    index, expected = verify.container_interface(request, result)
    ipam.forward(request)
    with Namespace(request.netns) as netns, Netlink() as host, netns.netlink() as inside:
        interface = verify.present(inside, request.ifname, "veth", "container")
        verify.matches(interface, Interface(expected.name, expected.mac, expected.mtu or conf.mtu))
        verify.addresses(inside, interface, index, result)
        own = Result()
        own.ips = [ip for ip in result.ips if ip.interface in (None, index)]
        for ip in own.ips:
            _next_hop_of(ip.gateway, ip.address)
        verify.own_routes(inside, interface, _container_routes(interface.index, own, subnets=not next_hops))
        verify.routes(inside, interface, result)
        _check_host(host, interface, result, own, conf)
    if conf.ip_masq:
        masquerade.check(request, [ip.address for ip in own.ips], conf.ip_masq_backend)


def status(request: Request) -> None:
    """Look at the configuration, the kernel's drivers and its packet filter, and ask the IPAM plugin."""
    conf: PtpConf = request.conf
    _validate(conf)
    ready.links("veth")
    ready.notes("veth")
    if conf.ip_masq:
        ready.packet_filter(conf.ip_masq_backend, "ipMasq")
    ipam.forward(request)


def gc(request: Request) -> None:
    """Remove pairs and rules of attachments that are gone, and let the IPAM plugin do the same."""
    conf: PtpConf = request.conf
    valid = request.valid_attachments()
    teardown = Teardown()
    leave(request, teardown, veth.gc, request)
    teardown.step(masquerade.gc, request, valid, configured=conf.ip_masq)
    teardown.finish()


def _validate(conf: PtpConf) -> dict[int, bytes]:
    """Return the next hop of each family that `gatewayAddress` makes; none without it."""
    if not conf.ipam.type:
        raise InvalidConfigError("ptp needs an IPAM plugin", 'set ipam.type, as in "host-local"')
    if not conf.gateway_address:
        return {}
    try:
        address = parse_address(conf.gateway_address)
    except ValueError as error:
        raise InvalidConfigError(f"gatewayAddress: {error}") from None
    version = 4 if len(address) == 4 else 6
    if address not in _LINK_LOCAL[version]:
        raise InvalidConfigError(
            f"gatewayAddress: {conf.gateway_address!r} is not in {_LINK_LOCAL[version]}",
            f"take a link-local address, as {format_address(_NEXT_HOPS[version])}",
        )
    return {**_NEXT_HOPS, version: address}


def _plan(result: Result, next_hops: dict[int, bytes]) -> None:
    """Complete the result's gateways, and its default routes when everything goes to a link-local one."""
    for ip in result.ips:
        ip.gateway = _next_hop_of(next_hops.get(ip.address.version, ip.gateway), ip.address)
    if not next_hops:
        return
    with_default = {given.dst.version for given in result.routes if given.dst.length == 0}
    for version in sorted(families(ip.address for ip in result.ips) - with_default):
        hop = next_hops[version]
        result.routes.append(Route(Prefix(bytes(len(hop)), 0), hop))


def _next_hop_of(given: bytes | None, address: Prefix) -> bytes:
    if given is None:
        raise InvalidConfigError(
            f"{address} has no gateway, and ptp has no route without one",
            "give the address a gateway in ipam, or set gatewayAddress",
        )
    return given


def _host_prefix(address: bytes) -> Prefix:
    return Prefix(address, len(address) * 8)


def _container_routes(index: int, result: Result, *, subnets: bool) -> list[route.Route]:
    """Return the container's way to each gateway, and to each subnet by way of its gateway."""
    routes: dict[Prefix, route.Route] = {}
    for ip in result.ips:
        assert ip.gateway is not None
        hop = route.Route(_host_prefix(ip.gateway), None, index)
        beyond = route.Route(ip.address.network(), ip.gateway, index)
        for each in (hop, beyond) if subnets and ip.address.length < ip.address.bits else (hop,):
            each.src = ip.address.address
            routes.setdefault(each.dst, each)
    # A gateway must be reachable before it can be used.
    return sorted(routes.values(), key=lambda each: each.gateway is not None)


def _host_routes(index: int, result: Result) -> list[route.Route]:
    return [route.Route(_host_prefix(ip.address.address), None, index) for ip in result.ips]


def _configure_host(host: Netlink, port: Link, result: Result, conf: PtpConf) -> None:
    """Make the host the gateway: its addresses, the way to the container, forwarding."""
    versions = families(ip.address for ip in result.ips)
    if 6 in versions:
        # Neighbours of forwarded packets are asked for from the link-local address. The one that the kernel
        # will make can be used after two seconds, in which it looks for duplicates; this one at once.
        own = addr.link_local(link.parse_mac(port.mac))
        addr.add(host, port.index, own, flags=addr.flags_for(own))
    if conf.proxy_arp:
        sysctl.write(f"net/ipv4/conf/{port.name}/proxy_arp", "1")
        # Else the kernel waits up to 0.8 s, for others to answer first (arp(7)); there are none.
        sysctl.write(f"net/ipv4/neigh/{port.name}/proxy_delay", "0")
    # A link-local next hop is no source for what the host itself sends to the container.
    scope = route.RT_SCOPE_HOST if conf.gateway_address else route.RT_SCOPE_UNIVERSE
    for address in dict.fromkeys(ip.gateway for ip in result.ips if ip.gateway):
        prefix = _host_prefix(address)
        flags = addr.flags_for(prefix) | addr.IFA_F_NOPREFIXROUTE
        addr.add(host, port.index, prefix, flags=flags, scope=scope)
    for each in _host_routes(port.index, result):
        # The address is this container's now: a route to a dying one, which had it before, must not stay.
        route.add(host, each, replace=True)
    gateway.forward(host, versions)


def _check_host(host: Netlink, interface: Link, result: Result, own: Result, conf: PtpConf) -> None:
    expected = next((each for each in result.interfaces if not each.sandbox), None)
    if expected is None:
        raise CheckFailedError("prevResult has no interface of the host")
    port = verify.present(host, expected.name, "veth")
    if (port.peer, interface.peer) != (interface.index, port.index):
        raise CheckFailedError(f"{port.name!r} is not the other end of {interface.name!r} of the container")
    verify.matches(port, Interface(port.name, expected.mac, expected.mtu or conf.mtu))
    held = addr.of_link(host, port.index)
    for ip in own.ips:
        if ip.gateway and _host_prefix(ip.gateway) not in held:
            raise CheckFailedError(
                f"gateway address {format_address(ip.gateway)} is missing on {port.name!r} of the host"
            )
    verify.own_routes(host, port, _host_routes(port.index, own), "host")
    gateway.check_forwarding(families(ip.address for ip in own.ips))
    if conf.proxy_arp and sysctl.read(f"net/ipv4/conf/{port.name}/proxy_arp") == "0":
        raise CheckFailedError(f"proxy ARP is off on {port.name!r} of the host")


PLUGIN = Plugin("ptp", "PtpConf", add=add, delete=delete, check=check, status=status, gc=gc)
