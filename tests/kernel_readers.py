"""The functions that read what the kernel says, and a kernel whose part is written down.

What is imported here is what the plugins' executable has, so that a program built like it can hold this, too.
"""

from __future__ import annotations

from _struct import Struct

from cni_plugins.kernel import (
    addr,
    bridgeport,
    conntrack,
    link,
    neigh,
    newlink,
    nft,
    nftbatch,
    nftexpr,
    nftset,
    route,
    rule,
    tc,
    tunnel,
)
from cni_plugins.kernel.nfnetlink import Netfilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni_plugins.kernel.netlink import Netlink

HEADER = Struct("=IHHII")
INDEX = 2

Exchange = list[bytes]
"""The datagrams that answer one send(2), sequence numbers counted from the first message sent."""


class Script:
    """Stands in for a socket: each send is answered by the next exchange; what never comes times out."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._exchanges = list(exchanges)
        self._waiting: list[bytes] = []
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> int:
        first = HEADER.unpack_from(data)[3]
        self.sent.append(data)
        answer = self._exchanges.pop(0) if self._exchanges else []
        self._waiting = [renumbered(datagram, first) for datagram in answer]
        return len(data)

    def recv_into(self, buffer: bytearray) -> int:
        if not self._waiting:
            raise BlockingIOError(11, "nothing more")
        data = self._waiting.pop(0)[: len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def setblocking(self, _how: bool) -> None:
        pass


def renumbered(datagram: bytes, by: int) -> bytes:
    """Return a datagram with the messages' sequence numbers moved; of a broken one, as far as it goes."""
    made = bytearray(datagram)
    at = 0
    while at + 16 <= len(made):
        length, kind, flags, sequence, port = HEADER.unpack_from(made, at)
        HEADER.pack_into(made, at, length, kind, flags, (sequence + by) & 0xFFFFFFFF, port)
        at += max(16, (length + 3) & ~3)
    return bytes(made)


def scripted(exchanges: list[Exchange]) -> Netfilter:
    """Return a conversation in which the kernel's part is written down."""
    made = Netfilter.__new__(Netfilter)
    made._sequence, made._buffer = 7, bytearray(1 << 17)
    made._socket = Script(exchanges)  # type: ignore[assignment]
    return made


def _tables(nl: Netlink) -> nft.Nft:
    assert isinstance(nl, Netfilter)
    made = nft.Nft.__new__(nft.Nft)
    made._netlink = nl
    return made


TABLE = nftbatch.Table(nftbatch.INET, "cni")
SET = nftset.Set(TABLE, "known", (nftset.IPV4_ADDR,))


def _committed(nl: Netlink) -> Any:
    batch = nftbatch.Batch()
    batch.add_rule(TABLE, nftbatch.Rule("pods", nftexpr.accept(), "comment"))
    return _tables(nl).commit(batch)


def _compared(nl: Netlink) -> Any:
    return [nftexpr.compared(each.expressions) for each in _tables(nl).rules(TABLE, "pods")]


def _forgotten(nl: Netlink) -> Any:
    return conntrack.forget(nl, conntrack.Flows(4, [(5353, None)]))


READERS: dict[str, Callable[[Netlink], Any]] = {
    "link.find": lambda nl: link.find(nl, "eth0"),
    "link.links": link.links,
    "newlink.has_kind": lambda nl: newlink.has_kind(nl, "nosuch"),
    "addr.of_link": lambda nl: [str(each) for each in addr.of_link(nl, INDEX)],
    "addr.settle": lambda nl: addr.settle(nl, nl, INDEX, 0.0),
    "route.of_link 4": lambda nl: [str(each.dst) for each in route.of_link(nl, INDEX, 2)],
    "route.of_link 6": lambda nl: [str(each.dst) for each in route.of_link(nl, INDEX, 10)],
    "route.default_link": route.default_link,
    "route.towards": lambda nl: route.towards(nl, bytes((10, 1, 2, 3))),
    "rule.rules": lambda nl: [str(each) for each in rule.rules(nl)],
    "neigh.neighbours": lambda nl: neigh.neighbours(nl, INDEX, 4),
    "neigh.forwarding": lambda nl: neigh.forwarding(nl, INDEX),
    "bridgeport.vlans": bridgeport.vlans,
    "tunnel.vxlan": lambda nl: tunnel.vxlan(nl, "vxlan"),
    "tunnel.ipip": lambda nl: tunnel.ipip(nl, "vxlan"),
    "tc.root_tbf": lambda nl: tc.root_tbf(nl, INDEX),
    "tc.has_ingress": lambda nl: tc.has_ingress(nl, INDEX),
    "tc.redirects": lambda nl: tc.redirects(nl, INDEX),
    "nft.chain_use": lambda nl: _tables(nl).chain_use(TABLE, "pods"),
    "nft.decides": lambda nl: _tables(nl).decides(TABLE, "pods"),
    "nft.rules": _compared,
    "nft.rule": lambda nl: _tables(nl).rule(TABLE, "pods", 2),
    "nft.commit": _committed,
    "nftset.elements": lambda nl: nftset.elements(_tables(nl), SET),
    "nftset.comment": lambda nl: nftset.comment(_tables(nl), SET, bytes((10, 1, 2, 3))),
    "conntrack.forget": _forgotten,
}
"""Every function of the plugins that reads what the kernel says, by the name of what was recorded for it."""
