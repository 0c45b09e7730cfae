"""Go's encoding: what Go itself sent, round trips, and streams that are none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.address import Prefix
from cni_plugins.spec.result import DNS, IPConfig, Result, Route
from ipam.dhcp import rpc
from ipam.dhcp.gob import BOOL, BYTES, INT, STRING, UINT, Decoder, List, PointedTo, Struct, encode

# What the reference's client sends (v1.1.1, seen by a listening socket): types and values of both parts.
SENT_BY_GO = (
    b"/\xff\x81\x03\x01\x01\x07Request\x01\xff\x82\x00\x01\x02\x01\rServiceMethod\x01\x0c\x00\x01\x03Seq\x01"
    b"\x06\x00\x00\x00\x12\xff\x82\x01\rDHCP.Allocate\x00Z\xff\x83\x03\x01\x01\x07CmdArgs\x01\xff\x84\x00\x01"
    b"\x06\x01\x0bContainerID\x01\x0c\x00\x01\x05Netns\x01\x0c\x00\x01\x06IfName\x01\x0c\x00\x01\x04Args\x01"
    b"\x0c\x00\x01\x04Path\x01\x0c\x00\x01\tStdinData\x01\n\x00\x00\x00<\xff\x84\x01\x02c1\x01\x0e/proc/1/ns/"
    b'mnt\x01\x04eth0\x01\x03A=B\x01\x0c/usr/lib/cni\x01\x0a{"a": "b"}\x00'
)
EVERY = Struct(
    80,
    "Every",
    (
        ("Flag", BOOL),
        ("Signed", INT),
        ("Unsigned", UINT),
        ("Data", BYTES),
        ("Text", STRING),
        ("Inner", Struct(81, "Inner", (("A", INT), ("B", STRING)))),
        ("Texts", List(82, STRING)),
    ),
)
values = st.fixed_dictionaries(
    {},
    optional={
        "Flag": st.just(True),
        "Signed": st.integers(-(2**63), 2**63 - 1).filter(bool),
        "Unsigned": st.integers(1, 2**64 - 1),
        "Data": st.binary(min_size=1, max_size=300),
        "Text": st.text(min_size=1).filter(lambda text: text.isprintable()),
        "Inner": st.fixed_dictionaries({"A": st.integers(1, 9)}, optional={"B": st.just("b")}),
        "Texts": st.lists(st.sampled_from(["", "a", "bc"]), min_size=1),
    },
)


def decoded(data: bytes) -> list[object]:
    decoder = Decoder()
    decoder.feed(data)
    found = []
    while (value := decoder.next()) is not None:
        found.append(value)
    return found


def test_what_go_sent_is_understood() -> None:
    request, args = decoded(SENT_BY_GO)
    assert request == {"ServiceMethod": "DHCP.Allocate"}
    assert args == {
        "ContainerID": "c1",
        "Netns": "/proc/1/ns/mnt",
        "IfName": "eth0",
        "Args": "A=B",
        "Path": "/usr/lib/cni",
        "StdinData": b'{"a": "b"}',
    }


def test_what_is_sent_is_what_go_sends() -> None:
    known: set[int] = set()
    ours = encode(rpc.REQUEST, {"ServiceMethod": "DHCP.Allocate"}, known)
    assert ours == SENT_BY_GO[: len(ours)]
    assert known == {rpc.REQUEST.number}


@given(st.lists(values, max_size=3), st.integers(1, 9))
def test_round_trip_in_pieces(given_values: list[dict[str, object]], step: int) -> None:
    known: set[int] = set()
    data = b"".join(encode(EVERY, value, known) for value in given_values)
    decoder = Decoder()
    found = []
    for at in range(0, len(data), step):
        decoder.feed(data[at : at + step])
        while (value := decoder.next()) is not None:
            found.append(value)
    assert found == given_values


def test_a_pointer_to_zero_is_sent() -> None:
    kind = Struct(80, "T", (("P", INT),))
    assert decoded(encode(kind, {"P": PointedTo(0)}, set())) == [{"P": 0}]
    assert decoded(encode(kind, {"P": 0}, set())) == [{}]


@given(st.data())
def test_what_is_damaged_is_a_value_error(data: st.DataObject) -> None:
    stream = bytearray(SENT_BY_GO)
    for _change in range(data.draw(st.integers(1, 5))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded(bytes(stream))
    except ValueError:
        return


@given(st.binary(max_size=200))
def test_what_is_no_gob_is_a_value_error(data: bytes) -> None:
    try:
        decoded(data)
    except ValueError:
        return


@pytest.mark.parametrize(
    "stream",
    [
        b"\xfc\x7f\xff\xff\xff",  # two gigabytes are said to come
        b"\xf0" + b"\xff" * 17,
        b"\x02\xff\x81",
        b"\x03\x04\x00\x05\x00",
        b"\x01\x0c",  # a string without its zero
        b"\x04\x0c\x00\x05a",
        b"\x05\xff\x82\x01\x01\x00",  # of a type that was not defined
    ],
)
def test_hostile_streams(stream: bytes) -> None:
    with pytest.raises(ValueError, match="gob"):
        decoded(stream)


def test_a_length_has_eight_bytes_at_most() -> None:
    with pytest.raises(ValueError, match="a length of more than eight bytes"):
        decoded(b"\xf7" + bytes(8) + b"\1\0")


def test_a_list_cannot_say_that_it_is_longer_than_its_message() -> None:
    data = encode(EVERY, {"Texts": ["a"]}, set())
    with pytest.raises(ValueError, match="elements"):
        decoded(data.replace(b"\x01\x01a\x00", b"\x7f\x01a\x00"))


def test_results_go_both_ways() -> None:
    result = Result()
    result.ips = [IPConfig(Prefix.parse("10.1.2.3/20"), bytes((10, 1, 0, 1)))]
    linked = Route(Prefix.parse("10.9.0.0/16"), bytes(4))
    linked.scope, linked.priority = 253, 7
    result.routes = [Route(Prefix.parse("0.0.0.0/0"), bytes((10, 1, 0, 1))), linked]
    result.dns = DNS(["10.1.0.2"], "example.org", ["example.org", "example.com"])
    (fields,) = decoded(encode(rpc.RESULT, rpc.to_wire(result), set()))
    assert isinstance(fields, dict)
    assert rpc.from_wire(fields).to_json("1.1.0") == result.to_json("1.1.0")


def test_gos_sixteen_byte_addresses() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes((10, 1, 2, 3))
    net = {"IP": mapped, "Mask": struct.pack("!I", 0xFFFFFF00)}
    result = rpc.from_wire({"IPs": [{"Address": net, "Gateway": mapped}], "Routes": [{"Dst": net}]})
    assert str(result.ips[0].address) == "10.1.2.3/24"
    assert result.ips[0].gateway == bytes((10, 1, 2, 3))


def test_a_gc_that_released_nothing_or_of_a_daemon_that_does_not_say() -> None:
    (fields,) = decoded(encode(rpc.RELEASED, rpc.released_to_wire([]), set()))
    assert fields == {}
    assert rpc.released_from_wire({}) == []


@pytest.mark.parametrize(
    "listed", [3, [3], ["c1"], [{}], [{"ContainerID": "c1"}], [["c1", "eth0"]], {"c1": "eth0"}]
)
def test_what_no_gc_released(listed: object) -> None:
    with pytest.raises(ValueError, match="no list of attachments"):
        rpc.released_from_wire({"Attachments": listed})


@pytest.mark.parametrize(
    "fields",
    [
        {"IPs": [{}]},
        {"IPs": [{"Address": {"IP": b"123", "Mask": b"1234"}}]},
        {"IPs": [{"Address": {"IP": b"1234", "Mask": b""}}]},
        {"IPs": 3},
        {"Routes": [{"Dst": 1}]},
        {"DNS": 1},
    ],
)
def test_a_result_that_is_none(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="daemon's result"):
        rpc.from_wire(fields)
