"""CHECK's comparisons of the kernel with what ADD returned (CNI 1.1.0, section 2, "CHECK")."""

from __future__ import annotations

from cni_plugins.address import families, format_address
from cni_plugins.kernel import addr, link, route
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.netlink import Netlink
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Interface, Result


def previous(request: Request) -> Result:
    """Return prevResult, which a CHECK always has.

    Raises:
        InvalidConfigError: it is missing.
    """
    if request.prev_result is None:
        raise InvalidConfigError("required prevResult missing")
    return request.prev_result


def container_interface(request: Request, result: Result) -> tuple[int, Interface]:
    """Return the container's interface in the result, and its index there.

    Raises:
        CheckFailedError: the result has none of that name in that sandbox.
    """
    for index, interface in enumerate(result.interfaces):
        if interface.name == request.ifname and interface.sandbox:
            if interface.sandbox != request.netns:
                raise CheckFailedError(
                    f"sandbox in prevResult {interface.sandbox} doesn't match CNI_NETNS {request.netns}"
                )
            return index, interface
    raise CheckFailedError(f"prevResult has no container interface {request.ifname!r}")


def present(nl: Netlink, name: str, kind: str = "", where: str = "host") -> Link:
    """Return a link that must exist and be up.

    Raises:
        CheckFailedError: it is not there, is of another kind, or is down.
    """
    found = link.find(nl, name)
    if found is None:
        raise CheckFailedError(f"interface {name!r} of the {where} is gone")
    if kind and found.kind != kind:
        raise CheckFailedError(
            f"interface {name!r} of the {where} is a {found.kind or 'device'}, not a {kind}"
        )
    if not found.is_up:
        raise CheckFailedError(f"interface {name!r} of the {where} is down")
    return found


def matches(found: Link, expected: Interface) -> None:
    """Compare a link's MAC address and MTU with the result's, where it has them.

    Raises:
        CheckFailedError: they differ.
    """
    if expected.mac and expected.mac.lower() != found.mac:
        raise CheckFailedError(f"interface {found.name!r} has MAC address {found.mac}, not {expected.mac}")
    if expected.mtu and expected.mtu != found.mtu:
        raise CheckFailedError(f"interface {found.name!r} has MTU {found.mtu}, not {expected.mtu}")


def addresses(nl: Netlink, found: Link, index: int, result: Result) -> None:
    """Compare a link's addresses with those the result gives to its interface number `index`.

    Raises:
        CheckFailedError: one is missing.
    """
    held = addr.of_link(nl, found.index)
    for ip in result.ips:
        if (ip.interface is None or ip.interface == index) and ip.address not in held:
            raise CheckFailedError(f"address {ip.address} is missing on interface {found.name!r}")


def own_routes(nl: Netlink, found: Link, wanted: Sequence[route.Route], where: str = "container") -> None:
    """Look for routes that a plugin made over a link.

    Raises:
        CheckFailedError: one is missing.
    """
    held = {
        version: route.of_link(nl, found.index, addr.AF_INET if version == 4 else addr.AF_INET6)
        for version in families(each.dst for each in wanted)
    }
    for each in wanted:
        dst = each.dst.network()
        if not any(
            (seen.dst, seen.gateway) == (dst, each.gateway) and _in_table(seen, each.table)
            for seen in held[dst.version]
        ):
            via = f" via {format_address(each.gateway)}" if each.gateway else ""
            raise CheckFailedError(f"route {dst}{via} is missing on interface {found.name!r} of the {where}")


def _in_table(seen: route.Route, table: int) -> bool:
    """Tell whether a route is where a plugin put it: sbr and vrf move those of the main table to others."""
    return table in (seen.table, route.RT_TABLE_MAIN)


def routes(nl: Netlink, found: Link, result: Result) -> None:
    """Look for the result's routes over a link. Others may have come from later plugins.

    Raises:
        CheckFailedError: one is missing.
    """
    held = {
        version: route.of_link(nl, found.index, addr.AF_INET if version == 4 else addr.AF_INET6)
        for version in {given.dst.version for given in result.routes}
    }
    gateways: dict[int, bytes | None] = {}
    for ip in result.ips:
        gateways.setdefault(ip.address.version, ip.gateway)
    for given in result.routes:
        version = given.dst.version
        gateway = given.gw or gateways.get(version)
        table = given.table if given.table is not None else route.RT_TABLE_MAIN
        dst = given.dst.network()
        if not any(
            seen.dst == dst
            and _in_table(seen, table)
            and (gateway is None or seen.gateway == gateway or given.scope == route.RT_SCOPE_LINK)
            and (not given.priority or seen.priority == given.priority)
            for seen in held[version]
        ):
            via = f" via {format_address(gateway)}" if gateway else ""
            raise CheckFailedError(f"route {given.dst}{via} is missing on interface {found.name!r}")
