"""setns(2) for a Python before 3.12 that is not our own executable."""

from __future__ import annotations

import _ctypes
import posix

_FUNCFLAG_CDECL = 0x1
_FUNCFLAG_USE_ERRNO = 0x8


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """C's int. The `ctypes` package would cost 3 ms for this and `_Setns`; its C core alone costs 0.4."""

    _type_ = "i"


class _Setns(_ctypes.CFuncPtr):
    """`int setns(int fd, int nstype)`."""

    _flags_ = _FUNCFLAG_CDECL | _FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_setns = _Setns(_ctypes.dlsym(_ctypes.dlopen(None, 0), "setns"))  # type: ignore[arg-type]


def setns(fd: int, nstype: int) -> None:
    """Enter a namespace; as os.setns does.

    Raises:
        OSError: the kernel refused it.
    """
    _ctypes.set_errno(0)
    if _setns(fd, nstype) != 0:
        code = _ctypes.get_errno()
        raise OSError(code, posix.strerror(code))
