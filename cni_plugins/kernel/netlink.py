"""One netlink socket: requests, dumps, acknowledgements (RFC 3549, netlink(7), linux/netlink.h).

pyroute2 takes 150 ms to import and `socket` 7; a whole ADD takes 10. `nlattr` packs and reads what a
message holds; `nfnetlink` has what netfilter's sockets do besides.
"""

from __future__ import annotations

import _socket
import errno
import posix
from _struct import Struct

from cni_plugins.kernel.nlattr import attribute_map, cut_off, text, uint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

NETLINK_ROUTE = 0

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSGERR_ATTR_MSG = 1

HEADER = Struct("=IHHII")
_ERRNO = Struct("=i")
_EINTR = 4
_EBADMSG = 74
_BUFFER = 1 << 17
_MAX_INTERRUPTED_DUMPS = 20
_MAX_ERRNO = 4095


class LostAnswer(OSError):  # noqa: N818 (what happened, as FileNotFoundError)
    """The kernel's answer could not be read, or was cut off: what was asked for can be done, or not."""

    def __init__(self, why: str) -> None:
        # Its errno is none that the kernel refuses a request with.
        super().__init__(_EBADMSG, f"the kernel's answer is lost: {why}")


class Reply:
    """One message from the kernel: its type and everything after the netlink header."""

    __slots__ = ("body", "flags", "kind")

    def __init__(self, kind: int, flags: int, body: bytes) -> None:
        self.kind = kind
        self.flags = flags
        self.body = body


