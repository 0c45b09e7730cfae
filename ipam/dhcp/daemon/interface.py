"""The container's interface, as far as a lease concerns it."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cni_plugins.attach import configure
from cni_plugins.kernel import addr, link
from cni_plugins.kernel.netns import Namespace
from cni_plugins.spec.errors import CNIError
from ipam.dhcp.daemon.wire import PacketWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cni_plugins.kernel.link import Link
    from ipam.dhcp.daemon.bound import Bound
    from ipam.dhcp.daemon.client import Wire
    from ipam.dhcp.daemon.store import Record

_CARRIER_SECONDS = 1.0
_CARRIER_LOOKS = 0.01


class GoneError(Exception):
    """The namespace or the interface is not there any more, or is another one."""


def identity(netns: Namespace) -> str:
    """Return what tells a namespace from others of this boot."""
    status = os.fstat(netns.fd)
    return f"{status.st_dev}:{status.st_ino}"


def open_namespace(path: str, expected: str = "") -> Namespace:
    """Open a namespace.

    Args:
        path: its path.
        expected: its identity; empty: any.

    Raises:
        GoneError: the path leads nowhere, or to another namespace.
    """
    try:
        netns = Namespace(path)
    except OSError as error:
        raise GoneError(f"namespace {path}: {error.strerror}") from None
    if expected and identity(netns) != expected:
        os.close(netns.fd)
        raise GoneError(f"{path} is another namespace by now")
    return netns


def find(netns: Namespace, ifname: str) -> Link:
    """Return an interface.

    Raises:
        GoneError: there is none.
    """
    with netns.netlink() as inside:
        found = link.find(inside, ifname)
    if found is None:
        raise GoneError(f"{netns.path} has no interface {ifname!r}")
    return found


class Container:
    """The interface of a lease.

    Args:
        record: which one.
        close: how to close sockets (see `wire`).
    """

    def __init__(self, record: Record, close: Callable[[Callable[[], None]], object]) -> None:
        self._record = record
        self._close = close

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """Bring the interface up and open a socket on it.

        Raises:
            GoneError: it is gone.
            OSError: the kernel has no socket for it.
        """
        with self._entered() as netns:
            await _bring_up(netns, self._record.ifname)
            wire = PacketWire(netns, self._record.ifname, self._close)
        try:
            yield wire
        finally:
            wire.close()

    def take_address(self, held: Bound) -> None:
        """Take the address of a lease that is over from the interface; its routes go with it.

        Raises:
            GoneError: the interface is gone.
            OSError: the kernel refused it.
        """
        with self._entered() as netns:
            index = find(netns, self._record.ifname).index
            with netns.netlink() as inside:
                addr.delete(inside, index, held.address)

    def give_address(self, held: Bound) -> None:
        """Give the interface a lease's address and routes.

        Raises:
            GoneError: the interface is gone.
            OSError: the kernel refused something.
        """
        with self._entered() as netns:
            found = find(netns, self._record.ifname)
            with netns.netlink() as inside:
                try:
                    configure.apply(inside, found, held.result(self._record.priority))
                except CNIError as error:
                    raise OSError(errno.EEXIST, error.msg) from None

    def _entered(self) -> Namespace:
        return open_namespace(self._record.netns, self._record.namespace)


async def _bring_up(netns: Namespace, ifname: str) -> None:
    """Bring an interface up, and wait for its carrier: until then the kernel drops what it is given."""
    found = find(netns, ifname)
    if not found.is_up:
        with netns.netlink() as inside:
            link.set_up(inside, found.index)
    deadline = asyncio.get_running_loop().time() + _CARRIER_SECONDS
    # The kernel sets no asyncio.Event.
    while not find(netns, ifname).carries and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_CARRIER_LOOKS)
