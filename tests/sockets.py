"""Paths for sockets in a test's folder, whose own may be too long: unix(7) allows 107 bytes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def short(folder: Path) -> Iterator[Path]:
    """Yield a folder's path by way of a descriptor of this process, which its children can use, too."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)
