"""IP addresses and prefixes as bytes: what the kernel speaks, without a module that takes 4 ms to import.

An address is its 4 or 16 bytes in network order; a prefix is an address with a length. `ipaddress` and
netaddr do more and cost more than the whole conversation with the kernel (docs/design.md); tests compare
this module with both.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MAPPED = b"\0" * 10 + b"\xff\xff"


def parse_address(text: str) -> bytes:
    """Return the 4 or 16 bytes of a textual address.

    An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`, RFC 4291 section 2.5.5.2) is its IPv4 address, as the
    reference plugins take it.

    Raises:
        ValueError: the text is no IP address.
    """
    try:
        if ":" in text:
            packed = _socket.inet_pton(_socket.AF_INET6, text)
            return packed[12:] if packed.startswith(_MAPPED) else packed
        return _socket.inet_pton(_socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: a NUL inside; UnicodeEncodeError is one too
        raise ValueError(f"{text!r} is not an IP address") from None


def format_address(address: bytes) -> str:
    """Return the canonical text of 4 or 16 bytes (RFC 5952 for IPv6)."""
    if len(address) == 16 and not any(address[:12]) and any(address[12:14]):
        # inet_ntop writes these (once IPv4-compatible, RFC 4291 section 2.5.5.1) with dots, nobody else does.
        return f"::{int.from_bytes(address[12:14], 'big'):x}:{int.from_bytes(address[14:], 'big'):x}"
    return _socket.inet_ntop(_socket.AF_INET if len(address) == 4 else _socket.AF_INET6, address)


def shift(address: bytes, by: int) -> bytes:
    """Return the address `by` steps away.

    Raises:
        OverflowError: it would leave the address family's space.
    """
    return (int.from_bytes(address, "big") + by).to_bytes(len(address), "big")


class Prefix:
    """An address with a prefix length: an interface address, a subnet or a route's destination."""

    __slots__ = ("address", "length")

    def __init__(self, address: bytes, length: int) -> None:
        self.address = address
        self.length = length

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read CIDR notation, host bits kept ("10.1.2.3/24").

        Raises:
            ValueError: the text is not in CIDR notation.
        """
        head, slash, tail = text.partition("/")
        try:
            address = parse_address(head)
        except ValueError:
            slash = ""
            address = b""
        if not slash or not (tail.isascii() and tail.isdigit()) or len(tail) > 3:
            raise ValueError(f"{text!r} is not an address in CIDR notation")
        length = int(tail)
        if ":" in head and len(address) == 4:
            length -= 96
        if not 0 <= length <= len(address) * 8:
            raise ValueError(f"{text!r} is not an address in CIDR notation")
        return cls(address, length)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.address) == 4 else 6

    @property
    def bits(self) -> int:
        """32 or 128: the length of a host's prefix in this family."""
        return len(self.address) * 8

    def network(self) -> Prefix:
        """Return the prefix with its host bits cleared."""
        return Prefix(self.first(), self.length)

    def first(self) -> bytes:
        """Return the lowest address of the prefix: the network address."""
        host = self.bits - self.length
        return (int.from_bytes(self.address, "big") >> host << host).to_bytes(len(self.address), "big")

    def last(self) -> bytes:
        """Return the highest address of the prefix: the broadcast address in IPv4."""
        host = (1 << (self.bits - self.length)) - 1
        return (int.from_bytes(self.address, "big") | host).to_bytes(len(self.address), "big")

    def __contains__(self, address: bytes) -> bool:
        host = self.bits - self.length
        return len(address) == len(self.address) and (
            int.from_bytes(address, "big") >> host == int.from_bytes(self.address, "big") >> host
        )

    def overlaps(self, other: Prefix) -> bool:
        """Tell whether the two subnets share an address."""
        return self.first() in other or other.first() in self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and (self.address, self.length) == (other.address, other.length)

    def __hash__(self) -> int:
        return hash((self.address, self.length))

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.length}"

    def __repr__(self) -> str:
        return f"Prefix({self})"


def families(prefixes: Iterable[Prefix]) -> set[int]:
    """Return which of 4 and 6 occur."""
    return {prefix.version for prefix in prefixes}
