"""Ranges and range sets: which addresses host-local may give, in which order.

A range is a stretch of one subnet; a range set is a list of ranges of one family, and an ADD gets one address
from each set.
"""

from __future__ import annotations

from cni_plugins.address import Prefix, format_address, parse_address, shift
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_HOST_BITS = 2
"""A subnet needs a gateway and one more address, besides those of network and broadcast."""


class Range:
    """Addresses from `start` to `end`, both included, of a subnet, without its gateway.

    Args:
        given: the validated `Range` of the configuration: texts, empty when absent. The subnet's host bits
            are cleared; start, end and gateway default to its first, last and first host address.

    Raises:
        ValueError: an address is none, or is outside the subnet, or the subnet is too small.
    """

    __slots__ = ("end", "gateway", "start", "subnet")

    def __init__(self, given: Any) -> None:
        if not given.subnet:
            raise ValueError("a range needs a subnet")
        self.subnet = subnet = Prefix.parse(given.subnet).network()
        if subnet.bits - subnet.length < _HOST_BITS:
            raise ValueError(f"network {subnet} too small to allocate from")
        first = shift(subnet.address, 1)
        # The last address of an IPv4 subnet is its broadcast address; IPv6 has none.
        last = shift(subnet.last(), -1) if subnet.version == 4 else subnet.last()
        self.gateway = self._member(given.gateway, "gateway") if given.gateway else first
        self.start = self._member(given.range_start, "rangeStart") if given.range_start else first
        self.end = self._member(given.range_end, "rangeEnd") if given.range_end else last
        if self.end < self.start:
            raise ValueError(
                f"{format_address(self.end)} is in network {subnet} but before start "
                f"{format_address(self.start)}"
            )

    def _member(self, text: str, key: str) -> bytes:
        address = parse_address(text)
        if len(address) != len(self.subnet.address):
            raise ValueError(f"{key} {text} is not the same protocol as subnet {self.subnet}")
        if address not in self.subnet:
            raise ValueError(f"{key} {text} not in network {self.subnet}")
        return address

    def __contains__(self, address: bytes) -> bool:
        # Bytes of one length compare as the numbers they are.
        return len(address) == len(self.start) and self.start <= address <= self.end

    def size(self) -> int:
        """Return how many addresses can be given."""
        size = int.from_bytes(self.end, "big") - int.from_bytes(self.start, "big") + 1
        return size - (self.gateway in self)

    def overlaps(self, other: Range) -> bool:
        """Tell whether the two share an address."""
        return len(self.start) == len(other.start) and self.start <= other.end and other.start <= self.end

    def __str__(self) -> str:
        return f"{format_address(self.start)}-{format_address(self.end)}"


class RangeSet:
    """Ranges of one family; one address is given from all of them together.

    Raises:
        ValueError: the list is empty, mixes families, or two of its ranges share an address.
    """

    __slots__ = ("ranges",)

    def __init__(self, given: list[Any]) -> None:
        if not given:
            raise ValueError("empty range set")
        self.ranges = [Range(item) for item in given]
        if len({item.subnet.version for item in self.ranges}) > 1:
            raise ValueError("mixed address families")
        for position, one in enumerate(self.ranges):
            for other in self.ranges[position + 1 :]:
                if one.overlaps(other):
                    raise ValueError(f"ranges {one} and {other} overlap")

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ranges[0].subnet.version

    def range_of(self, address: bytes) -> Range | None:
        """Return the range that has the address."""
        for item in self.ranges:
            if address in item:
                return item
        return None

    def size(self) -> int:
        """Return how many addresses the set can give."""
        return sum(item.size() for item in self.ranges)

    def candidates(self, last: bytes | None) -> Iterator[tuple[bytes, Range]]:
        """Yield every address once, with its range: round robin from the one after `last`, gateways left out.

        Args:
            last: the address given last; None, or an address that is not in the set: from the start.
        """
        home = self.range_of(last) if last is not None else None
        if last is None or home is None:
            for item in self.ranges:
                yield from _stretch(item, item.start, item.end)
            return
        position = self.ranges.index(home)
        if last != home.end:
            yield from _stretch(home, shift(last, 1), home.end)
        for item in self.ranges[position + 1 :] + self.ranges[:position]:
            yield from _stretch(item, item.start, item.end)
        yield from _stretch(home, home.start, last)

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))


def _stretch(within: Range, start: bytes, end: bytes) -> Iterator[tuple[bytes, Range]]:
    width = len(start)
    gateway = int.from_bytes(within.gateway, "big")
    for number in range(int.from_bytes(start, "big"), int.from_bytes(end, "big") + 1):
        if number != gateway:
            yield number.to_bytes(width, "big"), within


def range_sets(conf: Any, version: str) -> list[RangeSet]:
    """Return the range sets of a validated configuration, in the order in which their files are numbered.

    The capability's come first, then the one written into `ipam` itself, then `ipam.ranges`.

    Raises:
        InvalidConfigError: there is none, one is invalid, two overlap, or the configuration's version has no
            way to tell the addresses they give.
    """
    single = [[conf.ipam]] if conf.ipam.subnet else []
    given = [*conf.runtime_config.ip_ranges, *single, *conf.ipam.ranges]
    if not given:
        raise InvalidConfigError("no IP ranges specified", "give ipam a subnet, or ranges")
    sets = []
    for index, item in enumerate(given):
        try:
            sets.append(RangeSet(item))
        except ValueError as error:
            raise InvalidConfigError(f"invalid range set {index}: {error}") from None
    families = [item.version for item in sets]
    if version in ("0.1.0", "0.2.0") and len(set(families)) < len(families):
        raise InvalidConfigError(
            f"CNI version {version} does not support more than 1 address per family",
            "set the network's cniVersion to 0.3.0 or later, or leave one range set per family",
        )
    for index, one in enumerate(sets):
        for other in range(index + 1, len(sets)):
            if any(a.overlaps(b) for a in one.ranges for b in sets[other].ranges):
                raise InvalidConfigError(f"range set {index} overlaps with {other}")
    return sets
