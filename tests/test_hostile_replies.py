"""Replies of the kernel that make no sense: an OSError, whichever function reads them."""

from __future__ import annotations

import random
import struct

import pytest

from cni_plugins.kernel import addr, netlink, nlattr
from cni_plugins.kernel.nlattr import required, uint, unpack
from flanneld import notices
from tests import hostile_replies, hostile_streams
from tests.hostile_replies import READERS
from tests.kernel_readers import HEADER

EBADMSG = 74


def test_every_recorded_reply_is_read() -> None:
    for name, exchanges in hostile_replies.recorded().items():
        if name not in ("addr.settle", "newlink.has_kind"):
            assert hostile_replies.read(name, exchanges) == "read", name


def test_every_reader_has_a_recorded_reply() -> None:
    assert hostile_replies.recorded().keys() == READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_every_reply_cut_off_anywhere(name: str) -> None:
    exchanges = hostile_replies.recorded()[name]
    for number, exchange in enumerate(exchanges):
        for at in range(0, len(exchange[0]), 7):
            cut = [list(each) for each in exchanges]
            cut[number][0] = exchange[0][:at]
            assert hostile_replies.read(name, cut) in ("read", "refused", "waits for more")


@pytest.mark.parametrize("name", READERS)
def test_every_message_without_its_body(name: str) -> None:
    exchanges = [
        [
            b"".join(
                HEADER.pack(16, kind, flags, sequence, 0) if kind > 3 else _whole(kind, flags, sequence, body)
                for kind, flags, sequence, body in hostile_replies.split(datagram)
            )
            for datagram in exchange
        ]
        for exchange in hostile_replies.recorded()[name]
    ]
    assert hostile_replies.read(name, exchanges) in ("read", "refused")


def _whole(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) & 3)


def test_changed_replies() -> None:
    attempt = hostile_replies.Replies()
    chance = random.Random(5)
    answers = {attempt(chance) for _time in range(4000)}
    assert {"read", "refused"} <= answers <= {"read", "refused", "waits for more"}


def test_changed_streams() -> None:
    attempt = hostile_streams.Streams()
    chance = random.Random(6)
    assert {attempt(chance) for _time in range(4000)} == {"read", "refused"}


@pytest.mark.parametrize("name", hostile_streams.STREAMS)
def test_what_streams_are_made_of_is_read(name: str) -> None:
    answers = {hostile_streams.read(name, data) for data in hostile_streams.STREAMS[name][1]}
    assert ("read" if name != "bus" else "refused") in answers


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: unpack(struct.Struct("=I"), b"abc"),
        lambda: uint(bytes(9)),
        lambda: required({}, 1),
        lambda: addr.received(b"12345", 8),
        lambda: addr.received(bytes(4), 33),
        lambda: list(notices._parse(HEADER.pack(0, 16, 0, 0, 0))),
        lambda: list(notices._parse(b"short")),
    ],
)
def test_what_does_not_fit_is_a_bad_message(wrong: object) -> None:
    with pytest.raises(OSError, match="kernel") as caught:
        wrong()  # type: ignore[operator]
    assert caught.value.errno == EBADMSG


@pytest.mark.parametrize("code", [-(2**31), 7, -5000])
def test_an_error_number_that_is_none(code: int) -> None:
    """strerror(3) takes no such number."""
    error = netlink.refusal(netlink.Reply(netlink.NLMSG_ERROR, 0, struct.pack("=i", code)))
    assert error is not None
    assert error.errno == EBADMSG


def test_an_attribute_that_is_too_long() -> None:
    with pytest.raises(OSError, match="65532 bytes are too many"):
        nlattr.attr(1, bytes(65532))
