"""The kernel's notices that links or addresses have changed."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
_BUFFER = 1 << 16
_CALM = 0.05
"""Seconds in which notices count as one: a link that comes up sends several."""


async def links_changed() -> AsyncIterator[None]:
    """Yield whenever links or addresses may have changed, also where notices were lost."""
    loop = asyncio.get_running_loop()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as notices:
        notices.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        while True:
            await _next(loop, notices)
            await asyncio.sleep(_CALM)
            _drain(notices)
            yield


async def _next(loop: asyncio.AbstractEventLoop, notices: socket.socket) -> None:
    try:
        await loop.sock_recv(notices, _BUFFER)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # more came than the socket holds: they are as good as one
            raise


def _drain(notices: socket.socket) -> None:
    while True:
        try:
            notices.recv(_BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
