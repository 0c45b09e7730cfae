"""What tests of bandwidth share: limits, and what the kernel says of queues and filters."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from integration.checks import port_of

if TYPE_CHECKING:
    from integration.node import Node

MBIT = 1_000_000
LIMITS = {
    "ingressRate": 10 * MBIT,
    "ingressBurst": 2 * MBIT,
    "egressRate": 20 * MBIT,
    "egressBurst": 4 * MBIT,
}
INGRESS = {key: value for key, value in LIMITS.items() if key.startswith("ingress")}
EGRESS = {key: value for key, value in LIMITS.items() if key.startswith("egress")}


def ifb_name(network: str = "net", container: str = "c1") -> str:
    """Return the name of an attachment's ifb."""
    return "bwp" + hashlib.sha512((network + container).encode()).hexdigest()[:12]


IFB = ifb_name()


def bandwidth(result: Any, **keys: Any) -> dict[str, Any]:
    """Return bandwidth's configuration, with the result of what made the interface."""
    return {"cniVersion": "1.1.0", "name": "net", "prevResult": result, **keys}


def qdiscs(node: Node, device: str) -> dict[str, Any]:
    """Return a device's queueing disciplines by kind, with their options."""
    listed = json.loads(node.run(["tc", "-json", "qdisc", "show", "dev", device]).stdout)
    return {each["kind"]: each.get("options", {}) for each in listed if each["kind"] != "noqueue"}


def redirected(node: Node, device: str) -> list[str]:
    """Return where a device's filters send what it receives."""
    shown = node.run(["tc", "-json", "filter", "show", "dev", device, "ingress"]).stdout
    actions = [
        action for each in json.loads(shown or b"[]") for action in each.get("options", {}).get("actions", [])
    ]
    return [action["to_dev"] for action in actions if action["kind"] == "mirred"]


def untouched(node: Node, result: Any) -> bool:
    """Tell whether nothing limits an attachment."""
    return not qdiscs(node, port_of(result)) and IFB not in node.links()
