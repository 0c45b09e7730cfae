"""Starting another program: a delegate, or iptables.

Standard input and output are anonymous files, not pipes, so that neither side can block the other and no
thread or poll loop is needed; `subprocess` would cost 15 ms to import. If we are killed meanwhile, the
next call waits for the program's end (`orphans`).
"""

from __future__ import annotations

import posix

from cni_plugins import orphans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_IGNORED = (13, 25)  # SIGPIPE and SIGXFSZ, which the interpreter ignores and a child would inherit


LIMIT = 64 << 20
"""Bytes of what a program printed that are read. A node's whole ruleset has a tenth of that."""
_EFBIG = 27


class Completed:
    """A program's exit status (negative: the signal that ended it) and what it printed."""

    __slots__ = ("status", "stderr", "stdout")

    def __init__(self, status: int, stdout: bytes, stderr: bytes) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


def run(
    argv: Sequence[str], env: Mapping[str, str], stdin: bytes = b"", *, capture_stderr: bool = True
) -> Completed:
    """Start a program, wait for its end and return what it printed.

    Args:
        argv: its path, which is not searched for, and its arguments.
        env: its whole environment.
        stdin: what it reads.
        capture_stderr: false: its standard error goes where ours goes, and counts as empty.

    Raises:
        OSError: it cannot be started; EFBIG: it printed more than LIMIT.
    """
    orphans.expect()
    source = posix.memfd_create("stdin", posix.MFD_CLOEXEC)
    sink = posix.memfd_create("stdout", posix.MFD_CLOEXEC)
    noise = posix.memfd_create("stderr", posix.MFD_CLOEXEC) if capture_stderr else 2
    try:
        _write(source, stdin)
        posix.lseek(source, 0, 0)
        actions = [(posix.POSIX_SPAWN_DUP2, source, 0), (posix.POSIX_SPAWN_DUP2, sink, 1)]
        if capture_stderr:
            actions.append((posix.POSIX_SPAWN_DUP2, noise, 2))
        pid = posix.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions, setsigdef=_IGNORED)
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
        return Completed(status, _content(sink), _content(noise) if capture_stderr else b"")
    finally:
        posix.close(source)
        posix.close(sink)
        if capture_stderr:
            posix.close(noise)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def _content(fd: int) -> bytes:
    if posix.fstat(fd).st_size > LIMIT:
        raise OSError(_EFBIG, f"it printed more than {LIMIT} bytes")
    posix.lseek(fd, 0, 0)
    parts = []
    while part := posix.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)
