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
