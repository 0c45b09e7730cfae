"""Hostile replies of the kernel: real ones, spoilt, for every function that reads some.

tests/kernel_replies.txt has what a kernel said; `python -m integration.record_replies` records it anew. A
reply is spoilt by its bytes, or by its attributes with all lengths kept right. Whatever comes, a function
returns, or raises an OSError: the seam to CNI errors knows no other.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from cni_plugins.kernel import link
from cni_plugins.spec import skel
from flanneld import notices, routes
from tests import kernel_readers
from tests.hostile_bytes import spoilt
from tests.kernel_readers import HEADER, scripted

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from cni_plugins.kernel.netlink import Netlink
    from tests.kernel_readers import Exchange

ATTRIBUTE = struct.Struct("=HH")
FILE = os.path.join(os.path.dirname(__file__), "kernel_replies.txt")
FAMILY_HEADERS = {16: 16, 20: 8, 24: 12, 28: 12, 32: 12, 36: 20, 44: 20}
"""Length of the family's header by message type; nfnetlink's have four bytes."""


def _told(nl: Netlink) -> Any:
    return [
        list(notices._parse(HEADER.pack(16 + len(reply.body), reply.kind, 0, 0, 0) + reply.body))
        for reply in nl.dump(link.RTM_GETLINK, link.header())
    ]


READERS: dict[str, Callable[[Netlink], Any]] = {
    **kernel_readers.READERS,
    "flanneld routes": lambda nl: routes.found(nl, 4),
    "flanneld notices": _told,
}
"""These, and flanneld's."""


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
