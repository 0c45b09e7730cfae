"""Persistent tap devices, by ioctl(2) on /dev/net/tun (linux/if_tun.h)."""

from __future__ import annotations

import fcntl
import posix
from _struct import Struct

from cni_plugins.kernel.nlattr import attr_u8, attr_u32
from cni_plugins.kernel.sublink import Option
from cni_plugins.lazy import Lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel import selinux
else:
    selinux = Lazy("cni_plugins.kernel.selinux")

DEVICE = "/dev/net/tun"

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_TUNSETGROUP = 0x400454CE
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_MULTI_QUEUE = 0x0100
_IFLA_TUN_OWNER = 1
_IFLA_TUN_GROUP = 2
_IFLA_TUN_MULTI_QUEUE = 7
_IFREQ = Struct("=16sH22x")


def options(*, owner: int | None, group: int | None, multi_queue: bool) -> tuple[Option, ...]:
    """Return the properties that the kernel shows of a tap with these."""
    found = [Option("multiple queues", _IFLA_TUN_MULTI_QUEUE, attr_u8(_IFLA_TUN_MULTI_QUEUE, 1))]
    if not multi_queue:
        found = [Option("a single queue", _IFLA_TUN_MULTI_QUEUE, attr_u8(_IFLA_TUN_MULTI_QUEUE, 0))]
    if owner is not None:
        found.append(Option(f"owner {owner}", _IFLA_TUN_OWNER, attr_u32(_IFLA_TUN_OWNER, owner)))
    if group is not None:
        found.append(Option(f"group {group}", _IFLA_TUN_GROUP, attr_u32(_IFLA_TUN_GROUP, group)))
    return tuple(found)


def probe() -> None:
    """Open the device.

    Raises:
        OSError: the kernel has no tap devices.
    """
    posix.close(posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC))


def create(
    name: str, *, owner: int | None, group: int | None, multi_queue: bool, selinux_context: str = ""
) -> None:
    """Make a tap in the namespace the process is in; it is down. If we are killed half-way it is gone.

    Args:
        name: its name; one of that name that exists must not be there.
        owner: user id that may open it; None: whoever has CAP_NET_ADMIN.
        group: group id that may.
        multi_queue: let it be opened once for each queue.
        selinux_context: its label, where SELinux is in use.

    Raises:
        OSError: the kernel refused.
    """
    if selinux_context and selinux.enabled():
        # It has the context of the program that makes it, and policies let that change with a program only.
        named = (("user", owner), ("group", group))
        words = [word for key, value in named if value is not None for word in (key, str(value))]
        words += ["multi_queue"] if multi_queue else []
        selinux.run_in(selinux_context, "ip", ["tuntap", "add", "name", name, "mode", "tap", *words])
        return
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_MULTI_QUEUE if multi_queue else 0)
    try:
        fd = posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
            if owner is not None:
                fcntl.ioctl(fd, _TUNSETOWNER, owner)
            if group is not None:
                fcntl.ioctl(fd, _TUNSETGROUP, group)
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        finally:
            posix.close(fd)
    except OSError as error:
        error.add_note(f"failed to create tap {name!r}")
        raise
