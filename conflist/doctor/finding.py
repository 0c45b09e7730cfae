"""What the doctor finds."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

ERROR = "error"
WARNING = "warning"
INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: a short name of what was looked at, for scripts.
        severity: ERROR: pods fail, or will; WARNING: something is left over, or will fail one day;
            INFO: nothing is wrong, unless the node is for what the text names.
        network: the network it is about; empty: the node.
        text: what is wrong, as a sentence.
        advice: what to do where no command can, with the commands that help, each in backticks.
        repair: the commands that repair it, in order, each as its arguments.
        safe: whether they take nothing from a running pod and nothing that an administrator may have meant.
    """

    check: str
    severity: str
    network: str
    text: str
    advice: str = ""
    repair: tuple[tuple[str, ...], ...] = ()
    safe: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, each command as a line for a shell."""
        return {**asdict(self), "repair": [shlex.join(command) for command in self.repair]}
