"""Waiting for what another process, or the kernel, does in its own time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def until(true: Callable[[], object], seconds: float = 60) -> None:
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