class Netlink:
    """A netlink socket of the namespace the thread is in when it is made; a context manager closes it.

    Args:
        family: NETLINK_….
        groups: bit mask of the multicast groups whose notifications it gets (RTMGRP_…).

    Raises:
        OSError: it cannot be opened: too many are open, or there is no memory for it.
    """

    __slots__ = ("_buffer", "_sequence", "_socket")

    def __init__(self, family: int = NETLINK_ROUTE, *, groups: int = 0) -> None:
        try:
            # One that is half made closes as it is let go of.
            made = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, family)
            # The kernel's own words come with a refusal; the request itself need not come back.
            made.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            made.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            if family == NETLINK_ROUTE:  # filters in a dump's header are obeyed
                made.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            if groups:
                made.bind((0, groups))
        except OSError as error:
            error.add_note("cannot open a socket to the kernel")
            raise
        self._socket = made
        self._sequence = 0
        # For every reply anew, it would be mapped and unmapped every time.
        self._buffer = bytearray(_BUFFER)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def request(self, kind: int, flags: int, body: bytes) -> list[Reply]:
        """Send one request and return the replies up to its acknowledgement.

        Args:
            kind: the message type (RTM_…).
            flags: NLM_F_… besides REQUEST and ACK.
            body: the family's header and attributes.

        Raises:
            LostAnswer: there was none that could be read.
            OSError: EBADMSG: it could not be asked; any other is the kernel's answer, its own explanation
                (extended ack) as the message.
        """
        self._sequence += 1
        header = HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0)
        self._send(header + body)
        return self._replies(self._sequence)

    def get(self, kind: int, body: bytes, flags: int = 0) -> Reply:
        """Ask for one object; return the reply.

        Raises:
            OSError: the kernel's answer, as for `request`; EBADMSG: it has none but that all is well.
        """
        replies = self.request(kind, flags, body)
        if not replies:
            raise cut_off()
        return replies[0]

    def tell(self, kind: int, body: bytes, doing: str, flags: int = 0, *, gone: tuple[int, ...] = ()) -> bool:
        """Make a request that has no answer but yes or no.

        Args:
            kind: the message type (RTM_…).
            body: the family's header and attributes.
            doing: what is noted on a refusal.
            flags: NLM_F_….
            gone: errors that only say that what shall go is gone already.

        Returns:
            Whether it was done; false when it was gone.

        Raises:
            OSError: no; with the note.
        """
        try:
            self.request(kind, flags, body)
        except OSError as error:
            if error.errno in gone:
                return False
            error.add_note(doing)
            raise
        return True

    def dump(self, kind: int, body: bytes, what: str = "") -> list[Reply]:
        """Return every object of a kind, asking again while the kernel's tables change under the dump.

        Args:
            kind: the message type (RTM_GET…).
            body: the family's header and attributes.
            what: for the note of an error; empty: the caller adds its own.

        Raises:
            OSError: as for `request`; EINTR: they never stopped changing.
        """
        try:
            for _attempt in range(_MAX_INTERRUPTED_DUMPS):
                replies = self.request(kind, NLM_F_DUMP, body)
                if not any(reply.flags & NLM_F_DUMP_INTR for reply in replies):
                    return replies
        except OSError as error:
            if what:
                error.add_note(f"failed to list {what}")
            raise
        raise OSError(_EINTR, "the kernel's tables kept changing under a dump")

    def wait(self, seconds: float) -> None:
        """Wait for a notification of the socket's groups.

        Raises:
            TimeoutError: none came.
        """
        if seconds <= 0:
            raise _os_error(errno.ETIMEDOUT, "")
        self._socket.settimeout(seconds)
        try:
            self._socket.recv_into(self._buffer)
        except TimeoutError:
            raise _os_error(errno.ETIMEDOUT, "") from None
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more came than the socket holds: they are as good as one
                raise

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            # It is not the kernel's word on what was asked for, and must not be taken for it.
            raise OSError(_EBADMSG, f"cannot ask the kernel: {error.strerror or error}") from None

    def _replies(self, sequence: int) -> list[Reply]:
        replies: list[Reply] = []
        while True:
            for number, reply in self._receive():
                if number != sequence:
                    continue  # the rest of an answer that an exception cut short
                if reply.kind == NLMSG_ERROR:
                    failure = refusal(reply)
                    if failure is not None:
                        raise failure
                    return replies
                if reply.kind == NLMSG_DONE:
                    if len(reply.body) >= 4 and (code := _ERRNO.unpack_from(reply.body)[0]) < 0:
                        raise _os_error(-code, _said(reply, 4))
                    return replies
                replies.append(reply)

    def _receive(self) -> Iterator[tuple[int, Reply]]:
        try:
            size = self._socket.recv_into(self._buffer)
        except OSError as error:
            raise LostAnswer(error.strerror or str(error)) from None
        data = bytes(memoryview(self._buffer)[:size])
        offset = 0
        while offset < len(data):
            if offset + 16 > len(data):
                raise LostAnswer("it is cut off")
            length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
            if length < 16 or offset + length > len(data):
                raise LostAnswer("it is cut off")
            yield sequence, Reply(kind, flags, data[offset + 16 : offset + length])
            offset += (length + 3) & ~3


def refusal(reply: Reply) -> OSError | None:
    """Return the error that an acknowledgement carries; None when it is none."""
    if len(reply.body) < 4:
        return LostAnswer("it is cut off")
    code = -_ERRNO.unpack_from(reply.body)[0]
    if code == 0:
        return None
    offset = 20
    if not reply.flags & NLM_F_CAPPED and len(reply.body) >= 20:
        offset += uint(reply.body[4:8]) - 16
    return _os_error(code, _said(reply, (offset + 3) & ~3))


def _said(reply: Reply, offset: int) -> str:
    """Return the kernel's own words, in attributes from an offset on; empty when there are none."""
    if not reply.flags & NLM_F_ACK_TLVS:
        return ""
    return text(attribute_map(reply.body, offset).get(_NLMSGERR_ATTR_MSG, b""))


def _os_error(code: int, said: str) -> OSError:
    if not 0 < code <= _MAX_ERRNO:
        return OSError(_EBADMSG, f"the kernel's reply has the error number {code}")
    return OSError(code, f"{posix.strerror(code)}: {said}" if said else posix.strerror(code))
