"""Requests, dumps and their answers: what a kernel can say (netlink(7), RFC 3549)."""

from __future__ import annotations

import errno
import struct

import pytest

from cni_plugins.kernel import link
from cni_plugins.kernel.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Netlink
from cni_plugins.kernel.nlattr import attr_str, attr_u32
from tests.kernel_end import ACK_TLVS, CAPPED, DONE, DUMP_INTR, MULTI, KernelEnd


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
    return header + request + b"\0" * (-len(request) & 3) + attr_u32(2, 28) + attr_str(1, said)


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
    body = struct.pack("=i", -errno.EINVAL) + attr_str(1, "Invalid header")
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
