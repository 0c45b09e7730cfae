"""Building blocks for the linter's tests."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from conflist.lint import lint

if TYPE_CHECKING:
    from pathlib import Path

    from conflist.findings import Finding

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


class Linter:
    """Writes lists into a folder and lints them.

    Args:
        folder: where the lists go, as 0.conflist and so on.
        plugins: CNI_PATH.
    """

    def __init__(self, folder: Path, plugins: str) -> None:
        self.folder = folder
        self.plugins = plugins

    def __call__(self, *contents: Any) -> list[Finding]:
        """Lint lists, each given as a list of plugin objects, a whole object or a text."""
        files = []
        for index, content in enumerate(contents):
            value = network(f"net{index}", content) if isinstance(content, list) else content
            path = self.folder / f"{index}.conflist"
            path.write_text(value if isinstance(value, str) else json.dumps(value, indent=2))
            files.append(str(path))
        return lint(files, [self.plugins])


def network(name: str, objects: list[Any], **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": objects, **more}


def bridge(**more: Any) -> dict[str, Any]:
    return {"type": "bridge", "ipam": copy.deepcopy(IPAM), **more}


def host_local(*subnets: str, **more: Any) -> dict[str, Any]:
    return {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in subnets], **more}


def texts(findings: list[Finding]) -> list[str]:
    return [f"{finding.severity}: {finding.text}" for finding in findings]
