"""Ranges against Python's own ipaddress, and the texts of what is refused."""

from __future__ import annotations

import ipaddress
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.address import format_address, parse_address
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.schema import validate
from ipam.host_local.ranges import Range, RangeSet, range_sets


def one(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Any:
    return SimpleNamespace(subnet=subnet, range_start=start, range_end=end, gateway=gateway)


@st.composite
def subnets(draw: st.DrawFn) -> tuple[Any, int]:
    """Draw a network of ipaddress and the offset of one of its addresses."""
    kind: type[ipaddress.IPv4Network | ipaddress.IPv6Network]
    if draw(st.booleans()):
        raw, length, kind = draw(st.integers(0, 2**32 - 1)), draw(st.integers(4, 30)), ipaddress.IPv4Network
    else:
        # Nothing in ::/16, where IPv4 addresses are embedded, with texts of their own.
        raw, length = draw(st.integers(2**112, 2**128 - 1)), draw(st.integers(16, 126))
        kind = ipaddress.IPv6Network
    network: Any = kind((raw, length), strict=False)
    return network, draw(st.integers(1, min(network.num_addresses - 2, 2**20)))


@given(subnets())
def test_defaults_are_the_hosts_of_the_subnet(sample: tuple[Any, int]) -> None:
    network, offset = sample
    made = Range(one(f"{network[offset]}/{network.prefixlen}"))  # host bits are cleared
    last = network[-2] if network.version == 4 else network[-1]
    assert str(made.subnet) == str(network)
    assert format_address(made.start) == format_address(made.gateway) == str(network[1])
    assert format_address(made.end) == str(last)
    assert str(made) == f"{network[1]}-{last}"
    assert made.size() == int(last) - int(network[1])


@given(subnets(), st.data())
def test_round_robin_visits_every_address_once_and_never_the_gateway(
    sample: tuple[Any, int], data: st.DataObject
) -> None:
    network, offset = sample
    top = min(network.num_addresses - 1, offset + 40)
    last = data.draw(st.integers(offset, top))
    made = RangeSet([one(str(network), str(network[offset]), str(network[top]))])
    visited = [format_address(address) for address, _ in made.candidates(network[last].packed)]
    order = [*range(last + 1, top + 1), *range(offset, last + 1)]
    assert visited == [str(network[index]) for index in order if index != 1]
    assert len(visited) == made.size()


@given(subnets(), st.integers(0, 2**21))
def test_membership(sample: tuple[Any, int], other: int) -> None:
    network, offset = sample
    other %= network.num_addresses
    end = network[min(network.num_addresses - 1, offset + 100)]
    made = Range(one(str(network), str(network[offset]), str(end)))
    assert (network[other].packed in made) == (network[offset] <= network[other] <= end)


def test_several_ranges_follow_each_other_and_wrap() -> None:
    made = RangeSet([one("10.0.0.0/29", "10.0.0.5"), one("10.0.1.0/30"), one("10.0.2.0/30")])

    def names(last: str | None) -> list[str]:
        start = parse_address(last) if last else None
        return [format_address(address) for address, _ in made.candidates(start)]

    assert names(None) == ["10.0.0.5", "10.0.0.6", "10.0.1.2", "10.0.2.2"]
    assert names("10.0.1.2") == ["10.0.2.2", "10.0.0.5", "10.0.0.6", "10.0.1.2"]
    assert names("10.0.0.6") == ["10.0.1.2", "10.0.2.2", "10.0.0.5", "10.0.0.6"]
    assert names("10.9.9.9") == names("fd00::1") == names(None)
    assert str(made) == "10.0.0.5-10.0.0.6,10.0.1.1-10.0.1.2,10.0.2.1-10.0.2.2"


def test_a_large_subnet_is_not_walked_through() -> None:
    made = RangeSet([one("fd00::/8")])
    first = [format_address(address) for address, _ in itertools.islice(made.candidates(None), 2)]
    assert first == ["fd00::2", "fd00::3"]
    assert made.size() == 2**120 - 2


@pytest.mark.parametrize(
    ("given_range", "message"),
    [
        (one(""), "a range needs a subnet"),
        (one("10.0.0.0"), "'10.0.0.0' is not an address in CIDR notation"),
        (one("10.0.0.0/31"), "network 10.0.0.0/31 too small to allocate from"),
        (one("fd00::/127"), "network fd00::/127 too small to allocate from"),
        (one("10.0.0.0/24", "10.0.1.1"), "rangeStart 10.0.1.1 not in network 10.0.0.0/24"),
        (one("10.0.0.0/24", end="10.0.1.1"), "rangeEnd 10.0.1.1 not in network 10.0.0.0/24"),
        (one("10.0.0.0/24", gateway="10.0.1.1"), "gateway 10.0.1.1 not in network 10.0.0.0/24"),
        (one("10.0.0.0/24", gateway="fd00::1"), "not the same protocol as subnet 10.0.0.0/24"),
        (one("10.0.0.0/24", "10.0.0.9", "10.0.0.8"), "10.0.0.8 is in network 10.0.0.0/24 but before start"),
        (one("10.0.0.0/24", "x"), "'x' is not an IP address"),
    ],
)
def test_a_bad_range_is_refused(given_range: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Range(given_range)


def sets(ipam: dict[str, Any], runtime: dict[str, Any] | None = None, version: str = "1.1.0") -> list[str]:
    conf = validate("HostLocalConf", {"ipam": ipam, "runtimeConfig": runtime or {}})
    return [str(item) for item in range_sets(conf, version)]


def test_order_of_range_sets() -> None:
    ipam = {"subnet": "10.2.0.0/30", "ranges": [[{"subnet": "10.3.0.0/30"}]]}
    runtime = {"ipRanges": [[{"subnet": "10.1.0.0/30"}]]}
    assert sets(ipam, runtime) == ["10.1.0.1-10.1.0.2", "10.2.0.1-10.2.0.2", "10.3.0.1-10.3.0.2"]


A, B, SIX = {"subnet": "10.0.0.0/24"}, {"subnet": "10.0.1.0/24"}, {"subnet": "fd00::/64"}


@pytest.mark.parametrize(
    ("ranges", "version", "message"),
    [
        ([], "1.1.0", "no IP ranges specified"),
        ([[]], "1.1.0", "invalid range set 0: empty range set"),
        ([[A], [A, SIX]], "1.1.0", "invalid range set 1: mixed address families"),
        ([[A, A]], "1.1.0", "ranges 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.254 overlap"),
        ([[A], [SIX], [B, {"subnet": "10.0.0.128/25"}]], "1.1.0", "range set 0 overlaps with 2"),
        ([[A], [B]], "0.2.0", "CNI version 0.2.0 does not support more than 1 address per family"),
    ],
)
def test_bad_range_sets_are_refused(ranges: list[Any], version: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        sets({"ranges": ranges}, version=version)
    assert message in caught.value.msg


def test_one_address_of_each_family_is_old_enough() -> None:
    assert len(sets({"ranges": [[A], [SIX]]}, version="0.1.0")) == 2
    assert len(sets({"ranges": [[A], [B]]}, version="0.3.0")) == 2
