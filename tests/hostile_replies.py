"""Hostile replies of the kernel: real ones, spoilt, for every function that reads some.

tests/kernel_replies.txt has what a kernel said; `python -m integration.record_replies` records it anew. A
reply is spoilt by its bytes, or by its attributes with all lengths kept right. Whatever comes, a function
returns, or raises an OSError: the seam to CNI errors knows no other.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

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
from cni_plugins.spec import skel
from flanneld import notices, routes
from tests.hostile_bytes import spoilt

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from cni_plugins.kernel.netlink import Netlink

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
FILE = os.path.join(os.path.dirname(__file__), "kernel_replies.txt")
FAMILY_HEADERS = {16: 16, 20: 8, 24: 12, 28: 12, 32: 12, 36: 20, 44: 20}
"""Length of the family's header by message type; nfnetlink's have four bytes."""
INDEX = 2

Exchange = list[bytes]
"""The datagrams that answer one send(2), sequence numbers counted from the first message sent."""


class Script:
    """Stands in for a socket: each send is answered by the next exchange; what never comes times out."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._exchanges = list(exchanges)
        self._waiting: list[bytes] = []

    def send(self, data: bytes) -> int:
        first = HEADER.unpack_from(data)[3]
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


def _told(nl: Netlink) -> Any:
    return [
        list(notices._parse(HEADER.pack(16 + len(reply.body), reply.kind, 0, 0, 0) + reply.body))
        for reply in nl.dump(link.RTM_GETLINK, link.header())
    ]


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
    "flanneld routes": lambda nl: routes.found(nl, 4),
    "flanneld notices": _told,
}
"""Every function that reads what the kernel says, by the name of what was recorded for it."""


def recorded() -> dict[str, list[Exchange]]:
    """Return what a kernel said to each reader."""
    found: dict[str, list[Exchange]] = {}
    with open(FILE, encoding="ascii") as file:
        for line in file:
            name, _tab, text = line.rstrip("\n").partition("\t")
            found[name] = [
                [bytes.fromhex(datagram) for datagram in exchange.split(",") if datagram]
                for exchange in text.split(";")
            ]
    return found


class Replies:
    """Makes and tries cases."""

    def __init__(self) -> None:
        self._recorded = recorded()
        self._names = sorted(READERS)
        self._datagrams = sorted(
            {datagram for exchanges in self._recorded.values() for each in exchanges for datagram in each}
        )

    def __call__(self, chance: random.Random) -> str:
        """Try a case; return which kind of answer came."""
        name = chance.choice(self._names)
        exchanges = [list(exchange) for exchange in self._recorded[name]]
        if chance.random() < 0.1:
            exchanges = [[chance.choice(self._datagrams)] for _each in exchanges]
        for exchange in exchanges:
            for index, datagram in enumerate(exchange):
                exchange[index] = self._spoilt(chance, datagram)
        return read(name, exchanges)

    def _spoilt(self, chance: random.Random, datagram: bytes) -> bytes:
        if chance.random() < 0.5:
            return spoilt(chance, datagram, self._datagrams)
        messages = split(datagram)
        if messages and chance.random() < 0.1:
            del messages[chance.randrange(len(messages))]
        if messages:
            at = chance.randrange(len(messages))
            kind, flags, sequence, body = messages[at]
            start = FAMILY_HEADERS.get(kind & ~3, 4) if kind != 2 else 20
            if chance.random() < 0.1:
                body = body[: chance.randrange(start + 1)]
            else:
                body = body[:start] + reshaped(chance, body[start:])
            messages[at] = kind, chance.choice((flags, flags, flags, 0x10, 0x200)), sequence, body
        return b"".join(
            HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) & 3)
            for kind, flags, sequence, body in messages
        )


def read(name: str, exchanges: list[Exchange]) -> str:
    """Let a reader read; return which kind of answer came."""
    try:
        READERS[name](scripted(exchanges))
    except BlockingIOError:
        return "waits for more"
    except OSError as error:
        said = skel.as_cni_error(error).msg
        return "refused" if "\n" not in said else said
    return "read"


def split(datagram: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return the messages: type, flags, sequence number, body."""
    found = []
    at = 0
    while at + 16 <= len(datagram):
        length, kind, flags, sequence, _port = HEADER.unpack_from(datagram, at)
        found.append((kind, flags, sequence, datagram[at + 16 : at + length]))
        at += max(16, (length + 3) & ~3)
    return found


def reshaped(chance: random.Random, data: bytes, depth: int = 0) -> bytes:
    """Return attributes of which one is missing, doubled, shorter, longer or of another type."""
    parts = list(_attributes(data))
    if not parts:
        return spoilt(chance, data)
    at = chance.randrange(len(parts))
    kind, payload = parts[at]
    what = chance.randrange(8)
    if what == 0:
        del parts[at]
    elif what == 1:
        parts.insert(at, (kind, chance.choice(parts)[1]))
    elif what == 2:
        parts[at] = chance.choice(parts)[0], payload
    elif what == 3:
        parts[at] = kind, payload[: chance.randrange(len(payload) + 1)]
    elif what == 4:
        parts[at] = kind, payload + chance.randbytes(chance.choice((1, 2, 4, 8, 300)))
    elif what == 5 or depth > 5:
        parts[at] = kind, bytes(chance.choice((0, 255)) for _byte in payload)
    else:
        parts[at] = kind, reshaped(chance, payload, depth + 1)
    return b"".join(
        ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) & 3) for kind, payload in parts
    )


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Return the attributes that data may be; none if it cannot be any."""
    found = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            return []
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > len(data):
            return []
        found.append((kind, data[at + 4 : at + length]))
        at += (length + 3) & ~3
    return found
