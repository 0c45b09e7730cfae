"""Results, and their conversion from and to every version of the specification (section 5, "Success")."""

from __future__ import annotations

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.spec.errors import IncompatibleVersionError, InvalidConfigError
from cni_plugins.spec.schema import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The versions of the specification that every plugin speaks, oldest first."""
OLD = ("0.1.0", "0.2.0")
"""Versions whose result has one address a family and no interfaces."""
WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")
"""Versions whose addresses carry their family."""


class Interface:
    """An interface made for the attachment; without a sandbox it is on the host."""

    __slots__ = ("mac", "mtu", "name", "pci_id", "sandbox", "socket_path")

    def __init__(self, name: str, mac: str = "", mtu: int = 0, sandbox: str = "") -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.sandbox = sandbox
        self.socket_path = ""
        self.pci_id = ""


class IPConfig:
    """An address of the attachment; `interface` is an index into the result's interfaces."""

    __slots__ = ("address", "gateway", "interface")

    def __init__(self, address: Prefix, gateway: bytes | None = None, interface: int | None = None) -> None:
        self.address = address
        self.gateway = gateway
        self.interface = interface


class Route:
    """A route of the container. Metrics that are 0, or None, are not set."""

    __slots__ = ("advmss", "dst", "gw", "mtu", "priority", "scope", "table")

    def __init__(self, dst: Prefix, gw: bytes | None = None) -> None:
        self.dst = dst
        self.gw = gw
        self.mtu = 0
        self.advmss = 0
        self.priority = 0
        self.table: int | None = None
        self.scope: int | None = None


class DNS:
    """DNS settings of a container."""

    __slots__ = ("domain", "nameservers", "options", "search")

    def __init__(
        self,
        nameservers: list[str] | None = None,
        domain: str = "",
        search: list[str] | None = None,
        options: list[str] | None = None,
    ) -> None:
        self.nameservers = nameservers or []
        self.domain = domain
        self.search = search or []
        self.options = options or []

    def to_json(self) -> dict[str, Any]:
        """Return the keys that are not empty."""
        keys = ("nameservers", "domain", "search", "options")
        return {key: getattr(self, key) for key in keys if getattr(self, key)}


