"""What is closed when its block ends."""

from __future__ import annotations

from typing import Self


class Closing:
    """A context manager that is closed at the end of its block, whatever happened there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started."""
        raise NotImplementedError
