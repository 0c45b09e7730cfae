"""The kernel's notices of changes in its tables (rtnetlink(7)), as which links they concern."""

from __future__ import annotations

import asyncio
import errno
import socket
from _struct import Struct
from typing import TYPE_CHECKING, NamedTuple, Self

from cni_plugins.kernel.nlattr import attribute_map, text, uint, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RTMGRP_LINK = 0x1
_RTMGRP_NEIGH = 0x4
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV6_ROUTE = 0x400
LINKS = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
ALL = LINKS | _RTMGRP_NEIGH | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE
_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NFNLGRP_NFTABLES = 7
_BUFFER = 1 << 16
_RECEIVE_BUFFER = 1 << 20
"""Room for some thousand notices: a join of many nodes sends that many, also to us who wrote them."""
_CALM = 0.05
"""Seconds in which notices are gathered: one change sends several."""

_RTM_LINK = (16, 17)
_RTM_ADDRESS = (20, 21)
_RTM_ROUTE = (24, 25)
_RTM_NEIGHBOUR = (28, 29)
_IFLA_IFNAME = 3
_RTA_DST = 1
_RTA_OIF = 4
_HEADER = Struct("=IHHII")
_INDEX_AT_4 = Struct("=xxxxi")
_LENGTH_AT_1 = Struct("=xB")


class Lost:
    """Notices were lost: the socket's buffer was full."""


LOST = Lost()


class Change(NamedTuple):
    """What changed.

    Attributes:
        link: index of the link that it concerns; 0 for a route that leads nowhere, or over several links.
        name: of the link that changed itself.
        destination: of a route, and its length.
    """

    link: int
    name: str = ""
    destination: tuple[bytes, int] | None = None


Notice = Lost | Change


class Filters:
    """A socket that hears of changes in nf_tables; a context manager.

    Args:
        tables: the names of the tables that matter.
    """

    def __init__(self, tables: Iterable[str]) -> None:
        self._names = [name.encode() + b"\0" for name in tables]
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    async def next(self) -> None:
        """Wait for a change of one of the tables, or a loss of notices, and what comes right behind it."""
        loop = asyncio.get_running_loop()
        while not self._matters(await _received(loop, self._socket)):
            pass
        await asyncio.sleep(_CALM)
        while True:
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                _lost(error)

    def _matters(self, data: bytes) -> bool:
        # Names stand in messages as they are; one that stands there by chance costs one look.
        return not data or any(name in data for name in self._names)


async def _received(loop: asyncio.AbstractEventLoop, source: socket.socket) -> bytes:
    """Return the next datagram; nothing when some were lost."""
    try:
        return await loop.sock_recv(source, _BUFFER)
    except OSError as error:
        _lost(error)
        return b""


class Notices:
    """A socket that hears of changes; a context manager.

    Args:
        groups: LINKS or ALL.
    """

    def __init__(self, groups: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.bind((0, groups))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    async def gather(self) -> list[Notice]:
        """Wait for a notice, and return it with those that come right behind it."""
        loop = asyncio.get_running_loop()
        found: list[Notice] = []
        data = await _received(loop, self._socket)
        found += _parse(data) if data else [LOST]
        await asyncio.sleep(_CALM)
        while True:
            try:
                found += _parse(self._socket.recv(_BUFFER))
            except BlockingIOError:
                return found
            except OSError as error:
                found.append(_lost(error))


def _lost(error: OSError) -> Lost:
    if error.errno != errno.ENOBUFS:
        raise error
    return LOST


def _parse(data: bytes) -> Iterator[Notice]:
    offset = 0
    while offset < len(data):
        length, kind, _flags, _sequence, _port = unpack(_HEADER, data[offset : offset + 16])
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, "the kernel's notice is cut off")
        body = data[offset + 16 : offset + length]
        offset += (length + 3) & ~3
        if kind in _RTM_LINK:
            yield Change(unpack(_INDEX_AT_4, body)[0], text(attribute_map(body, 16).get(_IFLA_IFNAME, b"")))
        elif kind in _RTM_ADDRESS or kind in _RTM_NEIGHBOUR:
            yield Change(unpack(_INDEX_AT_4, body)[0])
        elif kind in _RTM_ROUTE:
            given = attribute_map(body, 12)
            destination = given.get(_RTA_DST, b""), unpack(_LENGTH_AT_1, body)[0]
            yield Change(uint(given.get(_RTA_OIF, b"")), destination=destination)
