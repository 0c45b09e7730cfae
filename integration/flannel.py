"""What tests of the flannel plugin share: the daemon's file, configurations, the scratch file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.node import Node

SUBNET_FILE = "/run/flannel/subnet.env"
COMMON = {"FLANNEL_MTU": "1450", "FLANNEL_IPMASQ": "true"}
ONLY4 = {"FLANNEL_NETWORK": "10.76.0.0/15", "FLANNEL_SUBNET": "10.77.0.1/24", **COMMON}
ONLY6 = {"FLANNEL_IPV6_NETWORK": "fd00::/16", "FLANNEL_IPV6_SUBNET": "fd00:77::1/64", **COMMON}
DUAL = {**ONLY4, **ONLY6}


def write_subnet_env(node: Node, values: Mapping[str, str] | None = None) -> None:
    """Write the file as the daemon does; IPv4 only when no values are given."""
    text = "".join(f"{key}={value}\n" for key, value in (values or ONLY4).items())
    write_subnet_text(node, text.encode())


def write_subnet_text(node: Node, text: bytes) -> None:
    """Write whatever content."""
    os.makedirs(node.path(os.path.dirname(SUBNET_FILE)), exist_ok=True)
    with open(node.path(SUBNET_FILE), "wb") as file:
        file.write(text)


def flannel(delegate: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return the plugin's configuration."""
    return {"cniVersion": "1.1.0", "name": "net", **({"delegate": delegate} if delegate else {}), **keys}


def flannel_pods(node: Node, conf: Mapping[str, Any], *names: str) -> list[Any]:
    """Make a namespace for each name, attach it to a flannel network and return the results."""
    results = []
    for name in names:
        node.netns(name)
        results.append(node.add("flannel", conf, container=name, netns=name))
    return results


def scratch(node: Node, container: str = "c1") -> str:
    """Return what the plugin keeps for a container's DEL."""
    with open(node.path(f"/var/lib/cni/flannel/{container}"), encoding="utf-8") as file:
        return file.read()
