"""What passes a router: every frame on any of its links, as somebody who listens there would see it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from integration.closing import Closing

if TYPE_CHECKING:
    from integration.node import Node

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
"""Bytes, so that nothing is lost before it is looked at."""


class Wire(Closing):
    """A listener (packet(7)); a context manager.

    Args:
        router: whose links are listened to, from now on.
    """

    def __init__(self, router: Node) -> None:
        with router.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def frames(self) -> list[bytes]:
        """Return what has passed since it was asked before."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(1 << 16))
            except BlockingIOError:
                return found
