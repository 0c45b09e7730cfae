"""ADDs that run at this moment, whichever runtime started them: GC spares what they make.

A runtime may not run GC beside ADD (CNI 1.1.0, section 3, "Lifecycle & Ordering"). One that does it all the
same would lose an interface or an address of an ADD that has yet to come to its end. ADDs say nothing of
themselves for that: they are seen in /proc, by their environment, and so cost nothing.
"""

from __future__ import annotations

import posix

_PROC = "/proc"
_VERB = b"CNI_COMMAND=ADD"


def attachments(*, by_anyone: bool = False) -> list[tuple[str, str]]:
    """Return the container ids and interface names of all ADDs of this executable in our mount namespace.

    Only of this executable: a program that a killed plugin left running has the plugin's environment. The
    network is not in the environment: some may be of another one.

    Args:
        by_anyone: those of other executables, too.
    """
    compared = slice(1 if by_anyone else 0, None)
    ours = _place("self")[compared]
    found = []
    for name in posix.listdir(_PROC):
        if not name.isdigit():
            continue
        try:
            variables = _environment(name) if _place(name)[compared] == ours else []
        except OSError:  # it has ended, is a kernel thread, or may not be looked at
            continue
        if _VERB in variables:
            values = dict(each.split(b"=", 1) for each in variables if b"=" in each)
            found.append((_text(values.get(b"CNI_CONTAINERID")), _text(values.get(b"CNI_IFNAME"))))
    return found


def _place(name: str) -> tuple[tuple[int, int], ...]:
    """Return what a process runs, and the mount namespace it is in."""
    status = [posix.stat(f"{_PROC}/{name}/{part}") for part in ("exe", "ns/mnt")]
    return tuple((each.st_dev, each.st_ino) for each in status)


def _environment(name: str) -> list[bytes]:
    fd = posix.open(f"{_PROC}/{name}/environ", posix.O_RDONLY | posix.O_CLOEXEC)
    parts = []
    try:
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
    finally:
        posix.close(fd)
    return b"".join(parts).split(b"\0")


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")
