"""static: gives the addresses that the configuration, or whoever calls, names (CNI 1.1.0, section 4).

It owns nothing and keeps nothing: that an address is given once only is up to who wrote it down.
"""

from __future__ import annotations

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError, InvalidEnvironmentError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import IPConfig, Result, dns_from, route_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.static import StaticAddress, StaticConf, StaticIPAM
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Route


def add(request: Request) -> Result:
    """Return the addresses, routes and DNS settings as they are written."""
    ipam = _ipam(request)
    result = Result()
    result.ips = _addresses(request)
    result.routes = _routes(ipam)
    result.dns = dns_from(ipam.dns)
    return result


def delete(_request: Request) -> None:
    """Do nothing: nothing is kept."""


def check(request: Request) -> None:
    """Look for every address, and its gateway where it has one, in what ADD returned."""
    returned = {ip.address: ip.gateway for ip in request.prev_result.ips} if request.prev_result else {}
    for wanted in _addresses(request):
        if wanted.address not in returned:
            raise CheckFailedError(f"static: address {wanted.address} is not in prevResult")
        gateway = returned[wanted.address]
        if wanted.gateway is not None and gateway != wanted.gateway:
            found = format_address(gateway) if gateway else "none"
            raise CheckFailedError(
                f"static: the gateway of {wanted.address} is {found} in prevResult, "
                f"not {format_address(wanted.gateway)}"
            )


def status(request: Request) -> None:
    """Fail when the configuration is one that an ADD would refuse."""
    ipam = _ipam(request)
    _addresses(request)
    _routes(ipam)


def gc(_request: Request) -> None:
    """Do nothing: nothing is kept."""


def _ipam(request: Request) -> StaticIPAM:
    conf: StaticConf = request.conf
    if conf.ipam is None:
        raise InvalidConfigError("IPAM config missing 'ipam' key")
    return conf.ipam


def _addresses(request: Request) -> list[IPConfig]:
    """Return what to give: the runtime's addresses, else those of `args`, else the others together."""
    conf: StaticConf = request.conf
    ipam = _ipam(request)
    by_environment = _from_environment(request)
    by_args = _listed("args.cni.ips", conf.args.cni.ips)
    by_runtime = _listed("runtimeConfig.ips", conf.runtime_config.ips)
    if by_runtime or by_args:
        return by_runtime or by_args
    configured = [_address(f"ipam.addresses[{index}]", given) for index, given in enumerate(ipam.addresses)]
    return configured + by_environment


def _address(where: str, given: StaticAddress) -> IPConfig:
    try:
        address = Prefix.parse(given.address)
        return IPConfig(address, parse_address(given.gateway) if given.gateway else None)
    except ValueError as error:
        raise InvalidConfigError(f"{where}: {error}", _form(where)) from None


def _listed(where: str, texts: list[str]) -> list[IPConfig]:
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(IPConfig(Prefix.parse(text)))
        except ValueError as error:
            raise InvalidConfigError(f"{where}[{index}]: {error}", _form(where)) from None
    return found


def _form(where: str) -> str:
    return f"{where} takes addresses with a prefix length, as in 10.1.2.3/24"


def _from_environment(request: Request) -> list[IPConfig]:
    """Return CNI_ARGS' addresses, IP, with its gateways, GATEWAY, where they are in an address' subnet."""
    given = request.cni_args()
    found = []
    for text in given["IP"].split(",") if given.get("IP") else ():
        try:
            found.append(IPConfig(Prefix.parse(text.strip())))
        except ValueError as error:
            raise InvalidEnvironmentError(f"CNI_ARGS: IP: {error}", _form("IP")) from None
    for text in given["GATEWAY"].split(",") if given.get("GATEWAY") else ():
        try:
            gateway = parse_address(text.strip())
        except ValueError as error:
            raise InvalidEnvironmentError(f"CNI_ARGS: GATEWAY: {error}") from None
        for ip in found:
            if gateway in ip.address:
                ip.gateway = gateway
    return found


def _routes(ipam: StaticIPAM) -> list[Route]:
    found = []
    for index, given in enumerate(ipam.routes):
        try:
            found.append(route_from(given))
        except ValueError as error:
            raise InvalidConfigError(f"ipam.routes[{index}]: {error}") from None
    return found


PLUGIN = Plugin("static", "StaticConf", add=add, delete=delete, check=check, status=status, gc=gc)
