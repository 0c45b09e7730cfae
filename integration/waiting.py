"""Waiting for what another process, or the kernel, does in its own time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


PATIENCE = 120.0
"""Seconds after which what a test waits for counts as missing.

They only bound a failure. A machine that is ten times slower, or busy, must not reach them.
"""


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for something to become true.

    The kernel takes namespaces down one after the other, those of all tests that run at the time.

    Raises:
        TimeoutError: it has not.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not so within {seconds} s")
        time.sleep(0.01)
