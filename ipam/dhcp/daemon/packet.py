"""DHCP messages (RFC 2131, section 2; RFC 2132; RFC 3396), and the IPv4 and UDP around them.

Whatever comes in is somebody else's: every decoder raises ValueError for what it cannot read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ipam.dhcp.options import MESSAGE_TYPE, OVERLOAD

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = 1, 2, 3, 4, 5, 6, 7
SERVER_PORT, CLIENT_PORT = 67, 68
ANY, BROADCAST = bytes(4), b"\xff\xff\xff\xff"
ETHERNET = 1
BOOT_REQUEST, BOOT_REPLY = 1, 2

_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE = b"\x63\x82\x53\x63"
_BROADCAST_FLAG = 0x8000
_PAD, _END = 0, 255
_MAX_OPTION = 255
_MIN_SIZE = 300
"""BOOTP's: relays and servers are known that drop what is shorter."""
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_UDP_PROTOCOL = 17


@dataclass(frozen=True, slots=True)
class Message:
    """A DHCP message.

    Attributes:
        op: BOOT_REQUEST or BOOT_REPLY.
        xid: the transaction.
        chaddr: the client's hardware address.
        secs: seconds since the client began.
        broadcast: the client can only be answered by broadcast.
        ciaddr: the address that the client has; four bytes, as those that follow.
        yiaddr: the address that the server gives.
        siaddr: the server to boot from next.
        giaddr: the relay.
        options: number to value; one that came in parts is joined.
    """

    op: int
    xid: int
    chaddr: bytes
    secs: int = 0
    broadcast: bool = False
    ciaddr: bytes = ANY
    yiaddr: bytes = ANY
    siaddr: bytes = ANY
    giaddr: bytes = ANY
    options: dict[int, bytes] = field(default_factory=dict)

    @property
    def kind(self) -> int:
        """DISCOVER, OFFER, …; 0 when it does not say."""
        value = self.options.get(MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else 0

    def encode(self) -> bytes:
        """Return the bytes."""
        flags = _BROADCAST_FLAG if self.broadcast else 0
        addresses = (self.ciaddr, self.yiaddr, self.siaddr, self.giaddr)
        fixed = _FIXED.pack(
            *(self.op, ETHERNET, len(self.chaddr), 0, self.xid, min(self.secs, 0xFFFF), flags),
            *(*addresses, self.chaddr, b"", b""),
        )
        first = {number: self.options[number] for number in (MESSAGE_TYPE,) if number in self.options}
        body = b"".join(_option(number, value) for number, value in (first | self.options).items())
        return (fixed + _COOKIE + body + bytes((_END,))).ljust(_MIN_SIZE, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Read a message.

        Raises:
            ValueError: it is none, or is cut off.
        """
        if len(data) < _FIXED.size + len(_COOKIE) or data[_FIXED.size : _FIXED.size + 4] != _COOKIE:
            raise ValueError("not a DHCP message")
        (op, _type, length, _hops, xid, secs, flags, *addresses, chaddr, sname, file) = _FIXED.unpack_from(
            data
        )
        if length > len(chaddr):
            raise ValueError("a hardware address of more than 16 bytes")
        options: dict[int, bytes] = {}
        _read_options(data[_FIXED.size + 4 :], options)
        overload = options.get(OVERLOAD, b"\0")
        if overload not in (b"\0", b"\1", b"\2", b"\3"):
            raise ValueError("an option overload that RFC 2132 does not know")
        # RFC 3396, section 5: in this order. What these two say of overloading counts for nothing.
        for bit, area in ((1, file), (2, sname)):
            if overload[0] & bit:
                _read_options(area, options)
        ciaddr, yiaddr, siaddr, giaddr = addresses
        broadcast = bool(flags & _BROADCAST_FLAG)
        return cls(op, xid, chaddr[:length], secs, broadcast, ciaddr, yiaddr, siaddr, giaddr, options)


def _option(number: int, value: bytes) -> bytes:
    """Return an option; a long one in parts (RFC 3396)."""
    parts = [value[start : start + _MAX_OPTION] for start in range(0, len(value), _MAX_OPTION)] or [b""]
    return b"".join(bytes((number, len(part))) + part for part in parts)


def _read_options(area: bytes, into: dict[int, bytes]) -> None:
    at = 0
    while at < len(area):
        number = area[at]
        at += 1
        if number == _END:
            return
        if number == _PAD:
            continue
        if at >= len(area) or at + 1 + area[at] > len(area):
            raise ValueError(f"option {number} is cut off")
        value = area[at + 1 : at + 1 + area[at]]
        at += 1 + len(value)
        into[number] = into.get(number, b"") + value


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def wrap(payload: bytes, source: bytes, target: bytes) -> bytes:
    """Return an IPv4 packet from a client's port to a server's."""
    length = _UDP.size + len(payload)
    pseudo = source + target + struct.pack("!BBH", 0, _UDP_PROTOCOL, length)
    udp = _UDP.pack(CLIENT_PORT, SERVER_PORT, length, 0)
    summed = checksum(pseudo + udp + payload) or 0xFFFF
    header = _IP.pack(0x45, 0, _IP.size + length, 0, 0, 64, _UDP_PROTOCOL, 0, source, target)
    header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return header + _UDP.pack(CLIENT_PORT, SERVER_PORT, length, summed) + payload


def unwrap(packet: bytes) -> bytes:
    """Return what an IPv4 packet to a client's port carries.

    UDP's checksum is not looked at: over a veth pair it is never filled in, and a frame has its own.

    Raises:
        ValueError: it is no such packet, a part of one, or is cut off.
    """
    if len(packet) < _IP.size or packet[0] >> 4 != 4:
        raise ValueError("not IPv4")
    header = (packet[0] & 0xF) * 4
    length, fragment = struct.unpack_from("!H2xH", packet, 2)
    if header < _IP.size or not header + _UDP.size <= length <= len(packet):
        raise ValueError("an IPv4 packet that is cut off")
    if packet[9] != _UDP_PROTOCOL or fragment & _MORE_FRAGMENTS_OR_OFFSET:
        raise ValueError("not a whole UDP datagram")
    _source, target, size, _sum = _UDP.unpack_from(packet, header)
    if target != CLIENT_PORT or not _UDP.size <= size <= length - header:
        raise ValueError("not for a DHCP client, or cut off")
    return packet[header + _UDP.size : header + size]
