"""unshare(2), setns(2) and mount(2), which Python 3.11 has no functions for; see namespaces(7)."""

import ctypes
import os

NEWNS = 0x00020000
NEWNET = 0x40000000
_FS = 0x00000200

MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds: int) -> None:
    """Move the calling thread to new namespaces (NEWNS, NEWNET)."""
    _check(_libc.unshare(kinds), "unshare")


def unshare_fs() -> None:
    """Give the calling thread a root and working directory of its own, which setns(NEWNS) demands."""
    _check(_libc.unshare(_FS), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread to the namespace that a descriptor refers to."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or change a mount, as the flags say."""
    text = [value.encode() if value else None for value in (source, target, fstype, data)]
    _check(_libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3]), f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount away at once; what still uses it keeps it until it ends (MNT_DETACH)."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")
