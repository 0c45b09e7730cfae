"""The netlink codec: against pyroute2's, and against what a kernel can answer (netlink(7), RFC 3549)."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nla, nlmsg

from cni_plugins.kernel import link, netlink
from cni_plugins.kernel.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Netlink
from tests.kernel_end import ACK_TLVS, CAPPED, DONE, DUMP_INTR, MULTI, KernelEnd


class Sample(nlmsg):  # type: ignore[misc]
    """A message with an attribute of every kind."""

    prefix = "T_"
    nla_map = (
        ("T_UNSPEC", "none"),
        ("T_U8", "uint8"),
        ("T_U16", "uint16"),
        ("T_U32", "uint32"),
        ("T_TEXT", "asciiz"),
        ("T_BYTES", "cdata"),
        ("T_NEST", "inner"),
    )

    class inner(nla):  # type: ignore[misc]  # noqa: N801 (pyroute2 finds it by this name)
        prefix = "T_IN_"
        nla_map = (("T_IN_UNSPEC", "none"), ("T_IN_U32", "uint32"), ("T_IN_TEXT", "asciiz"))


BYTE, WORD, LONG = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
NAME = st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=20)
BLOB = st.binary(max_size=40)


@given(BYTE, WORD, LONG, NAME, BLOB)
def test_pyroute2_reads_what_is_written(byte: int, word: int, long: int, name: str, blob: bytes) -> None:
    body = b"".join(
        [
            netlink.attr_u8(1, byte),
            netlink.attr_u16(2, word),
            netlink.attr_u32(3, long),
            netlink.attr_str(4, name),
            netlink.attr(5, blob),
            netlink.nested(6, netlink.attr_u32(1, long), netlink.attr_str(2, name)),
        ]
    )
    assert len(body) % 4 == 0
    message = Sample(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    found = dict(message["attrs"])
    assert (found["T_U8"], found["T_U16"], found["T_U32"]) == (byte, word, long)
    assert found["T_TEXT"] == name
    assert bytes(found["T_BYTES"]) == blob
    assert dict(found["T_NEST"]["attrs"]) == {"T_IN_U32": long, "T_IN_TEXT": name}


@given(BYTE, WORD, LONG, NAME, BLOB)
def test_what_pyroute2_writes_is_read(byte: int, word: int, long: int, name: str, blob: bytes) -> None:
    message = Sample()
    message["attrs"] = [
        ("T_U8", byte),
        ("T_U16", word),
        ("T_U32", long),
        ("T_TEXT", name),
        ("T_BYTES", blob),
        ("T_NEST", {"attrs": [("T_IN_U32", long), ("T_IN_TEXT", name)]}),
    ]
    message.encode()
    found = netlink.attribute_map(bytes(message.data), 16)
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert (netlink.uint(found[1]), netlink.uint(found[2]), netlink.uint(found[3])) == (byte, word, long)
    assert netlink.text(found[4]) == name
    assert found[5] == blob
    inner = netlink.attribute_map(found[6])
    assert (netlink.uint(inner[1]), netlink.text(inner[2])) == (long, name)


@given(st.integers(-(2**31), 2**31 - 1))
def test_negative_numbers_are_twos_complement(number: int) -> None:
    assert netlink.attr_u32(1, number)[4:] == struct.pack("=i", number)


def test_flags_of_a_type_are_no_part_of_it() -> None:
    assert netlink.attribute_map(netlink.nested(6, b"")) == {6: b""}
    assert netlink.attribute_map(netlink.attr(6 | 0x4000, b"x")) == {6: b"x"}
    assert struct.unpack_from("=HH", netlink.nested(6)) == (4, 6 | 0x8000)


@given(st.binary(max_size=60), st.integers(0, 8))
def test_any_bytes_are_attributes_or_a_bad_message(data: bytes, offset: int) -> None:
    try:
        found = list(netlink.attributes(data, offset))
    except OSError as error:
        assert error.errno == errno.EBADMSG  # noqa: PT017
    else:
        assert sum(4 + len(payload) for _kind, payload in found) <= max(0, len(data) - offset)
        assert all(0 <= kind <= 0x3FFF for kind, _payload in found)


@pytest.mark.parametrize("length", [0, 3, 13, 0xFFFF])
def test_lengths_that_lead_astray(length: int) -> None:
    with pytest.raises(OSError, match="cut off") as caught:
        list(netlink.attributes(struct.pack("=HH8s", length, 1, b"12345678")))
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"eth0\0", "eth0"), (b"eth0", "eth0"), (b"", ""), (b"a\0b\0", "a"), (b"\xff\0", "\udcff")],
)
def test_text(payload: bytes, expected: str) -> None:
    assert netlink.text(payload) == expected


def test_request(kernel: KernelEnd) -> None:
    kernel.say(kernel.message(16, b"one!"), kernel.message(17, b"two"))
    kernel.say(kernel.message(18, b"three"), kernel.error(0))
    replies = kernel.netlink.request(18, 0x100, b"body")
    assert [(reply.kind, reply.body) for reply in replies] == [(16, b"one!"), (17, b"two"), (18, b"three")]
    asked = kernel.asked()
    assert (asked.kind, asked.flags, asked.sequence, asked.port, asked.body) == (
        18,
        0x100 | NLM_F_REQUEST | NLM_F_ACK,
        42,
        0,
        b"body",
    )
    assert kernel.silent()


def test_answers_to_older_requests_are_skipped(kernel: KernelEnd) -> None:
    kernel.say(kernel.message(16, b"old!", sequence=41), kernel.error(errno.EPERM, sequence=41))
    kernel.acknowledge(kernel.message(16, b"new!"))
    assert [reply.body for reply in kernel.netlink.request(18, 0, b"")] == [b"new!"]


def explained(said: str, request: bytes = b"") -> bytes:
    """Return what follows the errno: the request's header, its payload, the kernel's own words."""
    header = struct.pack("=IHHII", 16 + len(request), 18, 0, 42, 0)
    return (
        header + request + b"\0" * (-len(request) & 3) + netlink.attr_u32(2, 28) + netlink.attr_str(1, said)
    )


@pytest.mark.parametrize(
    ("rest", "flags", "message"),
    [
        (b"", 0, "File exists"),
        (bytes(16), 0, "File exists"),
        (explained("Device is in use"), CAPPED | ACK_TLVS, "File exists: Device is in use"),
        (explained("Device is in use", b"body of it"), ACK_TLVS, "File exists: Device is in use"),
        (explained(""), CAPPED | ACK_TLVS, "File exists"),
        (explained("not said to be there"), CAPPED, "File exists"),
        (bytes(16), CAPPED | ACK_TLVS, "File exists"),
        (b"", ACK_TLVS, "File exists"),
    ],
)
def test_a_refusal_has_the_kernels_own_words(
    rest: bytes, flags: int, message: str, kernel: KernelEnd
) -> None:
    kernel.say(kernel.error(errno.EEXIST, rest, flags))
    with pytest.raises(FileExistsError) as caught:
        kernel.netlink.request(16, 0, b"")
    assert caught.value.strerror == message


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 15,
        struct.pack("=IHHII", 15, 2, 0, 42, 0),
        struct.pack("=IHHII", 0, 2, 0, 42, 0),
        struct.pack("=IHHIIi", 24, 2, 0, 42, 0, 0),
        struct.pack("=IHHIIh", 18, 2, 0, 42, 0, 0),
    ],
)
def test_a_reply_that_is_cut_off(data: bytes, kernel: KernelEnd) -> None:
    kernel.say(data)
    with pytest.raises(OSError, match="cut off") as caught:
        kernel.netlink.request(16, 0, b"")
    assert caught.value.errno == errno.EBADMSG


def test_dump(kernel: KernelEnd) -> None:
    kernel.say(kernel.message(16, b"one!", MULTI), kernel.message(16, b"two!", MULTI))
    kernel.say(kernel.message(16, b"last", MULTI))
    kernel.say(kernel.message(DONE, struct.pack("=i", 0), MULTI))
    assert [reply.body for reply in kernel.netlink.dump(18, b"filter")] == [b"one!", b"two!", b"last"]
    asked = kernel.asked()
    assert (asked.kind, asked.flags & NLM_F_DUMP, asked.body) == (18, NLM_F_DUMP, b"filter")


def test_a_dump_that_fails_at_its_end(kernel: KernelEnd) -> None:
    kernel.say(
        kernel.message(16, b"one!", MULTI), kernel.message(DONE, struct.pack("=i", -errno.ENODEV), MULTI)
    )
    with pytest.raises(OSError, match="No such device") as caught:
        kernel.netlink.dump(18, b"")
    assert caught.value.errno == errno.ENODEV


def test_a_dump_that_fails_with_the_kernels_own_words(kernel: KernelEnd) -> None:
    body = struct.pack("=i", -errno.EINVAL) + netlink.attr_str(1, "Invalid header")
    kernel.say(kernel.message(DONE, body, MULTI | ACK_TLVS))
    with pytest.raises(OSError, match="Invalid argument: Invalid header"):
        kernel.netlink.dump(18, b"")


def test_a_dump_without_a_status_at_its_end(kernel: KernelEnd) -> None:
    kernel.say(kernel.message(DONE, b"", MULTI))
    assert kernel.netlink.dump(18, b"") == []


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_dump_is_asked_for_again(times: int, kernel: KernelEnd) -> None:
    for number in range(42, 42 + times):
        kernel.say(
            kernel.message(16, b"half", MULTI, number),
            kernel.message(16, b"torn", MULTI | DUMP_INTR, number),
            kernel.message(DONE, bytes(4), MULTI, number),
        )
    last = 42 + times
    kernel.say(kernel.message(16, b"all!", MULTI, last), kernel.message(DONE, bytes(4), MULTI, last))
    assert [reply.body for reply in kernel.netlink.dump(18, b"")] == [b"all!"]


def test_tables_that_never_stop_changing(kernel: KernelEnd) -> None:
    for number in range(42, 42 + 20):
        kernel.say(
            kernel.message(16, b"torn", MULTI | DUMP_INTR, number), kernel.message(DONE, b"", MULTI, number)
        )
    with pytest.raises(InterruptedError, match="kept changing"):
        kernel.netlink.dump(18, b"")


def test_transaction(kernel: KernelEnd) -> None:
    kernel.say(kernel.error(errno.EPERM, sequence=41))  # of something older
    kernel.say(kernel.message(9, b"news", sequence=42), kernel.error(0, sequence=43))
    kernel.say(kernel.error(0, sequence=44))
    replies = kernel.netlink.transaction(
        [(16, 0, b"begin"), (9, NLM_F_ACK, b""), (9, NLM_F_ACK | 0x800, b"x")]
    )
    assert [reply.body for reply in replies] == [b"news"]
    data = kernel._theirs.recv(1 << 16)
    seen, offset = [], 0
    while offset < len(data):
        length, kind, flags, sequence, _port = struct.unpack_from("=IHHII", data, offset)
        seen.append((kind, flags, sequence, data[offset + 16 : offset + length]))
        offset += (length + 3) & ~3
    assert seen == [
        (16, NLM_F_REQUEST, 42, b"begin"),
        (9, NLM_F_REQUEST | NLM_F_ACK, 43, b""),
        (9, NLM_F_REQUEST | NLM_F_ACK | 0x800, 44, b"x"),
    ]


def test_the_first_refusal_of_a_transaction_counts_and_nothing_is_left(kernel: KernelEnd) -> None:
    kernel.say(kernel.error(errno.ENOENT, sequence=42))
    kernel.say(kernel.error(errno.EEXIST, sequence=43))
    kernel.say(kernel.error(0, sequence=44))
    with pytest.raises(FileNotFoundError):
        kernel.netlink.transaction([(9, NLM_F_ACK, b""), (9, NLM_F_ACK, b""), (9, NLM_F_ACK, b"")])
    assert kernel.netlink._socket.gettimeout() is None, "the next answer is waited for again"
    kernel.acknowledge(kernel.message(16, b"next"))
    assert [reply.body for reply in kernel.netlink.request(18, 0, b"")] == [b"next"]


def test_a_transaction_nobody_asked_about_is_not_waited_for(kernel: KernelEnd) -> None:
    assert kernel.netlink.transaction([(9, 0, b"")]) == []


def test_a_real_socket() -> None:
    """The kernel's own answers; nothing is changed."""
    with Netlink() as nl:
        lo = link.get(nl, "lo")
        assert (lo.name, lo.kind, lo.mac) == ("lo", "", "00:00:00:00:00:00")
        assert "lo" in [each.name for each in link.links(nl)]
        with pytest.raises(OSError, match="No such device") as caught:
            link.get(nl, index=0x7FFFFFF0)
        assert caught.value.errno == errno.ENODEV
        assert caught.value.__notes__ == ["failed to look up link 2147483632"]
        with pytest.raises(OSError, match=r"Invalid argument: .*[Ii]nvalid.*header"):
            nl.dump(link.RTM_GETLINK, link.header(flags=1))
    with pytest.raises(OSError, match="Bad file descriptor"):
        nl.request(link.RTM_GETLINK, 0, b"")
