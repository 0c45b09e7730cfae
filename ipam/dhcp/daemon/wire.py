"""The socket of a lease that is being talked about: a packet socket in the container's namespace (packet(7)).

A UDP socket would not do: before the interface has an address, the kernel takes no answers that are sent to
it. A filter in the kernel keeps the container's other traffic out.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from typing import TYPE_CHECKING

from ipam.dhcp.daemon import packet
from ipam.dhcp.daemon.packet import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.kernel.netns import Namespace

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_EVERYBODY = b"\xff" * 6
_MAX_PACKET = 4096
_QUEUE = 16
"""Messages that wait to be looked at; more are dropped, as a busy kernel would."""

# UDP, not a later fragment, to the client's port (linux/filter.h): code, jump if true, if false, operand.
_FILTER = (
    (0x30, 0, 0, 9),  # ldb [9]: the protocol
    (0x15, 0, 6, 17),
    (0x28, 0, 0, 6),  # ldh [6]: the fragment's offset
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 0),  # ldxb 4 * ([0] & 0xf): the header's length
    (0x48, 0, 0, 2),  # ldh [x + 2]: the port
    (0x15, 0, 1, packet.CLIENT_PORT),
    (0x06, 0, 0, _MAX_PACKET),
    (0x06, 0, 0, 0),
)


class PacketWire:
    """Carries messages over one interface of a container.

    Args:
        netns: the container's namespace.
        ifname: the interface, which must be up to send.
        close: how to close the socket: that waits for a grace period of the kernel.

    Raises:
        OSError: there is no such interface.
    """

    def __init__(self, netns: Namespace, ifname: str, close: Callable[[Callable[[], None]], object]) -> None:
        self._ifname = ifname
        self._close = close
        self._messages: asyncio.Queue[tuple[Message, bytes]] = asyncio.Queue(_QUEUE)
        self._loop = asyncio.get_running_loop()
        # With protocol 0 nothing comes in before the filter is there and the interface is chosen.
        with netns.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            self._socket.setblocking(False)
            program = b"".join(struct.pack("=HBBI", *each) for each in _FILTER)
            code = ctypes.create_string_buffer(program, len(program))
            given = struct.pack("@HP", len(_FILTER), ctypes.addressof(code))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)
            self._socket.bind((ifname, _ETH_P_IP))
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._socket)
        self._close(self._socket.close)

    def send(self, message: Message, server: bytes = b"", hardware: bytes = b"") -> None:
        """Send to a server, at a hardware address if that is known; else to all.

        What the kernel does not take is lost, as it can be anywhere on the way: requests are repeated.
        """
        target = server or packet.BROADCAST
        data = packet.wrap(message.encode(), message.ciaddr, target)
        to = hardware if server and len(hardware) == len(_EVERYBODY) else _EVERYBODY
        try:
            self._socket.sendto(data, (self._ifname, _ETH_P_IP, 0, 0, to))
        except OSError:
            return

    async def receive(self) -> tuple[Message, bytes]:
        """Return the next message, and the hardware address it came from."""
        return await self._messages.get()

    def _readable(self) -> None:
        for _each in range(_QUEUE):
            try:
                data, (_name, _protocol, kind, _type, source) = self._socket.recvfrom(_MAX_PACKET)
            except OSError:  # nothing more; or the interface went down, which is no end
                return
            if kind in (socket.PACKET_OTHERHOST, socket.PACKET_OUTGOING) or self._messages.full():
                continue
            try:
                message = Message.decode(packet.unwrap(data))
            except ValueError:
                continue
            self._messages.put_nowait((message, source))
