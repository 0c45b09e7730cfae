"""DHCP messages: round trips, overloaded and split options, and what hostile servers send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.dhcp.daemon.packet import ANY, BROADCAST, Message, checksum, unwrap, wrap

MAC = bytes.fromhex("020000000001")
address = st.binary(min_size=4, max_size=4)
messages = st.builds(
    Message,
    op=st.sampled_from([1, 2]),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(min_size=6, max_size=6),
    secs=st.integers(0, 0xFFFF),
    broadcast=st.booleans(),
    ciaddr=address,
    yiaddr=address,
    siaddr=address,
    giaddr=address,
    options=st.dictionaries(st.integers(1, 254).filter(lambda number: number != 52), st.binary(max_size=600)),
)


@given(messages)
def test_round_trip(message: Message) -> None:
    data = message.encode()
    assert len(data) >= 300
    assert Message.decode(data) == message


@given(messages, st.data())
def test_a_message_that_is_cut_off_is_refused_or_shorter(message: Message, data: st.DataObject) -> None:
    whole = message.encode()
    try:
        found = Message.decode(whole[: data.draw(st.integers(0, len(whole)))])
    except ValueError:
        return
    assert found.options.keys() <= message.options.keys()


@given(st.binary(max_size=700))
def test_junk_is_a_value_error(data: bytes) -> None:
    for prefix in (b"", Message(2, 1, MAC).encode()[:240]):
        try:
            Message.decode(prefix + data)
        except ValueError:
            continue


def overloaded(which: int, options: bytes, file: bytes, sname: bytes) -> bytes:
    head = Message(2, 7, MAC).encode()[:236]
    head = head[:44] + sname.ljust(64, b"\0") + file.ljust(128, b"\0")
    return head + b"\x63\x82\x53\x63" + bytes((52, 1, which)) + options + b"\xff"


def test_options_may_continue_in_the_file_and_the_server_name() -> None:
    data = overloaded(3, b"\x35\x01\x02", b"\x0f\x03abc\xff", b"\x0f\x02de\xff")
    assert Message.decode(data).options == {52: b"\3", 53: b"\2", 15: b"abcde"}
    assert Message.decode(overloaded(1, b"", b"\x0f\x01a\xff", b"\x0f\x01b\xff")).options[15] == b"a"
    assert Message.decode(overloaded(2, b"", b"\x0f\x01a\xff", b"\x0f\x01b\xff")).options[15] == b"b"


@pytest.mark.parametrize(
    "data",
    [
        overloaded(4, b"", b"", b""),
        overloaded(1, b"", b"\x0f\xff" + b"a" * 126, b""),
        overloaded(1, b"\x34\x01\x03", b"", b""),  # said twice, it is a value of two bytes
        Message(2, 7, MAC).encode()[:236] + b"\x63\x82\x53\x62" + bytes(60),
        b"\2\1\x11" + Message(2, 7, MAC).encode()[3:],
        Message(2, 7, MAC).encode()[:240] + b"\x35",
        Message(2, 7, MAC).encode()[:240] + b"\x35\x02\x05",
    ],
)
def test_malformed_messages(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"option|DHCP|hardware"):
        Message.decode(data)


def test_overloading_does_not_recur() -> None:
    data = overloaded(1, b"", b"\x34\x01\x03\x0f\x01a\xff", b"\x0f\x01b\xff")
    assert Message.decode(data).options[15] == b"a"


@pytest.mark.parametrize(("value", "kind"), [(b"\5", 5), (b"", 0), (b"\5\5", 0)])
def test_kind(value: bytes, kind: int) -> None:
    assert Message(2, 1, MAC, options={53: value}).kind == kind


def answer(payload: bytes) -> bytes:
    """Return what a server would send: `wrap` with the ports the other way round."""
    packet = wrap(payload, bytes((10, 0, 0, 1)), BROADCAST)
    return packet[:20] + packet[22:24] + packet[20:22] + packet[24:]


@given(st.binary(max_size=600))
def test_ip_and_udp(payload: bytes) -> None:
    packet = wrap(payload, ANY, BROADCAST)
    assert checksum(packet[:20]) == 0
    pseudo = packet[12:20] + b"\0\x11" + packet[24:26]
    assert checksum(pseudo + packet[20:]) == 0
    assert unwrap(answer(payload)) == payload
    assert unwrap(answer(payload) + b"a frame's padding") == payload


@given(st.binary(max_size=80), st.data())
def test_packets_that_are_damaged(payload: bytes, data: st.DataObject) -> None:
    packet = bytearray(answer(payload))
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(unwrap(bytes(packet[: data.draw(st.integers(0, len(packet)))]))) <= len(payload) + 20
    except ValueError:
        return


def test_other_packets() -> None:
    packet = answer(b"payload")
    for at, value in (
        (0, 0x65),
        (0, 0x44),
        (6, 0x20),
        (7, 1),
        (9, 6),
        (23, 67),
        (25, 200),
        (3, 255),
        (25, 7),
    ):
        other = bytearray(packet)
        other[at] = value
        with pytest.raises(ValueError, match=r"IPv4|UDP|client"):
            unwrap(bytes(other))
