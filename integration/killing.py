"""A process that kills itself at a chosen call of C code: what it leaves is what a kill there leaves."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from types import FrameType

    from integration.node import Node


def killed(node: Node, number: int, calls: Container[str], act: Callable[[], object]) -> bool:
    """Do something on a node in a child that kills itself before its n-th call of some functions.

    Args:
        node: where.
        number: of the call, from 1.
        calls: the functions' names, such as `unlink`.
        act: what is done.

    Returns:
        Whether it got that far.
    """
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count(_frame: FrameType, event: str, function: Any) -> None:
            nonlocal seen
            if event == "c_call" and function.__name__ in calls:
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        with node.entered():
            sys.setprofile(count)
            act()
            sys.setprofile(None)
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
