"""How a limit paces a burst of datagrams, by the kernel's own time of each one's arrival.

A program that sends at a rate needs the CPU all the time. Datagrams that wait in a queue do not: the kernel
lets them go, also while every program of the machine stands still.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from integration.waiting import PATIENCE, until

if TYPE_CHECKING:
    from integration.node import Node

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 32, 33, 35
_ROOM = 64 << 20
_PORT = 5001
_TIMESPEC = struct.Struct("=qq")
_LATENCY = 0.025
"""Seconds that a packet may wait in the queue of the plugin bandwidth, besides what a burst may hold."""
_FRAGMENT, _HEADERS, _UDP = 1480, 34, 8
_FEW = 8


class Limit(NamedTuple):
    """A rate in bits a second, and a burst in bits."""

    rate: int
    burst: int


class Paced(NamedTuple):
    """What became of a burst of datagrams.

    Attributes:
        size: bits of each, as a queue counts them.
        sent: when the last one was sent, in Unix time.
        arrivals: when each one arrived.
    """

    size: int
    sent: float
    arrivals: list[float]

    @property
    def queued(self) -> list[float]:
        """The arrivals of those that still waited in a queue when the last one had been sent."""
        return [moment for moment in self.arrivals if moment > self.sent]

    @property
    def rate(self) -> float:
        """Bits a second at which those arrived; infinite when nothing waited."""
        queued = self.queued
        return math.inf if len(queued) < _FEW else (len(queued) - 1) * self.size / (queued[-1] - queued[0])

    def excess(self, limit: Limit) -> float:
        """Return by how many bits more than a token bucket lets pass arrived in any span of time."""
        level = most = 0.0
        for before, after in pairwise(self.arrivals):
            level = max(level - limit.rate * (after - before), 0.0) + self.size
            most = max(most, level)
        return most - limit.burst


def send(node: Node, limit: Limit, target: str, sender: str, receiver: str, size: int = 1400) -> Paced:
    """Send so many datagrams at once that a limit's queue fills by half.

    Args:
        node: the machine.
        limit: what is expected on the way.
        target: the receiver's address.
        sender: the namespace that sends; empty: the node itself.
        receiver: the namespace that receives.
        size: bytes of each datagram.
    """
    wire = 8 * (size + _UDP + _HEADERS * math.ceil((size + _UDP) / _FRAGMENT))
    count = int((limit.burst + (limit.rate * _LATENCY + limit.burst) / 2) / wire)
    with node.entered(receiver):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with node.entered(sender):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        server.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        client.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ROOM)
        server.settimeout(PATIENCE)
        server.bind((target, _PORT))
        client.connect((target, _PORT))

        def stamped() -> bool:
            """Tell whether arrivals are noted as they happen: the kernel begins to do so a little later."""
            client.send(b"probe")
            select.select([server], [], [], PATIENCE)
            looked = time.time()  # what was not noted is given the time at which it is read
            return _arrival(server) < looked

        until(stamped)
        payload = bytes(size)
        for _datagram in range(count):
            client.send(payload)
        sent = time.time()
        return Paced(wire, sent, [_arrival(server) for _datagram in range(count)])


def _arrival(server: socket.socket) -> float:
    _data, ancillary, _flags, _sender = server.recvmsg(1 << 16, 64)
    ((_level, _kind, stamp),) = ancillary
    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
    return int(seconds) + int(nanoseconds) / 1e9
