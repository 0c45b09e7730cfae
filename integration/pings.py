"""Pings along a path while something is broken and put back: which are lost, and for how long none comes."""

from __future__ import annotations

import re
import subprocess
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

from integration.fleet import wait

if TYPE_CHECKING:
    from types import TracebackType

    from integration.node import Node

INTERVAL = 0.05
_REPLY = re.compile(rb"\[(\d+\.\d+)\] \d+ bytes from.* icmp_seq=(\d+) ")


class Reply(NamedTuple):
    """When a reply came, in Unix time, and the number of the request."""

    moment: float
    number: int


class Pings:
    """A ping that runs on; a context manager.

    Args:
        node: the machine.
        target: whom it pings.
        netns: the pod it pings from, if not the machine itself.
    """

    def __init__(self, node: Node, target: str, netns: str = "") -> None:
        self._replies: list[Reply] = []
        command = ["ping", "-D", "-n", "-i", str(INTERVAL), target]
        self._process = node.popen(command, netns, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self) -> Self:
        self._wait_for_replies()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def back(self) -> float:
        """Wait for replies to three requests in a row; return the time then, in Unix time.

        Raises:
            AssertionError: none came.
        """
        self._wait_for_replies()
        return self._replies[-1].moment

    def failed_since(self, moment: float) -> float:
        """Wait until pings come back; return for how long none did since then, in seconds.

        It is for reports: on a busy machine pings that are not lost come late, too.

        Args:
            moment: Unix time.

        Raises:
            AssertionError: none came back.
        """
        self._wait_for_replies()
        replies = [moment, *(reply.moment for reply in list(self._replies) if reply.moment > moment)]
        return max(after - before for before, after in pairwise(replies))

    def lost_since(self, moment: float) -> int:
        """Wait for replies; return how many requests had none since then, however long one would take.

        Args:
            moment: Unix time, at which replies came.

        Raises:
            AssertionError: none came back.
        """
        self._wait_for_replies()
        numbers = [before.number for before, after in pairwise(list(self._replies)) if after.moment > moment]
        numbers.append(self._replies[-1].number)
        return max(numbers) - min(numbers) + 1 - len(set(numbers))

    def _wait_for_replies(self) -> None:
        """Wait for replies to three requests in a row."""
        known = len(self._replies)
        wait(lambda: self._come_back(known))

    def _come_back(self, known: int) -> bool:
        last = [reply.number for reply in self._replies[known:][-3:]]
        return len(last) == 3 and last[2] - last[0] == 2

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                if found := _REPLY.match(line):
                    self._replies.append(Reply(float(found[1]), int(found[2])))
