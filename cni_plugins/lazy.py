"""Modules that only some configurations need, imported when they are first used.

A module costs 0.1 to 0.3 ms at start; packet filter rules are a dozen of them, and most calls need none, or
one of the two backends.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Lazy:
    """Stands for a module; type checkers are shown the import itself, the build finds the literal name.

    Args:
        name: the module's full name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        __import__(self._name)
        return getattr(sys.modules[self._name], attribute)
