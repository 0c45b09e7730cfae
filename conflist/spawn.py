"""Starting a plugin, with bounds on what it may print and, if wanted, on how long it may take.

Unlike `cni_plugins.process`, which plugins use among themselves, this does not trust what it starts.
"""

from __future__ import annotations

import os
import select
import signal
import time

from cni_plugins.process import Completed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STDERR_LIMIT = 1 << 16
"""Bytes of standard error that are kept; the rest is read and dropped."""
_CHUNK = 1 << 16


class OutputLimitError(Exception):
    """A program printed more than it may; it was killed."""


def run(
    argv: Sequence[str], env: Mapping[str, str], stdin: bytes, *, limit: int, timeout: float | None = None
) -> Completed:
    """Start a program and return what it printed when it has ended.

    Its own children are not waited for, even if they hold its standard output open.

    Args:
        argv: its path, which is not searched for, and its arguments.
        env: its whole environment.
        stdin: what it reads.
        limit: the most bytes it may print on standard output.
        timeout: seconds; None: no limit.

    Raises:
        OSError: it cannot be started.
        OutputLimitError: it printed more than `limit` bytes; it was killed.
        TimeoutError: it took longer than `timeout`; it was killed.
    """
    opened: list[int] = []
    try:
        source = os.memfd_create("stdin", os.MFD_CLOEXEC)
        opened.append(source)
        _write(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        out_read, out_write = os.pipe()
        opened += (out_read, out_write)
        err_read, err_write = os.pipe()
        opened += (err_read, err_write)
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((source, out_write, err_write))]
        pid = os.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions)
        for fd in (source, out_write, err_write):
            opened.remove(fd)
            os.close(fd)
        ended = False
        try:
            watch = os.pidfd_open(pid)
            opened.append(watch)
            stdout, stderr = _Sink(out_read, limit + 1), _Sink(err_read, STDERR_LIMIT)
            _follow(watch, stdout, stderr, timeout)
            ended = True
        finally:
            if not ended:
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Completed(status, bytes(stdout.data), bytes(stderr.data))
    finally:
        for fd in opened:
            os.close(fd)


class _Sink:
    """What came out of a pipe, up to a limit."""

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.limit = limit
        self.data = bytearray()
        os.set_blocking(fd, False)

    def pull(self) -> bool:
        """Take one chunk; return false at the end, or when there is nothing now."""
        try:
            chunk = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return False
        self.data += chunk[: self.limit - len(self.data)]
        return bool(chunk)

    def full(self) -> bool:
        return len(self.data) >= self.limit


def _follow(watch: int, stdout: _Sink, stderr: _Sink, timeout: float | None) -> None:
    """Read both pipes until the process that `watch` stands for has ended."""
    poller = select.poll()
    for fd in (watch, stdout.fd, stderr.fd):
        poller.register(fd, select.POLLIN)
    sinks = {sink.fd: sink for sink in (stdout, stderr)}
    deadline = None if timeout is None else time.monotonic() + timeout
    running = True
    while running:
        left = None if deadline is None else deadline - time.monotonic()
        # A program that prints without end is never quiet enough for poll's own timeout.
        if left is not None and left <= 0:
            raise TimeoutError(f"did not end within {timeout:g} s")
        for fd, _event in poller.poll(None if left is None else left * 1000):
            if fd == watch:
                running = False
            elif not sinks[fd].pull():
                poller.unregister(fd)  # closed by the program, which may still be at work
        if stdout.full():
            break
    for sink in (stdout, stderr):
        while not sink.full() and sink.pull():
            pass
    if stdout.full():
        raise OutputLimitError(f"printed more than {stdout.limit - 1} bytes")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
