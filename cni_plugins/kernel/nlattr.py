"""Netlink attributes: packing them, and reading what the kernel says in them (struct nlattr, netlink(7)).

Tests decode with pyroute2 what is encoded here, and the other way round.
"""

from __future__ import annotations

import errno
from _struct import Struct
from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_ATTR = Struct("=HH")
_LONGEST_NUMBER = 8
_LONGEST_ATTRIBUTE = 0xFFFF


def attr(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes.

    Raises:
        OSError: EMSGSIZE: it is longer than an attribute can say.
    """
    length = 4 + len(payload)
    if length > _LONGEST_ATTRIBUTE:
        raise OSError(errno.EMSGSIZE, f"{len(payload)} bytes are too many for the kernel")
    return _ATTR.pack(length, kind) + payload + b"\0" * (-length & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attr(kind | NLA_F_NESTED, b"".join(attributes))


def attr_u8(kind: int, value: int) -> bytes:
    """Return an attribute of one byte."""
    return attr(kind, bytes((value,)))


def attr_u16(kind: int, value: int) -> bytes:
    """Return an attribute of two bytes in the machine's order."""
    return attr(kind, value.to_bytes(2, byteorder))


def attr_u32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes in the machine's order; a negative value as its two's complement."""
    return attr(kind, (value & 0xFFFFFFFF).to_bytes(4, byteorder))


def attr_str(kind: int, text: str) -> bytes:
    """Return an attribute of a string with the NUL at its end."""
    return attr(kind, text.encode() + b"\0")


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the type, without its flag bits, and payload of each attribute from an offset on.

    Raises:
        OSError: EBADMSG: an attribute's length leads out of the data.
    """
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise cut_off()
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attribute_map(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes by type; of a type that occurs twice, the last."""
    return dict(attributes(data, offset))


def required(found: dict[int, bytes], kind: int) -> bytes:
    """Return the attribute of a type that no such message goes without.

    Raises:
        OSError: EBADMSG: this one does.
    """
    if kind not in found:
        raise OSError(errno.EBADMSG, f"the kernel's reply lacks the attribute {kind}")
    return found[kind]


def unpack(layout: Struct, data: bytes) -> tuple[Any, ...]:
    """Return the fields that data begins with: of a family's header, or of an attribute that is a structure.

    Raises:
        OSError: EBADMSG: there is less of it.
    """
    if len(data) < layout.size:
        raise cut_off()
    return layout.unpack_from(data)


def uint(payload: bytes) -> int:
    """Return a number in the machine's byte order; 0 for nothing.

    Raises:
        OSError: EBADMSG: it has more than eight bytes.
    """
    if len(payload) > _LONGEST_NUMBER:
        raise OSError(errno.EBADMSG, f"the kernel's reply has a number of {len(payload)} bytes")
    return int.from_bytes(payload, byteorder)


def text(payload: bytes) -> str:
    """Return a string that may end with a NUL."""
    return payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def cut_off() -> OSError:
    """Return what is raised at a reply that ends too early."""
    return OSError(errno.EBADMSG, "the kernel's reply is cut off")
