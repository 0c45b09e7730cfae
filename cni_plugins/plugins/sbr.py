"""sbr: source-based routing in a container with several interfaces (CNI 1.1.0; a chained plugin).

It owns, in the container's namespace, for each address of the interface: a rule that sends packets from it to
a routing table of its own, from 100 up, and the routes of that table, which are moved there from the main
table. With `table` there are only the rules. DEL removes the rules; the routes go with the interface.
"""

from __future__ import annotations

import errno

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import addr, link, route, rule
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace, find_namespace
from cni_plugins.kernel.rule import Rule
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError, NotAvailableError
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import owner, verify
    from cni_plugins.config.sbr import SbrConf
    from cni_plugins.kernel.route import Route
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import IPConfig, Result
else:
    owner = Lazy("cni_plugins.attach.owner")
    verify = Lazy("cni_plugins.attach.verify")

_FIRST_TABLE = 100
_NAMED_TABLES = (253, 254, 255)
"""default, main and local, whether they hold routes or not."""
_FAMILIES = {4: addr.AF_INET, 6: addr.AF_INET6}
_LINK_LOCAL = Prefix(b"\xfe\x80" + bytes(14), 64)


def add(request: Request) -> Result:
    """Make the rules, and tables for them; return the result before this plugin, unchanged."""
    conf: SbrConf = request.conf
    result = request.prev_result
    if result is None:
        raise InvalidConfigError(
            "This plugin must be called as chained plugin",
            "list sbr after the plugin that makes the interface",
        )
    gateways = _gateways(conf)
    ips = _addresses(request, result)
    with Namespace(request.netns) as netns, netns.netlink() as inside, Undo() as undo:
        netns.lock()  # two calls at once would take the same tables
        if conf.table is not None:
            for ip in ips:
                _add_rule(inside, ip, conf.table, undo)
        else:
            _move(
                inside,
                link.get(inside, request.ifname).index,
                ips,
                gateways,
                undo,
                hints=conf.add_source_hints,
            )
    return result


def delete(request: Request) -> None:
    """Delete the rules for the interface's addresses, which prevResult knows when the interface is gone."""
    conf: SbrConf = request.conf
    netns = find_namespace(request.netns) if request.netns else None
    if netns is None:
        return  # the rules went with the namespace
    teardown = Teardown()
    with netns, netns.netlink() as inside:
        netns.lock()
        found = link.find(inside, request.ifname)
        if found is not None and owner.is_anothers(request, found):
            return
        held = addr.of_link(inside, found.index) if found else []
        sources = {_host(prefix) for prefix in held}
        if request.prev_result is not None:
            sources |= {_host(ip.address) for ip in _own(request, request.prev_result)}
        for each in rule.rules(inside):
            if each.source in sources and conf.table in (None, each.table):
                teardown.step(rule.delete, inside, each)
    teardown.finish()


def check(request: Request) -> None:
    """Look for each address's rule, and in its table for the routes that the result speaks of."""
    conf: SbrConf = request.conf
    result = verify.previous(request)
    gateways = _gateways(conf)
    ips = _addresses(request, result)
    with Namespace(request.netns) as netns, netns.netlink() as inside:
        index = verify.present(inside, request.ifname, where="container").index
        rules = rule.rules(inside)
        held = [each for family in _FAMILIES.values() for each in route.of_link(inside, index, family)]
    seen: list[Route] = []
    for ip in ips:
        source = _host(ip.address)
        tables = [each.table for each in rules if each.source == source and conf.table in (None, each.table)]
        if not tables:
            raise CheckFailedError(f"the rule for packets from {source} is missing")
        if conf.table is None:
            seen += _check_table(ip, gateways, [each for each in held if each.table == tables[0]])
    if conf.table is not None:
        return
    for given in result.routes:
        if given.table is None and given.dst.version in {ip.address.version for ip in ips}:
            dst = given.dst.network()
            if not any(each.dst == dst for each in seen):
                raise CheckFailedError(f"route {dst} is missing in the tables of {request.ifname!r}")
    if conf.add_source_hints:
        for subnet, source_address in _hints(ips).items():
            if not any(
                (each.table, each.dst, each.src) == (route.RT_TABLE_MAIN, subnet, source_address)
                for each in held
            ):
                raise CheckFailedError(
                    f"route {subnet} from {format_address(source_address)} is missing in the main table"
                )


def status(_request: Request) -> None:
    """The kernel must have routing rules."""
    with Netlink() as host:
        try:
            rule.rules(host)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise NotAvailableError(
                f"the kernel has no routing rules: {error.strerror}",
                "take a kernel with CONFIG_IP_MULTIPLE_TABLES, or the plugin out of the list",
            ) from None


def gc(_request: Request) -> None:
    """Nothing outlives the namespace."""


def _gateways(conf: SbrConf) -> dict[int, bytes]:
    """Return the configured next hops by family."""
    if len(conf.gateways) > len(_FAMILIES):
        raise InvalidConfigError("gateways list cannot contain more than 2 entries (one IPv4, one IPv6)")
    found: dict[int, bytes] = {}
    for text in conf.gateways:
        try:
            address = parse_address(text)
        except ValueError:
            raise InvalidConfigError(f"invalid static gateway IP address: {text!r}") from None
        version = 4 if len(address) == 4 else 6
        if version in found:
            raise InvalidConfigError(f"gateways list contains multiple IPv{version} addresses")
        found[version] = address
    return found


