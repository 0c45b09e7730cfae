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
    made: list[int] = []
    try:
        for name in ("stdin", "stdout", "stderr") if capture_stderr else ("stdin", "stdout"):
            made.append(posix.memfd_create(name, posix.MFD_CLOEXEC))  # noqa: PERF401 (closed if the next fails)
        _write(made[0], stdin)
        posix.lseek(made[0], 0, 0)
        actions = [(posix.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(made)]
        pid = posix.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions, setsigdef=_IGNORED)
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
        return Completed(status, _content(made[1]), _content(made[2]) if capture_stderr else b"")
    except OSError as error:
        error.add_note(f"cannot run {argv[0]}")
        raise
    finally:
        for fd in made:
            posix.close(fd)


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
