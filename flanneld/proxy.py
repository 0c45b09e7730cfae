"""The udp backend's proxy: passes packets from a tun device to other nodes' proxies, and back.

A datagram is an IP packet as it is, as in the reference's proxy: with the time to live less one, at each
end. A packet for no node is answered with ICMP's network unreachable (RFC 792), unless it is ICMP itself or a
later fragment; one whose time is up is dropped.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
from _struct import Struct
from typing import TYPE_CHECKING

from flanneld import tun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Network

log = logging.getLogger(__name__)

Destination = tuple[str, int]

_BUFFER = 1 << 16
_RECEIVE_BUFFER = 4 << 20
"""Bytes of datagrams that wait while the interpreter does something else."""
_BURST = 32
"""Packets from one side before the other gets its turn."""
_AGAIN = 0.2
"""Seconds between attempts to get the device."""
_MIN_HEADER = 20
_TTL, _PROTOCOL, _CHECKSUM = 8, 9, 10
_IPPROTO_ICMP = 1
_SO_RCVBUFFORCE = 33
_IP = Struct("!BBHHHBBH4s4s")
_ICMP = Struct("!BBHI")
_UNREACHABLE_TTL = 8


class Table:
    """Which node has which subnet. Immutable.

    Args:
        nodes: address and port of the proxy that has a subnet.
    """

    __slots__ = ("_by_length",)

    def __init__(self, nodes: Mapping[IPv4Network, Destination] | None = None) -> None:
        by_length: dict[int, dict[int, Destination]] = {}
        for subnet, node in (nodes or {}).items():
            shift = 32 - subnet.prefixlen
            by_length.setdefault(shift, {})[int(subnet.network_address) >> shift] = node
        self._by_length = sorted(by_length.items())  # the longest prefix first

    def find(self, address: int) -> Destination | None:
        """Return the node that has an address; None when no one has."""
        for shift, nodes in self._by_length:
            node = nodes.get(address >> shift)
            if node is not None:
                return node
        return None


def decrement_ttl(packet: bytearray) -> bool:
    """Take one of a packet's time to live, and correct its checksum (RFC 1624); return False at the end."""
    if packet[_TTL] <= 1:
        return False
    packet[_TTL] -= 1
    total = (packet[_CHECKSUM] << 8 | packet[_CHECKSUM + 1]) + 0x100
    total = (total & 0xFFFF) + (total >> 16)
    packet[_CHECKSUM], packet[_CHECKSUM + 1] = total >> 8, total & 0xFF
    return True


def unreachable(packet: bytes) -> bytes:
    """Return the ICMP message to a packet's source that nobody has its destination; empty for none.

    It comes from that destination: the device's own address, which the reference takes, is one that the
    kernel accepts from nobody else (a martian, ip-sysctl's accept_local).
    """
    length = (packet[0] & 15) * 4
    fragment = (packet[6] & 0x1F) << 8 | packet[7]
    if packet[_PROTOCOL] == _IPPROTO_ICMP or fragment or not _MIN_HEADER <= length <= len(packet):
        return b""
    offender = packet[: length + 8]
    icmp = _ICMP.pack(3, 0, 0, 0) + offender
    icmp = _ICMP.pack(3, 0, _checksum(icmp), 0) + offender
    fields = (0x45, 0, _MIN_HEADER + len(icmp), 0, 0, _UNREACHABLE_TTL, _IPPROTO_ICMP)
    addresses = (packet[16:20], packet[12:16])
    return _IP.pack(*fields, _checksum(_IP.pack(*fields, 0, *addresses)), *addresses) + icmp


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) & 1)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Proxy:
    """A thread between a tun device and a UDP socket.

    Args:
        device: the tun device's name; while it is not there, the proxy tries to get it.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._table = Table()
        self._bound: Destination | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake, self._woken = socket.socketpair()

    def bind(self, address: IPv4Address, port: int) -> None:
        """Listen there, from now on.

        Raises:
            OSError: EADDRINUSE: somebody else does.
        """
        if self._bound == (str(address), port):
            return
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            made.bind((str(address), port))
        except OSError as error:
            made.close()
            error.add_note(f"failed to listen at {address}:{port}/udp")
            raise
        # The old socket is closed by the thread when it has let go of it.
        self._socket, self._bound = made, (str(address), port)
        self._wake.send(b"\0")

    def know(self, table: Table) -> None:
        """Send by this table from now on; starts the thread."""
        self._table = table
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and let go of socket and device."""
        self._stopping.set()
        self._wake.send(b"\0")
        if self._thread is not None:
            self._thread.join()
        elif self._socket is not None:
            self._socket.close()
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        told = False
        while not self._stopping.is_set():
            try:
                fd = tun.attach(self._device)
            except OSError as error:
                if not told:
                    log.warning("the proxy waits for its device", extra={"why": error})
                told = True
                select.select([self._woken], [], [], _AGAIN)
                continue
            told = False
            try:
                while not self._stopping.is_set() and self._serve(fd):
                    pass
            finally:
                os.close(fd)
        if self._socket is not None:
            self._socket.close()

    def _serve(self, fd: int) -> bool:
        """Pass packets until the socket is another one; return False when the device is gone."""
        datagrams = self._socket
        assert datagrams is not None
        poller = select.poll()
        for source in (fd, datagrams, self._woken):
            poller.register(source, select.POLLIN)
        buffer = bytearray(_BUFFER)
        try:
            while datagrams is self._socket and not self._stopping.is_set():
                ready = {number for number, _event in poller.poll()}
                if self._woken.fileno() in ready:
                    self._woken.recv(_BUFFER)
                    continue
                for number in ready:
                    pass_one = self._send if number == fd else self._receive
                    for _packet in range(_BURST):
                        if not pass_one(fd, datagrams, buffer):
                            break
        except OSError as error:
            if error.errno != errno.EBADFD:
                raise
            log.warning("the proxy's device is gone", extra={"device": self._device})
            return False
        finally:
            if datagrams is not self._socket:
                datagrams.close()
        return True

    def _send(self, fd: int, datagrams: socket.socket, buffer: bytearray) -> bool:
        """Pass a packet from the device on; return False when there is none."""
        try:
            size = os.readv(fd, (buffer,))
        except BlockingIOError:
            return False
        if size < _MIN_HEADER or buffer[0] >> 4 != 4:  # IPv6 finds its way here on its own account
            return True
        node = self._table.find(int.from_bytes(buffer[16:20], "big"))
        if node is None:
            answer = unreachable(bytes(buffer[:size]))
            if answer:
                _write(fd, answer)
        elif decrement_ttl(buffer):
            try:
                datagrams.sendto(memoryview(buffer)[:size], node)
            except OSError as error:  # as lost as on a wire
                log.debug("a packet could not be sent", extra={"node": node, "why": error})
        return True

    def _receive(self, fd: int, datagrams: socket.socket, buffer: bytearray) -> bool:
        """Pass a datagram to the device; return False when there is none."""
        try:
            size = datagrams.recv_into(buffer)
        except BlockingIOError:
            return False
        except OSError as error:  # an earlier one was refused
            log.debug("the socket reports", extra={"why": error})
            return True
        if size >= _MIN_HEADER and buffer[0] >> 4 == 4 and decrement_ttl(buffer):
            _write(fd, memoryview(buffer)[:size])
        return True


def _write(fd: int, packet: bytes | memoryview) -> None:
    try:
        os.write(fd, packet)
    except OSError as error:
        if error.errno == errno.EBADFD:
            raise
        log.debug("the device takes no packet", extra={"why": error})
