"""Messages about addresses and routes: pyroute2 reads what ours writes, and the other way round."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.address import Prefix, parse_address
from cni_plugins.kernel import addr, route
from tests.kernel_end import (
    CREATE,
    CREATE_NEW,
    DONE,
    INDEXES,
    MULTI,
    KernelEnd,
    asked,
    attributes,
    change_flags,
)

PREFIXES = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).flatmap(
    lambda it: st.integers(0, it.max_prefixlen).map(lambda length: Prefix(it.packed, length))
)


def family(prefix: Prefix) -> int:
    return addr.AF_INET if prefix.version == 4 else addr.AF_INET6


@given(PREFIXES, INDEXES, st.booleans())
def test_add_an_address(prefix: Prefix, index: int, dad: bool) -> None:
    with KernelEnd() as kernel:
        request = asked(kernel, addr.add, index, prefix, flags=addr.flags_for(prefix, dad=dad))
    message = request.decoded()
    assert (request.kind, change_flags(request)) == (20, CREATE_NEW)
    assert (message["flags"], message["scope"]) == (0, 0)
    assert (message["family"], message["prefixlen"], message["index"]) == (
        family(prefix),
        prefix.length,
        index,
    )
    found = attributes(message)
    assert parse_exact(found.pop("IFA_LOCAL")) == parse_exact(found.pop("IFA_ADDRESS")) == prefix.address
    if prefix.version == 4:
        broadcast = found.pop("IFA_BROADCAST", None)
        # RFC 3021: two addresses on a link leave none for broadcast
        assert (broadcast and parse_exact(broadcast)) == (prefix.last() if prefix.length < 31 else None)
        assert found == {}
    else:
        assert found == ({} if dad else {"IFA_FLAGS": 0x2}), "usable at once, without detection"


def parse_exact(text: str) -> bytes:
    """Return an address's bytes; an IPv4-mapped one keeps its sixteen."""
    packed = parse_address(text)
    return bytes(10) + b"\xff\xff" + packed if ":" in text and len(packed) == 4 else packed


@given(PREFIXES, INDEXES)
def test_delete_an_address(prefix: Prefix, index: int) -> None:
    with KernelEnd() as kernel:
        request = asked(kernel, addr.delete, index, prefix)
    message = request.decoded()
    assert (request.kind, message["index"], message["prefixlen"]) == (21, index, prefix.length)
    assert parse_exact(message.get_attr("IFA_LOCAL")) == prefix.address


def test_deleting_what_is_gone(kernel: KernelEnd) -> None:
    prefix = Prefix.parse("10.0.0.1/24")
    kernel.acknowledge(code=errno.EADDRNOTAVAIL)
    addr.delete(kernel.netlink, 3, prefix)
    kernel.acknowledge(code=errno.EPERM)
    with pytest.raises(PermissionError) as caught:
        addr.delete(kernel.netlink, 3, prefix)
    assert caught.value.__notes__ == ["failed to delete address 10.0.0.1/24 of link 3"]
    kernel.acknowledge(code=errno.EEXIST)
    with pytest.raises(FileExistsError) as taken:
        addr.add(kernel.netlink, 3, prefix)
    assert taken.value.__notes__ == ["failed to add address 10.0.0.1/24 to link 3"]


def test_addresses_of_a_link(kernel: KernelEnd) -> None:
    def held(index: int, length: int, **attrs: str) -> bytes:
        version = 10 if ":" in next(iter(attrs.values())) else 2
        value = {"family": version, "prefixlen": length, "index": index}
        pairs = [(f"IFA_{name.upper()}", text) for name, text in attrs.items()]
        return kernel.encoded(20, {**value, "attrs": pairs}, flags=MULTI)

    kernel.say(
        held(3, 24, address="10.0.0.1", local="10.0.0.1"),
        held(3, 32, address="10.9.9.9", local="10.0.0.2"),
        held(4, 24, address="10.0.1.1", local="10.0.1.1"),
        held(3, 64, address="fd00::1"),
        kernel.message(DONE, bytes(4), MULTI),
    )
    found = addr.of_link(kernel.netlink, 3)
    # of a point-to-point link IFA_ADDRESS is the other end's
    assert [str(prefix) for prefix in found] == ["10.0.0.1/24", "10.0.0.2/32", "fd00::1/64"]
    # with strict checking the kernel refuses anything else in the header
    request = kernel.asked()
    assert (request.kind, request.body) == (22, struct.pack("=BBBBi", 0, 0, 0, 0, 3))


@st.composite
def routes(draw: st.DrawFn) -> route.Route:
    dst = draw(PREFIXES)
    gateway = draw(st.none() | st.binary(min_size=len(dst.address), max_size=len(dst.address)))
    numbers = st.just(0) | st.integers(1, 2**32 - 1)
    made = route.Route(dst, gateway, draw(INDEXES), scope=draw(st.none() | st.integers(0, 255)))
    made.table = draw(st.sampled_from([254, 0, 100, 255, 256, 1000, 2**32 - 1]))
    made.priority, made.mtu, made.advmss = draw(numbers), draw(numbers), draw(numbers)
    return made


