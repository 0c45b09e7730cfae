"""What tests of running network lists share: lists of recording plugins, and an attachment."""

from __future__ import annotations

from typing import Any

from conflist.cache import Attachment
from conflist.load import NetworkList

PORTS = [{"hostPort": 80, "containerPort": 80}]


def network(*objects: dict[str, Any] | str, version: str = "1.1.0") -> NetworkList:
    """Return a list of plugins, each an object or its type alone."""
    plugins = [{"type": item} if isinstance(item, str) else item for item in objects]
    return NetworkList("net", version, plugins)


def c1() -> Attachment:
    """Return an attachment with arguments and a capability."""
    return Attachment("c1", "eth0", "/run/netns/c1", [("A", "1"), ("B", "2")], {"portMappings": PORTS})
