"""One call of a plugin, timed, and many at once.

Only the plugin's process is on the clock: it starts when everything that the process reads is ready, and
stops when the kernel reports its end.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    Job = Generator["Call", bytes, None]
    """Yields a call and is sent what it printed."""

BASE_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# Linux counts the memory of the program that a process was before its exec (setmax_mm_hiwater_rss in
# exec_mmap, fs/exec.c), and so would never show less than this runner's own. A shell of 1 MB makes the
# process instead, and ends, whereupon the runner inherits it.
FROM_SMALL_PROCESS = ("/bin/sh", "-c", 'exec 3<&0; "$0" "$@" <&3 3<&- &')
_PR_SET_CHILD_SUBREAPER = 36


class PluginFailedError(Exception):
    """A plugin's call ended with a status that is not 0; a benchmark of failures means nothing."""


@dataclass(frozen=True)
class Call:
    """What a plugin's process gets; one that is not timed only prepares or cleans up for another."""

    executable: str
    env: Mapping[str, str]
    stdin: bytes
    arguments: tuple[str, ...] = ()
    timed: bool = True


@dataclass
class Cost:
    """What one or more calls cost: wall time and CPU time in milliseconds, the largest process in MB."""

    wall: float = 0
    cpu: float = 0
    peak: float = 0

    def add(self, other: Cost) -> None:
        """Count another call in."""
        self.wall += other.wall
        self.cpu += other.cpu
        self.peak = max(self.peak, other.peak)


@dataclass
class _Running:
    job: Job
    number: int
    call: Call
    files: list[int]
    started: float = 0
    pid: int = 0


def run_all(jobs: Iterable[Job], width: int = 1) -> list[Cost]:
    """Run jobs, `width` at a time, each one call after the other, and return what each cost.

    Args:
        jobs: generators that yield a call and are sent what it printed.
        width: how many processes run at the same time.

    Raises:
        PluginFailedError: a call failed; the others are waited for.
    """
    waiting = enumerate(jobs)
    costs: list[Cost] = []
    running: dict[int, _Running] = {}

    def begin() -> bool:
        for number, job in waiting:
            costs.append(Cost())
            start(job, number, next(job))
            return True
        return False

    def start(job: Job, number: int, call: Call) -> None:
        started = _start(_Running(job, number, call, _files(call.stdin)))
        running[started.pid] = started

    try:
        while len(running) < width and begin():
            pass
        while running:
            pid, status, usage = os.wait4(-1, 0)
            ended = perf_counter()
            done = running.pop(pid)
            cpu = (usage.ru_utime + usage.ru_stime) * 1000
            if done.call.timed:
                costs[done.number].add(Cost((ended - done.started) * 1000, cpu))
            output = _finish(done, status)
            try:
                start(done.job, done.number, done.job.send(output))
            except StopIteration:
                begin()
    finally:
        for pid in running:
            os.waitpid(pid, 0)
    return costs


def peak_of(job: Job) -> float:
    """Run one job's calls and return the memory of the largest process among them, in MB."""
    largest = 0.0
    call = next(job)
    while True:
        running = _Running(job, 0, call, _files(call.stdin))
        with _inheriting():
            _start(running, FROM_SMALL_PROCESS)
            os.waitpid(running.pid, 0)
            _, status, usage = os.wait4(-1, 0)
        output = _finish(running, status)
        if running.call.timed:
            largest = max(largest, usage.ru_maxrss / 1024)
        try:
            call = job.send(output)
        except StopIteration:
            return largest


@contextmanager
def _inheriting() -> Iterator[None]:
    """Make this process the parent of orphans among its descendants (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _files(stdin: bytes) -> list[int]:
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(files[0], stdin)
    os.lseek(files[0], 0, os.SEEK_SET)
    return files


def _start(running: _Running, through: Sequence[str] = ()) -> _Running:
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(running.files)]
    argv = [*through, running.call.executable, *running.call.arguments]
    env = {**BASE_ENV, **running.call.env}
    running.started = perf_counter()
    running.pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
    return running


def _finish(done: _Running, status: int) -> bytes:
    _, output, noise = [_content(fd) for fd in done.files]
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        verb = done.call.env.get("CNI_COMMAND", "")
        said = (output + noise).decode(errors="replace")
        raise PluginFailedError(f"{done.call.executable} {verb}: exit status {code}: {said}")
    return output


def _content(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()