@given(routes(), st.booleans())
def test_add_a_route(made: route.Route, onlink: bool) -> None:
    with KernelEnd() as kernel:
        request = asked(kernel, route.add, made, onlink=onlink)
    message = request.decoded()
    assert (request.kind, change_flags(request)) == (24, CREATE), "beside those that exist"
    assert (message["family"], message["dst_len"]) == (family(made.dst), made.dst.length)
    assert (message["type"], message["proto"]) == (1, 3)
    on_link = made.gateway is None and made.dst.version == 4
    assert message["scope"] == (made.scope if made.scope is not None else 253 if on_link else 0)
    assert message["flags"] == (4 if onlink else 0)
    assert (message["src_len"], message["tos"]) == (0, 0)
    assert message["table"] == (made.table if made.table < 256 else 0)
    found = attributes(message)
    assert found.pop("RTA_TABLE") == made.table
    assert found.pop("RTA_OIF") == made.link
    dst, gateway = found.pop("RTA_DST", None), found.pop("RTA_GATEWAY", None)
    assert (parse_exact(dst) if dst else None) == (made.dst.first() if made.dst.length else None)
    assert (parse_exact(gateway) if gateway else None) == made.gateway
    assert found.pop("RTA_PRIORITY", 0) == made.priority
    metrics = found.pop("RTA_METRICS", {})
    assert metrics.get("RTAX_MTU", 0) == made.mtu
    assert metrics.get("RTAX_ADVMSS", 0) == made.advmss
    assert len(metrics) == bool(made.mtu) + bool(made.advmss)
    assert found == {}


def test_a_refused_route_is_named(kernel: KernelEnd) -> None:
    kernel.acknowledge(code=errno.ENETUNREACH)
    with pytest.raises(OSError, match="unreachable") as caught:
        route.add(kernel.netlink, route.Route(Prefix.parse("10.0.0.0/8"), parse_address("10.1.0.1"), 3))
    assert caught.value.__notes__ == ["failed to add route 10.0.0.0/8"]


def test_routes_of_a_link(kernel: KernelEnd) -> None:
    def held(**value: Any) -> bytes:
        attrs = value.pop("attrs")
        return kernel.encoded(
            24, {"family": 2, "type": 1, "table": 254, "scope": 0, **value, "attrs": attrs}, flags=MULTI
        )

    kernel.say(
        held(attrs=[("RTA_OIF", 3), ("RTA_GATEWAY", "10.0.0.1"), ("RTA_TABLE", 254)]),
        held(
            dst_len=8,
            table=0,
            attrs=[
                ("RTA_DST", "10.0.0.0"),
                ("RTA_OIF", 3),
                ("RTA_TABLE", 1000),
                ("RTA_PRIORITY", 9),
                ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1300), ("RTAX_ADVMSS", 1260)]}),
            ],
        ),
        held(dst_len=32, type=2, attrs=[("RTA_DST", "10.0.0.5"), ("RTA_OIF", 3)]),
        held(dst_len=8, attrs=[("RTA_DST", "11.0.0.0"), ("RTA_OIF", 4)]),
        held(dst_len=8, scope=253, table=99, attrs=[("RTA_DST", "12.0.0.0"), ("RTA_OIF", 3)]),
        held(dst_len=8, attrs=[("RTA_DST", "13.0.0.0")]),
        kernel.message(DONE, bytes(4), MULTI),
    )
    found = route.of_link(kernel.netlink, 3, addr.AF_INET)
    assert [(str(each.dst), each.gateway, each.table, each.priority, each.scope) for each in found] == [
        ("0.0.0.0/0", parse_address("10.0.0.1"), 254, 0, 0),
        ("10.0.0.0/8", None, 1000, 9, 0),
        ("12.0.0.0/8", None, 99, 0, 253),
    ]
    assert [(each.mtu, each.advmss, each.link) for each in found] == [(0, 0, 3), (1300, 1260, 3), (0, 0, 3)]
    request = kernel.asked()
    assert request.kind == 26
    assert request.body == bytes([addr.AF_INET]) + bytes(11), "any other filter would be obeyed"


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::5"])
def test_towards(address: str, kernel: KernelEnd) -> None:
    packed = parse_address(address)
    version = 2 if len(packed) == 4 else 10
    kernel.acknowledge(kernel.encoded(24, {"family": version, "attrs": [("RTA_OIF", 7)]}))
    assert route.towards(kernel.netlink, packed) == 7
    request = kernel.asked()
    message = request.decoded()
    assert request.kind == 26
    assert (message["family"], message["dst_len"], attributes(message)) == (
        version,
        len(packed) * 8,
        {"RTA_DST": address},
    )
    kernel.acknowledge(kernel.encoded(24, {"family": version, "attrs": []}))
    assert route.towards(kernel.netlink, packed) is None
    for code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        kernel.acknowledge(code=code)
        assert route.towards(kernel.netlink, packed) is None
    kernel.acknowledge(code=errno.EINVAL)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)) as caught:
        route.towards(kernel.netlink, packed)
    assert caught.value.__notes__ == [f"failed to look up the route to {address}"]
