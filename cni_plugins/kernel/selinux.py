"""SELinux: the context that a program is started in, and so what it makes (selinux(8), setexeccon(3))."""

from __future__ import annotations

import posix

from cni_plugins.kernel import programs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ENFORCE = "/sys/fs/selinux/enforce"
_EXEC = "/proc/thread-self/attr/exec"


def enabled() -> bool:
    """Tell whether the kernel labels what is made: selinuxfs is mounted then."""
    return posix.access(_ENFORCE, posix.F_OK)


def run_in(context: str, program: str, arguments: Sequence[str]) -> bytes:
    """Run a program of the system in a context; return what it printed. What is run later is not in it.

    Raises:
        OSError: the policy has no such context, or does not let us start programs in it.
        ProgramFailed: it ended with another status than 0, maybe as the policy lets no such context do this.
        FileNotFoundError: it is not installed.
    """
    try:
        _write(context.encode("utf-8", "surrogateescape"))
        try:
            return programs.run(program, arguments)
        finally:
            _write(b"")
    except OSError as error:
        error.add_note(f"failed to run {program} in the SELinux context {context!r}")
        raise


def _write(context: bytes) -> None:
    fd = posix.open(_EXEC, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, context)
    finally:
        posix.close(fd)
