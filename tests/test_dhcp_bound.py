"""What an acknowledgement gives: times, address, routes, names."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.address import format_address
from ipam.dhcp.daemon.bound import Bound, classless_routes, domain_search, usable
from ipam.dhcp.daemon.packet import Message

ADDRESS = bytes((10, 1, 2, 3))
SERVER = bytes((10, 1, 0, 1))


def ack(address: bytes = ADDRESS, **options: bytes) -> Bound:
    given_options = {int(name[1:]): value for name, value in options.items()}
    return Bound.of(
        Message(2, 1, bytes(6), yiaddr=address, options={54: SERVER} | given_options), b"", 1000.0
    )


def seconds(value: int) -> bytes:
    return value.to_bytes(4, "big")


def test_times_that_a_server_gives_are_taken_with_some_fuzz() -> None:
    seen = [ack(o51=seconds(1000), o58=seconds(400), o59=seconds(700)) for _try in range(20)]
    assert {bound.rebinding for bound in seen} == {1700.0}
    assert {bound.expiry for bound in seen} == {2000.0}
    renewals = {bound.renewal for bound in seen}
    assert len(renewals) > 1
    assert all(1380 <= renewal <= 1400 for renewal in renewals)


def test_times_that_a_server_does_not_give() -> None:
    bound = ack(o51=seconds(1000))
    assert 1475 <= bound.renewal <= 1500
    assert (bound.rebinding, bound.expiry) == (1875.0, 2000.0)
    assert ack().expiry == 1000 + 3600


@pytest.mark.parametrize(("t1", "t2"), [(800, 700), (0, 0), (1000, 1000), (2000, 3000)])
def test_times_that_make_no_sense_are_not_taken(t1: int, t2: int) -> None:
    bound = ack(o51=seconds(1000), o58=seconds(t1), o59=seconds(t2))
    assert 1000 < bound.renewal <= bound.rebinding < bound.expiry == 2000.0


@given(*[st.binary(max_size=5)] * 3)
def test_no_times_make_us_busy(lease: bytes, t1: bytes, t2: bytes) -> None:
    bound = ack(o51=lease, o58=t1, o59=t2)
    assert 1001 <= bound.renewal <= bound.rebinding <= bound.expiry


def test_a_lease_for_ever() -> None:
    bound = ack(o51=b"\xff" * 4)
    assert math.isinf(bound.renewal)
    assert math.isinf(bound.expiry)


@pytest.mark.parametrize(
    ("address", "mask", "length"),
    [
        ("10.1.2.3", b"\xff\xff\xf0\x00", 20),
        ("10.1.2.3", b"\xff" * 4, 32),
        ("10.1.2.3", None, 8),
        ("172.16.2.3", None, 16),
        ("192.168.2.3", None, 24),
        ("192.168.2.3", b"\xff\x00\xff\x00", 24),
        ("192.168.2.3", b"\xff\xff", 24),
        ("192.168.2.3", bytes(4), 24),
    ],
)
def test_without_a_mask_that_can_be_used_it_is_that_of_the_class(
    address: str, mask: bytes | None, length: int
) -> None:
    packed = bytes(int(part) for part in address.split("."))
    bound = ack(packed, **({} if mask is None else {"o1": mask}))
    assert str(bound.address) == f"{address}/{length}"


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.1.2.3"])
def test_addresses_that_no_host_can_have(address: str) -> None:
    packed = bytes(int(part) for part in address.split("."))
    assert not usable(packed)
    with pytest.raises(ValueError, match=address):
        ack(packed)


def routes(bound: Bound, priority: int = 0) -> list[tuple[str, str, int | None]]:
    return [
        (str(route.dst), format_address(route.gw or b""), route.scope)
        for route in bound.result(priority).routes
    ]


def test_the_router_is_gateway_and_default_route() -> None:
    bound = ack(o3=SERVER + bytes((10, 1, 0, 2)), o33=bytes((192, 168, 1, 0)) + SERVER + bytes(4) + SERVER)
    assert bound.result().ips[0].gateway == SERVER
    assert routes(bound) == [("192.168.1.0/24", "10.1.0.1", None), ("0.0.0.0/0", "10.1.0.1", None)]
    assert [route.priority for route in bound.result(50).routes] == [50, 50]


@pytest.mark.parametrize("number", ["o121", "o249"])
def test_classless_routes_replace_the_others(number: str) -> None:
    value = bytes((24, 172, 16, 5)) + bytes(4) + bytes((0,)) + SERVER + bytes((32, 1, 2, 3, 4)) + SERVER
    bound = ack(o3=SERVER, o33=bytes((192, 168, 1, 0)) + SERVER, **{number: value})
    assert routes(bound) == [
        ("172.16.5.0/24", "0.0.0.0", 253),
        ("0.0.0.0/0", "10.1.0.1", None),
        ("1.2.3.4/32", "10.1.0.1", None),
    ]
    assert bound.result().ips[0].gateway == SERVER


@pytest.mark.parametrize("value", [b"\x21" + bytes(9), b"\x18\x0a\x01", b"\x00\x0a", b"\x08"])
def test_malformed_classless_routes_are_none(value: bytes) -> None:
    assert classless_routes(value) == []
    assert routes(ack(o3=SERVER, o121=value)) == [("0.0.0.0/0", "10.1.0.1", None)]


@pytest.mark.parametrize("value", [b"", b"\x0a", bytes(4), bytes(3)])
def test_no_router(value: bytes) -> None:
    assert ack(o3=value).result().ips[0].gateway is None


def test_names() -> None:
    search = b"\3eng\5apple\3com\0\4mail\xc0\4\0"
    bound = ack(o6=SERVER + bytes((10, 1, 0, 2)) + b"\1", o15=b"example.org\0", o119=search)
    assert bound.result().dns.to_json() == {
        "nameservers": ["10.1.0.1", "10.1.0.2"],
        "domain": "example.org",
        "search": ["eng.apple.com", "mail.apple.com"],
    }
    assert ack().result().dns.to_json() == {}


@pytest.mark.parametrize(
    "value", [b"\xc0\0", b"\3ab", b"\xc0", b"\1a\xc0\2", b"\x41a\0", b"\x3f" + b"a" * 63]
)
def test_malformed_names(value: bytes) -> None:
    assert domain_search(value) == []


def test_no_control_characters_come_through() -> None:
    assert ack(o15=b"a\n\x1b[31mb\xff c").result().dns.domain == "a[31mbc"


@given(st.dictionaries(st.integers(1, 254), st.binary(max_size=40)))
def test_whatever_a_server_sends_gives_a_result_that_can_be_told(options: dict[int, bytes]) -> None:
    message = Message(2, 1, bytes(6), yiaddr=ADDRESS, options=options)
    assert Bound.of(message, b"", 0.0).result().to_json("1.1.0")["ips"]
