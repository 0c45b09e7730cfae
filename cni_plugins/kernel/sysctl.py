"""Kernel parameters under /proc/sys (proc(5)), of the namespace the process is in."""

from __future__ import annotations

import posix


def write(key: str, value: str) -> None:
    """Set a parameter, unless it has the value already: /proc/sys can be read-only.

    Args:
        key: with slashes: `net/ipv4/ip_forward`; interface names may hold dots.
        value: what to write.

    Raises:
        OSError: there is no such parameter, or it cannot be written.
    """
    if read(key) == value:
        return
    _put(key, value)


def _put(key: str, value: str) -> None:
    path = f"/proc/sys/{key}"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)
    except OSError as error:
        error.add_note(f"failed to set sysctl {key} to {value}")
        raise


def write_if_present(key: str, value: str) -> None:
    """Set a parameter that a kernel without the feature (IPv6 switched off, say) does not have."""
    try:
        write(key, value)
    except FileNotFoundError:
        return


def read(key: str) -> str:
    """Return a parameter's value.

    Raises:
        OSError: there is no such parameter.
    """
    path = f"/proc/sys/{key}"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return posix.read(fd, 4096).decode().strip()
        finally:
            posix.close(fd)
    except OSError as error:
        error.add_note(f"failed to read sysctl {key}")
        raise


def exchange(key: str, value: str) -> str | None:
    """Set a parameter that need not be readable; return what it was.

    Returns:
        The old value; None when it was the same, whatever the white space between its parts, or is of the
        kind that acts when written and says nothing when read (net/ipv4/route/flush).

    Raises:
        OSError: there is no such parameter, or it cannot be written.
    """
    try:
        old = read(key)
    except FileNotFoundError:
        raise
    except OSError:
        old = None
    if old is not None and old.split() == value.split():
        return None
    _put(key, value)
    return old
