from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cni_plugins.address import Prefix, families, format_address, parse_address, shift

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ALMOST = st.text("0123456789abcdefABCDEF:./%x -+\0\u0661\u00b2\udc80", max_size=45)


def ours(address: IPv4 | IPv6) -> bytes:
    """Return an address as this module has it: IPv4-mapped ones are IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6) else None
    return (mapped or address).packed


def oracle(text: str) -> bytes | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else ours(address)


def outcome(text: str) -> bytes | None:
    try:
        return parse_address(text)
    except ValueError as error:
        return None if repr(text) in str(error) else b"an error that does not name the text"


@given(ADDRESSES)
def test_text_of_every_address_is_read(address: IPv4 | IPv6) -> None:
    assert parse_address(str(address)) == ours(address)
    assert parse_address(address.exploded) == ours(address)


@given(ADDRESSES | st.integers(0, 2**36).map(IPv6))
@example(IPv6("::"))
@example(IPv6("::1"))
@example(IPv6("::1:0"))
@example(IPv6("::a01:203"))
@example(IPv6("::1:a01:203"))
@example(IPv6("1:0:0:2::"))
@example(IPv6("1:0:2:3:4:5:6:7"))
def test_text_is_canonical(address: IPv4 | IPv6) -> None:
    # RFC 5952, section 5: IPv4-mapped addresses are written with dots; here they are IPv4 anyway
    assume(not getattr(address, "ipv4_mapped", None))
    assert format_address(address.packed) == str(address)


@given(st.one_of(ALMOST, st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", fullmatch=True)))
@example("1.2.3")
@example("1.2.3.4.5")
@example("01.2.3.4")
@example("256.1.1.1")
@example("::1%eth0")
@example("::ffff:1.2.3.4")
@example("::FFFF:102:304")
@example("1:2:3:4:5:6:7::")
@example("1::2::3")
@example("1.2.3.4\0")
@example("\ud800::")
@example("")
def test_only_addresses_are_read(text: str) -> None:
    assert outcome(text) == oracle(text)


@given(ADDRESSES, st.integers(-(2**130), 2**130) | st.integers(-300, 300))
def test_shift(address: IPv4 | IPv6, by: int) -> None:
    wanted = int(address) + by
    if 0 <= wanted < 2**address.max_prefixlen:
        assert shift(address.packed, by) == type(address)(wanted).packed
    else:
        with pytest.raises(OverflowError):
            shift(address.packed, by)


def interfaces() -> st.SearchStrategy[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    return ADDRESSES.filter(lambda address: not getattr(address, "ipv4_mapped", None)).flatmap(
        lambda address: st.integers(0, address.max_prefixlen).map(
            lambda length: ipaddress.ip_interface(f"{address}/{length}")
        )
    )


@given(interfaces())
def test_prefix_is_what_ipaddress_says(given: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
    prefix = Prefix.parse(given.with_prefixlen)
    network = given.network
    assert prefix.address == given.packed, "host bits are kept"
    assert prefix.length == network.prefixlen
    assert prefix.version == given.version
    assert prefix.bits == given.max_prefixlen
    assert prefix.first() == network.network_address.packed
    assert prefix.last() == network.broadcast_address.packed
    assert prefix.network() == Prefix(network.network_address.packed, network.prefixlen)
    assert Prefix.parse(str(prefix)) == prefix
    assert repr(prefix) == f"Prefix({prefix})"


@given(interfaces(), interfaces())
@example(ipaddress.ip_interface("10.0.0.0/8"), ipaddress.ip_interface("10.9.0.1/16"))
@example(ipaddress.ip_interface("10.0.0.0/24"), ipaddress.ip_interface("10.0.1.0/24"))
@example(ipaddress.ip_interface("fd00::/8"), ipaddress.ip_interface("fd00::1/128"))
@example(ipaddress.ip_interface("0.0.0.0/0"), ipaddress.ip_interface("::/0"))
def test_membership_and_overlap(
    one: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
    other: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
) -> None:
    left, right = Prefix.parse(one.with_prefixlen), Prefix.parse(other.with_prefixlen)
    assert (right.address in left) is (other.ip in one.network)
    overlap = one.version == other.version and one.network.overlaps(other.network)
    assert left.overlaps(right) is right.overlaps(left) is overlap


@given(ADDRESSES, st.from_regex(r"/?[-+ ]?[0-9]{0,4}", fullmatch=True) | ALMOST)
@example(IPv4("10.0.0.1"), "/33")
@example(IPv6("::1"), "/129")
@example(IPv4("10.0.0.1"), "/255.255.255.0")
@example(IPv4("10.0.0.1"), "/\u0661")
@example(IPv4("10.0.0.1"), "/24/24")
def test_only_cidr_notation_is_a_prefix(address: IPv4 | IPv6, tail: str) -> None:
    text = f"{address}{tail}"
    head, slash, length = text.partition("/")
    plain = length.isascii() and length.isdigit() and len(length) <= 3
    known = oracle(head)
    if not (slash and plain) or known is None:
        with pytest.raises(ValueError, match="CIDR"):
            Prefix.parse(text)
        return
    expected = int(length) - (96 if ":" in head and len(known) == 4 else 0)
    if 0 <= expected <= len(known) * 8:
        assert Prefix.parse(text) == Prefix(known, expected)
    else:
        with pytest.raises(ValueError, match="CIDR"):
            Prefix.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
        ("::ffff:10.0.0.1/128", "10.0.0.1/32"),
        ("::ffff:10.0.0.1/96", "10.0.0.1/0"),
        ("FD00::00A/064", "fd00::a/64"),
    ],
)
def test_prefix_is_normalized(text: str, expected: str) -> None:
    assert str(Prefix.parse(text)) == expected


def test_mapped_prefix_shorter_than_the_mapping_is_none() -> None:
    with pytest.raises(ValueError, match="CIDR"):
        Prefix.parse("::ffff:10.0.0.1/95")


def test_prefixes_are_values() -> None:
    one, same, other = Prefix.parse("10.0.0.1/24"), Prefix.parse("10.0.0.1/24"), Prefix.parse("10.0.0.1/25")
    assert one == same
    assert one != other
    assert one != "10.0.0.1/24"
    assert {one, same, other} == {one, other}
    assert families([one, Prefix.parse("fd00::1/64")]) == {4, 6}
    assert families([]) == set()
