"""Delegates that are small real programs, in a folder of CNI_PATH."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from cni_plugins.spec.request import Request
from tests.calls import variables

if TYPE_CHECKING:
    from pathlib import Path

RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}]}


class Folder:
    """A folder of CNI_PATH with small real programs, which log each call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def program(self, name: str, **scripts: str) -> None:
        """Write a plugin that runs a piece of shell for a verb."""
        cases = "".join(f"{verb})\n{script}\n;;\n" for verb, script in scripts.items())
        (self.path / name).write_text(
            f'#!/bin/sh\necho "$CNI_COMMAND" >>{self.path}/log\ncat >{self.path}/stdin.$CNI_COMMAND\n'
            f'case "$CNI_COMMAND" in\n{cases}esac\n'
        )
        os.chmod(self.path / name, 0o755)

    def log(self) -> list[str]:
        """Return the verbs that were called."""
        log = self.path / "log"
        return log.read_text().split() if log.exists() else []

    def request(self, verb: str = "ADD", path: str = "", **changes: Any) -> Request:
        """Return a call of a plugin that delegates to these."""
        env = {"PATH": os.environ["PATH"], **variables(verb, path or str(self.path), args="A=\udcff")}
        return Request(env, {"cniVersion": "1.1.0", "name": "net", "prevResult": {}, **changes})


def echo(value: object) -> str:
    """Return a piece of shell that prints some JSON."""
    return f"cat <<'END'\n{json.dumps(value)}\nEND"
