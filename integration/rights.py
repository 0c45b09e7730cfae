"""Plugins that may not change the network: the kernel refuses them what it would grant root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.node import Node

FOLDER = "/opt/unable"


def unable(node: Node, plugin: str) -> str:
    """Make a folder with a plugin that runs without CAP_NET_ADMIN (capabilities(7)); return it."""
    os.mkdir(node.path(FOLDER))
    path = node.path(f"{FOLDER}/{plugin}")
    script = f"#!/bin/sh\nexec setpriv --bounding-set=-net_admin {node.plugins}/{plugin}\n"
    with open(path, "x", encoding="ascii") as file:
        file.write(script)
    os.chmod(path, 0o755)
    return FOLDER
