"""The kernel's own notices of routes, neighbours and FDB entries, in their order, by `ip monitor`."""

from __future__ import annotations

import re
import subprocess
import threading
from typing import TYPE_CHECKING

from integration.closing import Closing
from integration.fleet import wait

if TYPE_CHECKING:
    from integration.node import Node

_PROBE = "192.0.2.9/32"
_PROBED = re.compile(r"192\.0\.2\.9 .*metric (\d+)")


class Monitor(Closing):
    """Gathers notices from its start on; a context manager.

    Args:
        node: the machine.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lines: list[str] = []
        self._probes = 0
        self._process = node.popen(["ip", "monitor", "route", "neigh"], stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._settle()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def take(self, device: str) -> list[str]:
        """Return what was written on a device and, with a `-`, removed: routes, neighbours, FDB entries.

        Left out is what the kernel does by itself.
        """
        self._settle()
        lines = [f"{line} " for line in self._lines if f" dev {device} " in f"{line} "]
        return [("-" if line.startswith("Deleted") else "") + _kind(line) for line in lines if _kind(line)]

    def gone(self, prefix: str) -> list[str]:
        """Return the notices of removed routes, on any device, whose destination begins with some text."""
        self._settle()
        return [line for line in self._lines if line.startswith(f"Deleted {prefix}") and " via " in line]

    def forget(self) -> None:
        """Forget what happened until now."""
        self._settle()
        self._lines.clear()

    def _settle(self) -> None:
        """Wait until what happened before has arrived: until something that happens now has."""
        first = self._probes
        wait(lambda: self._arrives(first))

    def _arrives(self, first: int) -> bool:
        self._probes += 1
        for verb in ("add", "delete"):
            self._node.run(["ip", "route", verb, _PROBE, "dev", "lo", "metric", str(self._probes)])
        found = [_PROBED.search(line) for line in list(self._lines)]
        return any(int(probe[1]) > first for probe in found if probe)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.append(line.decode().strip())


def _kind(line: str) -> str:
    if " via " in line and " proto 102 " in line:
        return "route"
    if " NOARP PERMANENT " in line:
        return "fdb"
    if " PERMANENT " in line or (line.startswith("Deleted ") and line.endswith(" FAILED ")):
        return "neighbour"
    return ""