def _addresses(request: Request, result: Result) -> list[IPConfig]:
    if not result.ips:
        raise InvalidConfigError(f"No IP addresses supplied on interface: {request.ifname}")
    return _own(request, result)


def _own(request: Request, result: Result) -> list[IPConfig]:
    """Return the result's addresses, except those of interfaces with another name."""
    return [
        ip
        for ip in result.ips
        if ip.interface is None
        or not 0 <= ip.interface < len(result.interfaces)
        or result.interfaces[ip.interface].name == request.ifname
    ]


def _host(prefix: Prefix) -> Prefix:
    return Prefix(prefix.address, prefix.bits)


def _add_rule(inside: Netlink, ip: IPConfig, table: int, undo: Undo) -> None:
    made = Rule(_host(ip.address), table)
    with undo.made(rule.delete, inside, made):
        rule.add(inside, made)


def _move(
    inside: Netlink,
    index: int,
    ips: list[IPConfig],
    gateways: dict[int, bytes],
    undo: Undo,
    *,
    hints: bool,
) -> None:
    """Give each address its table, then take the routes from the main table.

    In this order a next hop can always be looked up in the main table.
    """
    main = {
        version: [
            each
            for each in route.of_link(inside, index, _FAMILIES[version])
            if each.table == route.RT_TABLE_MAIN
        ]
        for version in {ip.address.version for ip in ips}
    }
    used = {each.table for each in rule.rules(inside)} | route.tables(inside) | set(_NAMED_TABLES)
    table = _FIRST_TABLE
    for ip in ips:
        while table in used:
            table += 1
        used.add(table)
        version = ip.address.version
        subnets = [each.address for each in ips if each.address.version == version]
        wanted = [each for each in main[version] if _belongs(each, ip.address, subnets)]
        wanted = _with_default(wanted, ip, gateways.get(version), index)
        for each in sorted(wanted, key=lambda one: one.gateway is not None):
            moved = _at(each, table)
            with undo.made(route.delete, inside, moved):
                route.add(inside, moved, replace=True)
        _add_rule(inside, ip, table, undo)
    leaving = [each for routes in main.values() for each in routes if each.dst != _LINK_LOCAL]
    if hints:
        _keep_subnets(inside, index, ips, leaving)
        leaving = [each for each in leaving if each.gateway is not None]
    # Next hops last when it is undone: first what they are reached by.
    for each in sorted(leaving, key=lambda one: one.gateway is None):
        with undo.made(_put_back, inside, each):
            route.delete(inside, each)


def _put_back(inside: Netlink, each: Route) -> None:
    route.add(inside, each, replace=True)


def _belongs(each: Route, address: Prefix, subnets: list[Prefix]) -> bool:
    """Tell whether a route belongs in an address's table.

    Its source or next hop may tie a route to one subnet; a route that is tied to none goes into every table.
    """
    by = [point for point in (each.src, each.gateway) if point is not None]
    return any(point in address for point in by) or not any(
        point in subnet for point in by for subnet in subnets
    )


def _with_default(wanted: list[Route], ip: IPConfig, static: bytes | None, index: int) -> list[Route]:
    """Return the routes, with a default route if there is a gateway; a configured gateway is preferred."""
    defaults = [each for each in wanted if each.dst.length == 0]
    gateway = static or ip.gateway
    if gateway is None or any(each.gateway == gateway for each in defaults) or (defaults and not static):
        return wanted
    default = route.Route(Prefix(bytes(len(gateway)), 0), gateway, index)
    return [*(each for each in wanted if each.dst.length), default]


def _at(each: Route, table: int) -> Route:
    moved = route.Route(each.dst, each.gateway, each.link, scope=each.scope)
    moved.priority, moved.mtu, moved.advmss, moved.src = each.priority, each.mtu, each.advmss, each.src
    moved.table = table
    return moved


def _hints(ips: list[IPConfig]) -> dict[Prefix, bytes]:
    """Return each subnet with the first address in it."""
    found: dict[Prefix, bytes] = {}
    for ip in ips:
        if ip.address.length < ip.address.bits:
            found.setdefault(ip.address.network(), ip.address.address)
    return found


def _keep_subnets(inside: Netlink, index: int, ips: list[IPConfig], main: list[Route]) -> None:
    for subnet, source in _hints(ips).items():
        existing = next((each for each in main if each.dst == subnet and each.gateway is None), None)
        kept = _at(existing or route.Route(subnet, None, index), route.RT_TABLE_MAIN)
        kept.src = source
        route.add(inside, kept, replace=True)


def _check_table(ip: IPConfig, gateways: dict[int, bytes], held: list[Route]) -> list[Route]:
    """Return the routes of an address's table; its default route and that to the subnet must be there."""
    version = ip.address.version
    gateway = gateways.get(version) or ip.gateway
    source = _host(ip.address)
    own = [each for each in held if each.dst.version == version]
    if gateway is not None and not any(each.dst.length == 0 and each.gateway == gateway for each in own):
        raise CheckFailedError(
            f"the table for packets from {source} has no default route via {format_address(gateway)}"
        )
    # A next hop outside the subnet is that of a routed network: there the subnet is not on the link.
    on_link = ip.address.length < ip.address.bits and (ip.gateway is None or ip.gateway in ip.address)
    if on_link and not any(each.dst == ip.address.network() for each in own):
        raise CheckFailedError(f"the table for packets from {source} has no route to {ip.address.network()}")
    return own


PLUGIN = Plugin("sbr", "SbrConf", add=add, delete=delete, check=check, status=status, gc=gc)
