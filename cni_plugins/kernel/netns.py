"""Network namespaces: entering one, and sockets that stay in it (setns(2), network_namespaces(7))."""

from __future__ import annotations

import errno
import fcntl
import posix

from cni_plugins.kernel.netlink import NETLINK_ROUTE, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
_HOME = "/proc/self/ns/net"
# Python has it from 3.12 on, and our own executable gives it to 3.11 (build/launcher.c).
_setns: Callable[[int, int], None]
if hasattr(posix, "setns"):
    _setns = posix.setns
else:
    from cni_plugins.kernel.setns import setns as _setns


class Namespace:
    """An open network namespace; a context manager that closes it.

    Raises:
        OSError: the path leads nowhere, or to something that is no network namespace.
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                # The path's file stays when the mount on it is gone, after a reboot or half a removal.
                fcntl.ioctl(self.fd, _NS_GET_NSTYPE)
            except OSError:
                posix.close(self.fd)
                raise OSError(errno.EINVAL, "not a namespace", path) from None
        except OSError as error:
            error.add_note(f"failed to open netns {path!r}")
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        posix.close(self.fd)

    def entered(self) -> Entered:
        """Return a context manager: within it, this process is in the namespace."""
        return Entered(self)

    def lock(self) -> None:
        """Wait until no other process holds the namespace's lock, flock(2), and hold it until this is closed.

        The reference plugins lock the same file.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
        except OSError as error:
            error.add_note(f"failed to lock netns {self.path!r}")
            raise

    def netlink(self, family: int = NETLINK_ROUTE, *, groups: int = 0) -> Netlink:
        """Return a netlink socket that talks to this namespace, wherever the process goes afterwards."""
        with self.entered():
            return Netlink(family, groups=groups)


def find_namespace(path: str) -> Namespace | None:
    """Return a namespace, or None where its path leads nowhere, or to a file that is none.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        return Namespace(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise


class Entered:
    """The stay in a namespace: for /proc/sys and for sockets, which belong to where their maker is."""

    __slots__ = ("_home", "_namespace")

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._home = -1

    def __enter__(self) -> None:
        try:
            self._home = posix.open(_HOME, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                _setns(self._namespace.fd, _CLONE_NEWNET)
            except OSError:
                posix.close(self._home)
                raise
        except OSError as error:
            error.add_note(f"failed to enter netns {self._namespace.path!r}")
            raise

    def __exit__(self, *_exc: object) -> None:
        # Failing to come home would leave the process working in a pod: the error must get out.
        try:
            _setns(self._home, _CLONE_NEWNET)
        except OSError:
            self._come_home()
        posix.close(self._home)

    def _come_home(self) -> None:
        """Try once more: a lack of memory passes."""
        try:
            _setns(self._home, _CLONE_NEWNET)
        except OSError as error:
            error.add_note(f"failed to leave netns {self._namespace.path!r}")
            raise
