"""`dhcp daemon`: flags, socket, signals."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import re
import resource
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_plugins.kernel import files
from ipam.dhcp import notes
from ipam.dhcp.daemon.client import Patience
from ipam.dhcp.daemon.interface import Container
from ipam.dhcp.daemon.lease import Surroundings
from ipam.dhcp.daemon.server import Server, listen
from ipam.dhcp.daemon.service import Service
from ipam.dhcp.daemon.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)
_FIRST_FD = 3
_BACKLOG = 1024
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(rf"(\d+\.?\d*|\.\d+)({'|'.join(sorted(_UNITS, key=len, reverse=True))})")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class Options:
    """The flags, as the reference names them."""

    pidfile: str
    hostprefix: str
    socketpath: str
    broadcast: bool
    patience: Patience


def duration(text: str) -> float:
    """Return the seconds of a duration as Go writes it: 1m30s, 500ms.

    Raises:
        ValueError: it is none, or not more than nothing.
    """
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise ValueError(f"{text!r} is no duration, as 10s or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise ValueError("a duration must be more than nothing")
    return float(seconds)


def boolean(text: str) -> bool:
    """Return a truth value as Go reads it.

    Raises:
        ValueError: it is none.
    """
    if text not in _TRUE + _FALSE:
        raise ValueError(f"{text!r} is neither true nor false")
    return text in _TRUE


def parse(argv: Sequence[str]) -> Options:
    """Read the flags, which have one dash or two; exit with 2 when they are wrong, as Go does."""
    usual = Patience()
    parser = argparse.ArgumentParser(
        "dhcp daemon", description="Get, renew and release DHCP leases for containers.", allow_abbrev=False
    )

    def flag(name: str, **how: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **how)  # type: ignore[arg-type]

    flag("pidfile", default="", metavar="PATH", help="write the process id there")
    flag("hostprefix", default="", metavar="PATH", help="where the host's root is mounted")
    flag(
        "socketpath",
        default="",
        metavar="PATH",
        help=f"where to listen (default: {notes.DEFAULT_SOCKET}); leases are kept in a folder beside it",
    )
    flag(
        "broadcast", nargs="?", const=True, default=False, type=boolean, help="have servers broadcast answers"
    )
    flag("timeout", default=usual.timeout, type=duration, help="for a server to confirm its offer (10s)")
    flag("resendmax", default=usual.resend_max, type=duration, help="longest time between requests (62s)")
    flag("resendtimeout", default=usual.resend_timeout, type=duration, help="for a lease in total (3m28s)")
    given = parser.parse_args(list(argv))
    if given.pidfile and not os.path.isabs(given.pidfile):
        parser.error(f"pidfile {given.pidfile!r}: the path is not absolute")
    patience = Patience(given.timeout, given.resendmax, given.resendtimeout)
    path = given.socketpath or notes.DEFAULT_SOCKET
    return Options(given.pidfile, given.hostprefix, path, bool(given.broadcast), patience)


def activated() -> socket.socket | None:
    """Return the socket that systemd listens on for us; None without one (sd_listen_fds(3)).

    Raises:
        ValueError: there are several.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if not count.isdigit() or pid != str(os.getpid()) or int(count) == 0:
        return None
    if int(count) > 1:
        raise ValueError(f"too many sockets passed by systemd: {count}")
    os.set_inheritable(_FIRST_FD, False)
    return socket.socket(fileno=_FIRST_FD)


def bind(path: str) -> socket.socket:
    """Listen on a path; a socket that a killed daemon left there is replaced.

    Raises:
        OSError: another daemon answers there, or the path cannot be had.
    """
    folder = os.path.dirname(path)
    if folder:
        files.make_directory(folder, 0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(path) != errno.ECONNREFUSED:
                    raise OSError(errno.EADDRINUSE, "another daemon listens there", path) from None
            os.unlink(path)
            listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        error.filename = path
        raise
    finally:
        os.umask(before)
    return listener


async def run(options: Options) -> None:
    """Serve until a signal ends it."""
    path = f"{options.hostprefix}{options.socketpath}"
    folder = notes.folder_of(path)
    # One thread is enough to wait for the kernel while it closes sockets.
    with ThreadPoolExecutor(1, "close") as closer:
        store = Store(folder)
        with files.Lock(f"{folder}/lock", wait=False):
            given = activated()
            listener = given or bind(path)
            if options.pidfile:
                files.write_atomic(options.pidfile, str(os.getpid()).encode(), 0o644)
            around = Surroundings(
                options.patience, store, _since_boot, lambda record: Container(record, closer.submit)
            )
            service = Service(around, options.hostprefix, broadcast=options.broadcast)
            stopping = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopping.set)
            await service.restore()
            serving = await listen(Server(service), listener)
            _log.info("listening on %s", path)
            await stopping.wait()
            serving.close()
            _remove(options.pidfile, "" if given else path)
            await service.stop()


def _remove(*paths: str) -> None:
    for path in filter(None, paths):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> int:
    """Run the daemon; its arguments are those after `daemon`."""
    # A socket for each plugin that waits and each lease that is asked for: a thousand are soon reached.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.basicConfig(level=logging.INFO, format="dhcp: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(run(parse(sys.argv[1:])))
    except (OSError, ValueError) as error:
        notes_ = getattr(error, "__notes__", [])
        _log.error("%s%s", f"{notes_[0]}: " if notes_ else "", error)
        return 1
    return 0
