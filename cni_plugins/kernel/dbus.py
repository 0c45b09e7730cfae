"""A client of the system's message bus: calls with strings, answered by a truth value or a string.

The D-Bus Specification 0.43: authentication with the mechanism EXTERNAL, the marshalling of messages, and
the bus's own methods. No library: the hot path may import none, and firewalld's methods need no more.
"""

from __future__ import annotations

import _socket
import errno
import posix
from _struct import Struct

from cni_plugins.kernel.unix import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

SYSTEM_BUS = "/run/dbus/system_bus_socket"
BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"

_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 2
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_LITTLE, _BIG = b"lB"
_VERSION = 1
_HEAD = Struct("<BBBBIII")
_MAX_MESSAGE = 1 << 20
_TIMEOUT = 25.0
"""Seconds to wait for an answer, as libdbus does."""


class DBusError(OSError):
    """A method answered with an error.

    Attributes:
        name: the error's name.
        text: what the service says of it.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(errno.EIO, f"{name}: {text}" if text else name)
        self.name = name
        self.text = text


class Bus:
    """A connection to the system's bus; a context manager closes it.

    Raises:
        OSError: there is no bus (ENOENT, ECONNREFUSED), or it does not let us in (EACCES).
    """

    __slots__ = ("_buffer", "_serial", "_socket")

    def __init__(self, path: str = SYSTEM_BUS) -> None:
        self._buffer = b""
        self._serial = 0
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connect(self._socket, path, _TIMEOUT)
            self._authenticate()
            self.call(BUS, _BUS_PATH, BUS, "Hello")
        except OSError as error:
            self._socket.close()
            error.add_note("cannot connect to the system's message bus")
            raise

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def has_owner(self, name: str) -> bool:
        """Tell whether a service is there; it is not started by asking.

        Raises:
            OSError: the bus does not say.
        """
        return self.call(BUS, _BUS_PATH, BUS, "NameHasOwner", name) is True

    def call(
        self, service: str, path: str, interface: str, member: str, *arguments: str, start: bool = False
    ) -> str | bool | None:
        """Call a method that takes strings, and wait for its answer.

        Args:
            service: the name of the service.
            path: its object.
            interface: the interface that has the method.
            member: the method.
            arguments: what it is given.
            start: let the bus start the service if it is not running.

        Returns:
            The answer's first value, if it is a string or a truth value.

        Raises:
            DBusError: the answer is an error.
            OSError: there is none: the connection has ended, or it took too long.
        """
        self._serial += 1
        signature = "s" * len(arguments)
        body = b""
        for argument in arguments:
            body = _aligned(body, 4) + _string(argument)
        fields = [
            _field(_PATH, "o", path),
            _field(_DESTINATION, "s", service),
            _field(_INTERFACE, "s", interface),
            _field(_MEMBER, "s", member),
            *([_field(_SIGNATURE, "g", signature)] if signature else []),
        ]
        array = b""
        for field in fields:
            array = _aligned(array, 8) + field
        flags = 0 if start else _NO_AUTO_START
        head = _HEAD.pack(_LITTLE, _CALL, flags, _VERSION, len(body), self._serial, len(array))
        self._send(_aligned(head + array, 8) + body)
        while True:
            kind, reply_to, name, value = self._message()
            if reply_to != self._serial or kind not in (_RETURN, _ERROR):
                continue  # a signal, such as the one that tells us our own name
            if kind == _ERROR:
                raise DBusError(name, value if isinstance(value, str) else "")
            return value

    def _authenticate(self) -> None:
        self._send(b"\0AUTH EXTERNAL " + str(posix.geteuid()).encode().hex().encode() + b"\r\n")
        while b"\r\n" not in self._buffer:
            self._receive()
        line, _end, self._buffer = self._buffer.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise OSError(errno.EACCES, f"the message bus says {line.decode('ascii', 'replace')!r}")
        self._send(b"BEGIN\r\n")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._socket.send(view) :]

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, posix.strerror(errno.ETIMEDOUT)) from None
        if not data:
            raise OSError(errno.ECONNRESET, "the message bus has ended the connection")
        self._buffer += data

    def _message(self) -> tuple[int, int, str, str | bool | None]:
        """Return the next message's type, the call it answers, its error's name and its first value."""
        while len(self._buffer) < _HEAD.size:
            self._receive()
        order: str = "<" if self._buffer[0] == _LITTLE else ">"
        if self._buffer[0] not in (_LITTLE, _BIG):
            raise OSError(errno.EBADMSG, "the message bus sent what is no message")
        unpacked = Struct(f"{order}BBBBIII").unpack_from(self._buffer)
        kind, length, fields = unpacked[1], unpacked[4], unpacked[6]
        start = (_HEAD.size + fields + 7) & ~7
        if start + length > _MAX_MESSAGE:
            raise OSError(errno.EMSGSIZE, "the message bus sent a message that is too long")
        while len(self._buffer) < start + length:
            self._receive()
        message, self._buffer = self._buffer[: start + length], self._buffer[start + length :]
        found = _Reader(message, _HEAD.size, order).fields(_HEAD.size + fields)
        signature = str(found.get(_SIGNATURE, ""))
        value = _Reader(message, start, order).value(signature[:1]) if signature[:1] in ("s", "b") else None
        reply_to = found.get(_REPLY_SERIAL, 0)
        flag = value if isinstance(value, str) or value is None else bool(value)
        if not isinstance(reply_to, int):
            raise _damaged()
        return kind, reply_to, str(found.get(_ERROR_NAME, "")), flag


class _Reader:
    """Reads values of a message, from a place on."""

    def __init__(self, message: bytes, at: int, order: str) -> None:
        self._message = message
        self._at = at
        self._number = Struct(f"{order}I")

    def fields(self, end: int) -> dict[int, str | int]:
        found: dict[int, str | int] = {}
        while (self._at + 7) & ~7 < end:
            self._at = (self._at + 7) & ~7
            code = self._byte()
            found[code] = self.value(str(self.value("g")))
        return found

    def value(self, kind: str) -> str | int:
        """Return a value of one of the types that header fields and our answers have."""
        if kind == "g":
            length = self._byte()
        elif kind in ("s", "o", "u", "b"):
            self._at = (self._at + 3) & ~3
            if self._at + 4 > len(self._message):
                raise _damaged()
            length = int(self._number.unpack_from(self._message, self._at)[0])
            self._at += 4
            if kind in ("u", "b"):
                return length
        else:
            raise OSError(errno.EBADMSG, f"the message bus sent a value of the type {kind!r}")
        if self._at + length > len(self._message):
            raise _damaged()
        text = self._message[self._at : self._at + length].decode("utf-8", "replace")
        self._at += length + 1
        return text

    def _byte(self) -> int:
        if self._at >= len(self._message):
            raise _damaged()
        self._at += 1
        return self._message[self._at - 1]


def _damaged() -> OSError:
    return OSError(errno.EBADMSG, "the message bus sent a message whose parts do not fit together")


def _aligned(data: bytes, boundary: int) -> bytes:
    return data + b"\0" * (-len(data) % boundary)


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return len(data).to_bytes(4, "little") + data + b"\0"


def _field(code: int, kind: str, text: str) -> bytes:
    """Return a header field: its code, then a variant: its signature and the value."""
    head = bytes((code, 1)) + kind.encode() + b"\0"
    return head + (bytes((len(text),)) + text.encode() + b"\0" if kind == "g" else _string(text))
