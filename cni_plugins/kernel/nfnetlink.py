"""A netlink socket to netfilter: batches, and a close that does not wait (linux/netfilter/nfnetlink.h)."""

from __future__ import annotations

import _socket
from _struct import Struct

from cni_plugins.kernel.netlink import HEADER, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, Netlink, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Reply

NETLINK_NETFILTER = 12
_FDS = Struct("=ii")


class Netfilter(Netlink):
    """A netfilter socket of the namespace the thread is in when it is made; a context manager closes it.

    Raises:
        OSError: it cannot be opened: too many are open, or there is no memory for it.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket, without waiting for the kernel."""
        _leave_to_kernel(self._socket)

    def transaction(self, messages: list[tuple[int, int, bytes]]) -> list[Reply]:
        """Send several messages at once and collect an answer for each that asks for an acknowledgement.

        They are a batch (linux/netfilter/nfnetlink.h): all of it takes effect, or nothing does.

        Args:
            messages: type, flags (REQUEST is added) and body of each.

        Raises:
            LostAnswer: all of it took effect, or nothing did.
            OSError: the first refusal.
        """
        first = self._sequence + 1
        parts = []
        awaited = set()
        for kind, flags, body in messages:
            self._sequence += 1
            parts.append(HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0))
            parts.append(body + b"\0" * (-len(body) & 3))
            if flags & NLM_F_ACK:
                awaited.add(self._sequence)
        self._send(b"".join(parts))
        failure: OSError | None = None
        replies = []
        while awaited and failure is None:
            for sequence, reply in self._receive():
                if sequence < first:
                    continue
                if reply.kind == NLMSG_ERROR:
                    failure = failure or refusal(reply)
                    awaited.discard(sequence)
                else:
                    replies.append(reply)
        if failure is not None:
            self._drain()
            raise failure
        return replies

    def _drain(self) -> None:
        """Throw away what is left of a failed transaction's answers: the kernel queued them all at once."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv_into(self._buffer)
        except OSError:  # there is no more, or what there is cannot be read: it is not wanted
            self._socket.setblocking(True)


def _leave_to_kernel(netfilter: _socket.socket) -> None:
    """Keep a socket alive past its closing, until the kernel collects it: some milliseconds later.

    The last close of an nfnetlink socket waits for a grace period, 10 to 30 ms, while rules are on their way
    out, whoever deleted them (nft_rcv_nl_event in the kernel, which looks for tables that the socket owns).
    Here the last one who holds it is a socket pair that only holds itself (unix(7), SCM_RIGHTS), which the
    kernel finds in a worker of its own, from 6.10 on; before, it does that in our close, and nothing is
    gained or lost.
    """
    try:
        one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    except OSError:
        netfilter.close()
        return  # no more descriptors: then the close waits
    try:
        held = _FDS.pack(netfilter.fileno(), other.fileno())
        one.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, held)])
    except OSError:
        return  # too many are held already; then the close waits
    finally:
        netfilter.close()
        other.close()
        one.close()  # the last: this is what makes the kernel look
