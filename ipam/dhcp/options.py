"""The options that a network's configuration sends and asks for (RFC 2132; names of dhcp-options(5))."""

from __future__ import annotations

from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.dhcp import DhcpIPAM

SUBNET_MASK, ROUTERS, DNS_SERVERS, HOST_NAME, DOMAIN_NAME = 1, 3, 6, 12, 15
STATIC_ROUTES, DOMAIN_SEARCH, CLASSLESS_ROUTES, MS_CLASSLESS_ROUTES = 33, 119, 121, 249
REQUESTED_ADDRESS, LEASE_TIME, OVERLOAD, MESSAGE_TYPE, SERVER_ID = 50, 51, 52, 53, 54
PARAMETER_LIST, MESSAGE, MAX_SIZE, RENEWAL_TIME, REBINDING_TIME, CLIENT_ID = 55, 56, 57, 58, 59, 61

NAMES = {
    "dhcp-client-identifier": CLIENT_ID,
    "subnet-mask": SUBNET_MASK,
    "routers": ROUTERS,
    "host-name": HOST_NAME,
    "user-class": 77,
    "vendor-class-identifier": 60,
    # Those above are the reference's.
    "domain-name-servers": DNS_SERVERS,
    "domain-name": DOMAIN_NAME,
    "domain-search": DOMAIN_SEARCH,
    "static-routes": STATIC_ROUTES,
    "rfc3442-classless-static-routes": CLASSLESS_ROUTES,
}
DEFAULT_REQUEST = (ROUTERS, SUBNET_MASK)
_MAX_VALUE = 255
_END = 255
_OURS = (REQUESTED_ADDRESS, OVERLOAD, MESSAGE_TYPE, SERVER_ID)
"""Options that carry the conversation itself: another value would end it."""


def prepare(ipam: DhcpIPAM, cni_args: str) -> tuple[dict[int, bytes], list[int]]:
    """Return the options to send, and the numbers of those to ask for.

    Args:
        ipam: the configuration.
        cni_args: CNI_ARGS, whose keys `fromArg` names.

    Raises:
        InvalidConfigError: there is no such option, or its value is too long.
    """
    given = {}
    for pair in cni_args.split(";"):
        key, equals, value = pair.partition("=")
        if equals:
            given[key] = value
    provide = {}
    for index, item in enumerate(ipam.provide):
        number = _number(f"ipam.provide[{index}]", item.option)
        if number in _OURS:
            raise InvalidConfigError(f"ipam.provide[{index}]: option {number} is the protocol's own")
        for text in (item.value, given.get(item.from_arg, "") if item.from_arg else ""):
            data = text.encode("utf-8", "surrogateescape")
            if len(data) > _MAX_VALUE:
                raise InvalidConfigError(f"ipam.provide[{index}]: a value of more than {_MAX_VALUE} bytes")
            if data:
                provide[number] = data
    request = [
        _number(f"ipam.request[{index}]", item.option)
        for index, item in enumerate(ipam.request)
        if item.option
    ]
    if not any(item.skip_default for item in ipam.request):
        request += DEFAULT_REQUEST
    return provide, list(dict.fromkeys(request))


def _number(where: str, option: str) -> int:
    if option in NAMES:
        return NAMES[option]
    if option.isascii() and option.isdigit() and 0 < int(option) < _END:
        return int(option)
    raise InvalidConfigError(
        f"{where}: {option!r} is no DHCP option", f"take a number up to 254, or one of {', '.join(NAMES)}"
    )
