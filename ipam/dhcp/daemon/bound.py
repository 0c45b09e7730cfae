"""What a server's acknowledgement gives: an address, for how long, and what goes with it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_plugins.address import Prefix, format_address
from cni_plugins.spec.result import DNS, IPConfig, Result, Route
from ipam.dhcp import options as opt

if TYPE_CHECKING:
    from ipam.dhcp.daemon.packet import Message

_FOREVER = 0xFFFFFFFF
_DEFAULT_LEASE = 3600.0
"""Seconds, for a server that does not say: the reference's choice."""
_T1, _T2 = 0.5, 0.875
_FUZZ = 0.05
_SHORTEST = 1.0
"""Seconds between two renewals at least, whatever a server says."""
_LINK = 253
_POINTER = 0xC0
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Bound:
    """A lease as the server gave it.

    Attributes:
        message: the acknowledgement.
        server: the address of the server.
        hardware: the hardware address it came from: the server's, or the last router's.
        start: when it was asked for, on the clock of `until`.
        renewal: when to ask that server for more time (T1); infinite for a lease that does not end.
        rebinding: when to ask every server (T2).
        expiry: when the address must no longer be used.
    """

    message: Message
    server: bytes
    hardware: bytes
    start: float
    renewal: float
    rebinding: float
    expiry: float

    @classmethod
    def of(cls, message: Message, hardware: bytes, start: float) -> Bound:
        """Return the lease of an acknowledgement (RFC 2131, section 4.4.5).

        Args:
            message: the acknowledgement.
            hardware: where it came from.
            start: when the request was sent that it answers.

        Raises:
            ValueError: its address is one that no host can have.
        """
        if not usable(message.yiaddr):
            raise ValueError(f"the server gave {format_address(message.yiaddr)}")
        server = _address(message, opt.SERVER_ID) or bytes(4)
        lease = _seconds(message, opt.LEASE_TIME)
        if lease is None:
            lease = _DEFAULT_LEASE
        if math.isinf(lease):
            return cls(message, server, hardware, start, math.inf, math.inf, math.inf)
        lease = max(lease, 2 * _SHORTEST)
        t2 = _seconds(message, opt.REBINDING_TIME)
        if t2 is None or not 0 < t2 < lease:
            t2 = lease * _T2
        t1 = _seconds(message, opt.RENEWAL_TIME)
        if t1 is None or not 0 < t1 <= t2:
            t1 = min(lease * _T1, t2)
        # Containers that were started together shall not renew together.
        t1 = max(_SHORTEST, t1 * random.uniform(1 - _FUZZ, 1))  # noqa: S311 (no secret)
        return cls(message, server, hardware, start, start + t1, start + max(t1, t2), start + lease)

    @property
    def address(self) -> Prefix:
        """The address and its subnet's length; without a usable mask, that of its class."""
        mask = int.from_bytes(_address(self.message, opt.SUBNET_MASK) or bytes(4), "big")
        ones = mask.bit_count()
        contiguous = mask == (0xFFFFFFFF << (32 - ones)) & 0xFFFFFFFF
        length = ones if ones and contiguous else _class_length(self.message.yiaddr)
        return Prefix(self.message.yiaddr, length)

    @property
    def router(self) -> bytes | None:
        """The first router."""
        value = self.message.options.get(opt.ROUTERS, b"")
        return value[:4] if len(value) >= 4 and any(value[:4]) else None

    def result(self, priority: int = 0) -> Result:
        """Return what the interface plugin is to be told.

        Args:
            priority: the metric of the routes; 0: the kernel's.
        """
        result = Result()
        result.ips = [IPConfig(self.address, self.router)]
        result.routes = self._routes()
        for route in result.routes:
            route.priority = priority
        servers = self.message.options.get(opt.DNS_SERVERS, b"")
        result.dns = DNS(
            [format_address(servers[at : at + 4]) for at in range(0, len(servers) - 3, 4)],
            _text(self.message.options.get(opt.DOMAIN_NAME, b"")),
            domain_search(self.message.options.get(opt.DOMAIN_SEARCH, b"")),
        )
        return result

    def _routes(self) -> list[Route]:
        given = self.message.options
        for number in (opt.CLASSLESS_ROUTES, opt.MS_CLASSLESS_ROUTES):
            # RFC 3442: then the other two do not count.
            if routes := classless_routes(given.get(number, b"")):
                return routes
        static = given.get(opt.STATIC_ROUTES, b"")
        routes = []
        for at in range(0, len(static) - 7, 8):
            target, gateway = static[at : at + 4], static[at + 4 : at + 8]
            if any(target):  # RFC 2132, section 5.8: the default route is not said here
                routes.append(Route(Prefix(target, _class_length(target)).network(), gateway))
        if self.router is not None:
            routes.append(Route(Prefix(bytes(4), 0), self.router))
        return routes


def usable(address: bytes) -> bool:
    """Tell whether a host can have an address: not 0/8, loopback, multicast or broadcast."""
    return address[0] not in (0, 127) and address[0] < 224


def classless_routes(value: bytes) -> list[Route]:
    """Return the routes of RFC 3442; none when the value is malformed."""
    routes = []
    at = 0
    while at < len(value):
        length = value[at]
        octets = (length + 7) // 8
        end = at + 1 + octets + 4
        if length > 32 or end > len(value):
            return []
        target = Prefix(value[at + 1 : at + 1 + octets].ljust(4, b"\0"), length).network()
        route = Route(target, value[end - 4 : end])
        if not any(value[end - 4 : end]):
            route.scope = _LINK  # the reference leaves 0.0.0.0 there, too, for versions without scope
        routes.append(route)
        at = end
    return routes


def domain_search(value: bytes) -> list[str]:
    """Return the domains of RFC 3397; as many as can be read."""
    names = []
    at = 0
    while at < len(value):
        read = _domain(value, at)
        if read is None:
            break
        name, at = read
        if name:
            names.append(name)
    return names


def _domain(value: bytes, start: int) -> tuple[str, int] | None:
    """Return the name at a place and the place after it; None when it is malformed."""
    labels: list[str] = []
    at, after, size = start, -1, 0
    while at < len(value):
        length = value[at]
        if length == 0:
            return ".".join(labels), at + 1 if after < 0 else after
        if length & _POINTER == _POINTER:
            if at + 1 >= len(value):
                return None
            target = (length & ~_POINTER) << 8 | value[at + 1]
            if target >= at:  # only backwards, so that it comes to an end
                return None
            after = at + 2 if after < 0 else after
            at = target
            continue
        size += length + 1
        label = value[at + 1 : at + 1 + length]
        if length & _POINTER or size > _MAX_NAME or len(label) < length:
            return None
        labels.append(_text(label))
        at += 1 + length
    return None


def _text(value: bytes) -> str:
    """Return printable ASCII; a server's word must not reach a file or a terminal otherwise."""
    return "".join(chr(byte) for byte in value if 0x20 < byte < 0x7F)


def _address(message: Message, number: int) -> bytes | None:
    value = message.options.get(number, b"")
    return value if len(value) == 4 else None


def _seconds(message: Message, number: int) -> float | None:
    value = message.options.get(number, b"")
    if len(value) != 4:
        return None
    seconds = int.from_bytes(value, "big")
    return math.inf if seconds == _FOREVER else float(seconds)


def _class_length(address: bytes) -> int:
    first = address[0]
    return 8 if first < 128 else 16 if first < 192 else 24
