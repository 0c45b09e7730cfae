"""Persistent tun devices: packets that are routed to one are read from a descriptor (linux/if_tun.h).

Persistent, so that without a reader packets are dropped there, and do not find the default route.
"""

from __future__ import annotations

import fcntl
import os
from _struct import Struct
from typing import TYPE_CHECKING

from cni_plugins.kernel.nlattr import uint

if TYPE_CHECKING:
    from cni_plugins.kernel.link import Link

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFREQ = Struct("=16sH22x")
_IFLA_TUN_TYPE = 3
_IFLA_TUN_PI = 4
_IFLA_TUN_PERSIST = 6


def attach(name: str) -> int:
    """Return a descriptor, not blocking, of a tun device, which is made when it is not there.

    Raises:
        OSError: EBUSY: another process has it; ENOENT: the kernel has no tun devices.
    """
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        error.add_note(f"failed to open tun device {name!r}")
        raise
    return fd


def create(name: str) -> None:
    """Make a tun device, down.

    Raises:
        OSError: as `attach` does.
    """
    os.close(attach(name))


def is_ours(there: Link) -> bool:
    """Tell whether a link is a persistent tun device that carries bare IP packets."""
    given = [uint(there.data.get(kind, b"")) for kind in (_IFLA_TUN_TYPE, _IFLA_TUN_PI, _IFLA_TUN_PERSIST)]
    return there.kind == "tun" and given == [_IFF_TUN, 0, 1]
