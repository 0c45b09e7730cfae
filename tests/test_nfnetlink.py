"""Batches to netfilter, and how the kernel can answer them (linux/netfilter/nfnetlink.h)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest

from cni_plugins.kernel.netlink import NLM_F_ACK, NLM_F_REQUEST

if TYPE_CHECKING:
    from tests.kernel_end import KernelEnd


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
