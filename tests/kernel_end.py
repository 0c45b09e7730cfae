"""The kernel's end of a netlink socket, held by a test: it sees what is asked and says what is answered."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Self

from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni_plugins.kernel.nfnetlink import Netfilter

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.Struct("=IHHII")
ERROR, DONE = 2, 3
MULTI, DUMP_INTR, CAPPED, ACK_TLVS = 0x2, 0x10, 0x100, 0x200
CLASSES = {16: ifinfmsg, 17: ifinfmsg, 18: ifinfmsg, 19: ifinfmsg}
CLASSES |= dict.fromkeys((20, 21, 22), ifaddrmsg) | dict.fromkeys((24, 25, 26), rtmsg)
CLASSES |= dict.fromkeys((28, 29, 30), ndmsg)


class Asked:
    """A request: its header, its body, and the whole as pyroute2 reads it."""

    def __init__(self, data: bytes) -> None:
        self.length, self.kind, self.flags, self.sequence, self.port = HEADER.unpack_from(data)
        assert len(data) == self.length
        self.body = data[16:]
        self.data = data

    def decoded(self) -> Any:
        message = CLASSES[self.kind](self.data)
        message.decode()
        return message


class KernelEnd:
    """A connected pair of sockets in the place of the one to the kernel."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self._theirs):
            end.settimeout(60)
        self._ours = ours
        self.netlink = Netfilter.__new__(Netfilter)  # what any netlink socket does, and more
        self.netlink._sequence = 41
        self.netlink._socket = ours
        self.netlink._buffer = bytearray(1 << 17)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ours.close()
        self._theirs.close()

    @property
    def next(self) -> int:
        """The sequence number that the next request will have."""
        return self.netlink._sequence + 1

    def say(self, *messages: bytes) -> None:
        """Send messages in one datagram."""
        self._theirs.send(b"".join(messages))

    def acknowledge(self, *messages: bytes, code: int = 0) -> None:
        """Answer the next request with messages and an acknowledgement."""
        self.say(*messages, self.error(code))

    def asked(self) -> Asked:
        return Asked(self._theirs.recv(1 << 16))

    def silent(self) -> bool:
        """Tell whether nothing more was asked."""
        self._theirs.setblocking(False)
        try:
            self._theirs.recv(1 << 16)
        except BlockingIOError:
            return True
        return False

    def message(self, kind: int, body: bytes, flags: int = 0, sequence: int | None = None) -> bytes:
        number = self.next if sequence is None else sequence
        return HEADER.pack(16 + len(body), kind, flags, number, 0) + body + b"\0" * (-len(body) & 3)

    def error(self, code: int, rest: bytes = b"", flags: int = 0, sequence: int | None = None) -> bytes:
        """Return an acknowledgement (code 0) or a refusal; `rest` follows the errno."""
        return self.message(ERROR, struct.pack("=i", -code) + rest, flags, sequence)

    def encoded(self, kind: int, value: dict[str, Any], flags: int = 0, sequence: int | None = None) -> bytes:
        """Return a message of the kernel's as pyroute2 writes it."""
        message = CLASSES[kind]()
        for key, field in value.items():
            message[key] = field
        number = self.next if sequence is None else sequence
        message["header"] = {"type": kind, "flags": flags, "sequence_number": number, "pid": 0}
        message.encode()
        return bytes(message.data)


CREATE_NEW = 0x400 | 0x200
CREATE = 0x400
MAC = "02:00:5e:10:00:ff"
INDEXES = st.integers(1, 2**31 - 1)


def attributes(message: Any) -> dict[str, Any]:
    """Return a message's attributes with nested ones as dicts; of one that occurs twice, a list."""
    found: dict[str, Any] = {}
    for name, held in message["attrs"]:
        value = attributes(held) if hasattr(held, "get_attr") and "attrs" in held else held
        found[name] = [found[name], value] if name in found else value
    return found


def asked(kernel: KernelEnd, call: Callable[..., object], *args: Any, **options: Any) -> Asked:
    """Make a call that the kernel agrees to; return what it asked."""
    kernel.acknowledge()
    call(kernel.netlink, *args, **options)
    return kernel.asked()


def change_flags(request: Asked) -> int:
    """Return a request's flags but those that each has."""
    return int(request.flags) & ~0x5  # REQUEST and ACK
