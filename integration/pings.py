"""How long a path fails while something is broken and put back, seen by pings along it."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from integration.fleet import wait

if TYPE_CHECKING:
    from types import TracebackType

    from integration.node import Node

INTERVAL = 0.05
_REPLY = re.compile(rb"\[(\d+\.\d+)\] \d+ bytes from")


class Pings:
    """A ping that runs on; a context manager.

    Args:
        node: the machine.
        target: whom it pings.
        netns: the pod it pings from, if not the machine itself.
    """

    def __init__(self, node: Node, target: str, netns: str = "") -> None:
        self._replies: list[float] = []
        command = ["ping", "-D", "-n", "-i", str(INTERVAL), target]
        self._process = node.popen(command, netns, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self) -> Self:
        self.failed_since(time.time(), 20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def failed_since(self, moment: float, seconds: float = 10) -> float:
        """Wait until pings come back; return for how long none did since then, in seconds.

        Args:
            moment: Unix time.
            seconds: how long to wait at most for three replies in a row.

        Raises:
            AssertionError: none came back.
        """
        wait(lambda: self._comes_back(moment), seconds)
        replies = [moment, *(reply for reply in list(self._replies) if reply > moment)]
        return max(after - before for before, after in pairwise(replies))

    def _comes_back(self, moment: float) -> bool:
        last = [reply for reply in self._replies[-3:] if reply > max(moment, time.time() - 4 * INTERVAL - 1)]
        return len(last) == 3 and last[-1] - last[0] < 4 * INTERVAL

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                if found := _REPLY.match(line):
                    self._replies.append(float(found[1]))