class Result:
    """What an ADD made: interfaces, addresses, routes, DNS."""

    __slots__ = ("dns", "interfaces", "ips", "routes")

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        self.ips: list[IPConfig] = []
        self.routes: list[Route] = []
        self.dns = DNS()

    def to_json(self, version: str) -> dict[str, Any]:
        """Return the result in a version's shape.

        Raises:
            IncompatibleVersionError: that version cannot say it (several addresses of a family, or none,
                before 0.3.0).
        """
        if version in OLD:
            return self._to_old(version)
        body: dict[str, Any] = {"cniVersion": version}
        newest = version == VERSIONS[-1]
        if self.interfaces:
            body["interfaces"] = [_interface_json(interface, newest=newest) for interface in self.interfaces]
        if self.ips:
            body["ips"] = [_ip_json(ip, with_version=version in WITH_IP_VERSION) for ip in self.ips]
        if self.routes:
            body["routes"] = [_route_json(route, newest=newest) for route in self.routes]
        dns = self.dns.to_json()
        if dns:
            body["dns"] = dns
        return body

    def _to_old(self, version: str) -> dict[str, Any]:
        body: dict[str, Any] = {"cniVersion": version}
        for ip in self.ips:
            family = ip.address.version
            if f"ip{family}" in body:
                raise IncompatibleVersionError(
                    f"CNI version {version} does not support more than 1 address per family",
                    "give the network a cniVersion of 0.3.0 or later",
                )
            old: dict[str, Any] = {"ip": str(ip.address)}
            if ip.gateway is not None:
                old["gateway"] = format_address(ip.gateway)
            routes = [
                _route_json(route, newest=False) for route in self.routes if route.dst.version == family
            ]
            if routes:
                old["routes"] = routes
            body[f"ip{family}"] = old
        if len(body) == 1:
            raise IncompatibleVersionError(
                f"cannot convert: no valid IP addresses, and CNI version {version} has no result without one",
                "give the network a cniVersion of 0.3.0 or later",
            )
        dns = self.dns.to_json()
        if dns:
            body["dns"] = dns
        return body

    @classmethod
    def from_json(cls, data: Any, default_version: str, where: str = "prevResult") -> Result:
        """Read a result in any supported version.

        Args:
            data: the decoded result.
            default_version: its version when it does not say: the configuration's.
            where: what the result is, for messages.

        Raises:
            InvalidConfigError: it is no result.
            IncompatibleVersionError: its version is not one of VERSIONS.
        """
        if not isinstance(data, dict):
            raise InvalidConfigError(f"{where} must be an object")
        version = data.get("cniVersion") or default_version
        if version not in VERSIONS:
            raise IncompatibleVersionError(
                f"{where}: unsupported CNI result version {version!r}",
                f"supported are: {', '.join(VERSIONS)}",
            )
        try:
            return cls._from_old(data, where) if version in OLD else cls._from_new(data, where)
        except ValueError as error:
            raise InvalidConfigError(f"{where}: {error}") from None

    @classmethod
    def _from_new(cls, data: Any, where: str) -> Result:
        model = validate("ResultModel", data, where)
        result = cls()
        for given in model.interfaces:
            interface = Interface(given.name, given.mac, given.mtu, given.sandbox)
            interface.socket_path = given.socket_path
            interface.pci_id = given.pci_id
            result.interfaces.append(interface)
        for given in model.ips:
            gateway = parse_address(given.gateway) if given.gateway else None
            result.ips.append(IPConfig(Prefix.parse(given.address), gateway, given.interface))
        result.routes = [route_from(given) for given in model.routes]
        result.dns = dns_from(model.dns)
        return result

    @classmethod
    def _from_old(cls, data: Any, where: str) -> Result:
        model = validate("OldResultModel", data, where)
        result = cls()
        for given in (model.ip4, model.ip6):
            if given is not None:
                gateway = parse_address(given.gateway) if given.gateway else None
                result.ips.append(IPConfig(Prefix.parse(given.ip), gateway))
                result.routes += [route_from(route) for route in given.routes]
        result.dns = dns_from(model.dns)
        return result


def route_from(given: Any) -> Route:
    """Make a Route of a validated one.

    Raises:
        ValueError: its destination or its next hop is no address.
    """
    route = Route(Prefix.parse(given.dst), parse_address(given.gw) if given.gw else None)
    route.mtu, route.advmss, route.priority = given.mtu, given.advmss, given.priority
    route.table, route.scope = given.table, given.scope
    return route


def dns_from(given: Any) -> DNS:
    """Make a DNS of a validated one."""
    return DNS(list(given.nameservers), given.domain, list(given.search), list(given.options))


def _interface_json(interface: Interface, *, newest: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"name": interface.name}
    if interface.mac:
        body["mac"] = interface.mac
    if newest and interface.mtu:
        body["mtu"] = interface.mtu
    if interface.sandbox:
        body["sandbox"] = interface.sandbox
    if newest and interface.socket_path:
        body["socketPath"] = interface.socket_path
    if newest and interface.pci_id:
        body["pciID"] = interface.pci_id
    return body


def _ip_json(ip: IPConfig, *, with_version: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if with_version:
        body["version"] = str(ip.address.version)
    if ip.interface is not None:
        body["interface"] = ip.interface
    body["address"] = str(ip.address)
    if ip.gateway is not None:
        body["gateway"] = format_address(ip.gateway)
    return body


def _route_json(route: Route, *, newest: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        body["gw"] = format_address(route.gw)
    if newest:
        for key in ("mtu", "advmss", "priority"):
            if getattr(route, key):
                body[key] = getattr(route, key)
        for key in ("table", "scope"):
            if getattr(route, key) is not None:
                body[key] = getattr(route, key)
    return body
