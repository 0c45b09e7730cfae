"""The gateway's address on the host, which makes a bridge the next hop of its containers."""

from __future__ import annotations

from cni_plugins.address import Prefix, families, shift
from cni_plugins.kernel import addr, link, route, sysctl
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError, ConflictError, InvalidConfigError
from cni_plugins.spec.result import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.netlink import Netlink
    from cni_plugins.spec.result import Result

_EEXIST = 17
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def plan(result: Result, *, default_routes: bool) -> list[Prefix]:
    """Complete the result's gateways and default routes; return the addresses the host must have.

    Args:
        result: what IPAM gave; an address without a gateway gets its subnet's first address as one.
        default_routes: add one for each family, unless IPAM gave one with a next hop.

    Raises:
        InvalidConfigError: IPAM gave one without a next hop: both would be the same route; or a subnet at the
            end of all addresses, in which there is none for a gateway.
    """
    gateways = []
    with_default: set[int] = set()
    for ip in result.ips:
        if ip.gateway is None:
            try:
                ip.gateway = shift(ip.address.first(), 1)
            except OverflowError:
                raise InvalidConfigError(
                    f"{ip.address} has no gateway, and its subnet no address for one",
                    "give the address a gateway in ipam",
                ) from None
        gateway = Prefix(ip.gateway, ip.address.length)
        if gateway not in gateways:
            gateways.append(gateway)
        version = ip.address.version
        if not default_routes or version in with_default:
            continue
        with_default.add(version)
        given = [route for route in result.routes if route.dst.version == version and route.dst.length == 0]
        if any(route.gw is None for route in given):
            raise InvalidConfigError(
                "isDefaultGateway and a default route from IPAM exclude each other",
                "remove the default route from ipam.routes, or isDefaultGateway",
            )
        if not given:
            result.routes.append(Route(Prefix(bytes(len(ip.gateway)), 0), ip.gateway))
    return gateways


def ensure(host: Netlink, target: Link, gateways: list[Prefix], *, force: bool) -> None:
    """Put the gateways' addresses on a link of the host, and let the host forward.

    Args:
        host: the host's namespace.
        target: the bridge, or its VLAN's interface.
        gateways: from `plan`.
        force: replace another address of the family instead of failing.

    Raises:
        ConflictError: the link has another address of the family already.
    """
    if not gateways:
        return
    held = addr.of_link(host, target.index)
    for gateway in gateways:
        if gateway in held:
            continue
        for other in held:
            if other in gateways or not _excludes(other, gateway):
                continue
            if not force:
                raise ConflictError(
                    f"{target.name!r} already has an IP address different from {gateway}: {other}",
                    "set forceAddress to replace it, or name another bridge",
                )
            addr.delete(host, target.index, other)
        try:
            addr.add(host, target.index, gateway, flags=addr.flags_for(gateway))
        except OSError as error:
            if error.errno != _EEXIST:  # else another ADD was faster
                raise
    forward(host, families(gateways))


def forward(host: Netlink, versions: set[int]) -> None:
    """Let the host forward packets of some families, 4 and 6.

    Where it got its own IPv6 default route by a router's advertisement, it goes on listening: else the kernel
    takes that route away at the moment from which it forwards (ip-sysctl.rst, accept_ra).
    """
    for version in versions:
        key = _FORWARDING[version]
        if sysctl.read(key) == "1":
            continue
        if version == 6:
            _go_on_listening(host)
        sysctl.write(key, "1")


def _go_on_listening(host: Netlink) -> None:
    for index in route.advertised_links(host):
        key = f"net/ipv6/conf/{link.get(host, index=index).name}/accept_ra"
        if sysctl.read(key) == "1":
            sysctl.write(key, "2")
            skel.warn(
                f"{key} is 2 now: the host forwards IPv6, and has its default route from a router there"
            )


def check_forwarding(versions: set[int]) -> None:
    """Look whether the host forwards packets of some families.

    Raises:
        CheckFailedError: it does not.
    """
    for version in versions:
        key = _FORWARDING[version]
        if sysctl.read(key) == "0":
            name = key.replace("/", ".")
            raise CheckFailedError(f"forwarding is off: {name} is 0", f"sysctl -w {name}=1")


def _excludes(held: Prefix, wanted: Prefix) -> bool:
    """Tell whether one must go for the other: IPv6 addresses stand side by side unless subnets overlap."""
    return held.version == wanted.version and (held.version == 4 or held.overlaps(wanted))


def check(host: Netlink, target: Link, result: Result) -> None:
    """Compare the link's addresses with the result's gateways.

    Raises:
        CheckFailedError: one is missing, or the host does not forward.
    """
    held = addr.of_link(host, target.index)
    for ip in result.ips:
        if ip.gateway is None:
            continue
        gateway = Prefix(ip.gateway, ip.address.length)
        if gateway not in held:
            raise CheckFailedError(f"gateway address {gateway} is missing on {target.name!r}")
        check_forwarding({gateway.version})
