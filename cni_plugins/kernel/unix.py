"""A stream to a daemon on this host: a socket in the file system (unix(7))."""

from __future__ import annotations

import _socket
import errno
import posix
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_CHUNK = 1 << 16
_TIMEVAL = Struct("ll")  # struct timeval


def connect(made: _socket.socket, path: str, timeout: float | None) -> None:
    """Connect a stream, and limit the time that each of its steps may take.

    With a timeout of Python's alone, connect(2) would not wait where the listener has no room for one more
    that waits (EAGAIN), which is what fifty calls at once find.

    Args:
        made: a socket.
        path: where somebody listens.
        timeout: seconds; None: as long as it takes.

    Raises:
        OSError: EAGAIN: there was no room in all that time.
    """
    if timeout is not None:
        limit = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1_000_000))
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
    made.connect(path)
    made.settimeout(timeout)


class UnixStream:
    """A connection to a socket's path; a context manager closes it.

    Args:
        path: the socket.
        timeout: seconds that each step may take; None: as long as it takes.

    Raises:
        OSError: nothing is there (ENOENT), nobody listens (ECONNREFUSED), or we may not (EACCES).
    """

    __slots__ = ("_path", "_socket")

    def __init__(self, path: str, timeout: float | None = None) -> None:
        self._path = path
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connect(self._socket, path, timeout)
        except OSError as error:
            self._socket.close()
            raise self._about(error) from None

    def send(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._socket.send(view) :]
        except OSError as error:
            raise self._about(error) from None

    def receive(self) -> bytes:
        """Return the next bytes that come in.

        Raises:
            OSError: the other side has ended the connection (ECONNRESET), or took too long (ETIMEDOUT).
        """
        try:
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            raise self._about(error) from None
        if not data:
            raise self._about(OSError(errno.ECONNRESET, "the connection was ended by the other side"))
        return data

    def _about(self, error: OSError) -> OSError:
        if error.errno is None:  # a timeout, or a path of more than 107 bytes
            code = errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.ENAMETOOLONG
            error = OSError(code, posix.strerror(code))
        error.add_note(f"cannot talk to {self._path}")
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()
