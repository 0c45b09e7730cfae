"""Programs of the system, from fixed folders and with an environment of their own.

A runtime's PATH or LD_LIBRARY_PATH must not decide what runs or what it loads.
"""

from __future__ import annotations

import posix

from cni_plugins import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_ENV = {"PATH": ":".join(_FOLDERS), "LC_ALL": "C"}
_ENOENT = 2
_EIO = 5


class ProgramFailed(OSError):  # noqa: N818 (what happened, as FileNotFoundError)
    """A program ended with another status than 0; the message holds what it said.

    Attributes:
        status: its exit status.
    """

    def __init__(self, program: str, done: process.Completed) -> None:
        said = done.stderr.decode("utf-8", "replace").strip() or "nothing on standard error"
        super().__init__(_EIO, f"{program} failed with status {done.status}: {said}")
        self.status = done.status


def installed(name: str) -> bool:
    """Tell whether a program is there."""
    return any(posix.access(f"{folder}/{name}", posix.X_OK) for folder in _FOLDERS)


def run(name: str, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a program to its end and return what it printed on standard output.

    Raises:
        ProgramFailed: it ended with another status than 0.
        FileNotFoundError: it is not installed.
    """
    for folder in _FOLDERS:
        try:
            done = process.run([f"{folder}/{name}", *arguments], _ENV, stdin)
        except FileNotFoundError:
            continue
        if done.status != 0:
            raise ProgramFailed(name, done)
        return done.stdout
    raise FileNotFoundError(_ENOENT, f"{name} is not installed: it is in none of {', '.join(_FOLDERS)}")
