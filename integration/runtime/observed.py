"""What can be seen of a machine with pods: the traces they leave on it, and what answers on its ports."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.node import Node

STATE = "/var/lib/cni"


@dataclass(frozen=True)
class Outside:
    """A host beside the node: documentation addresses, of RFC 5737 and RFC 3849."""

    netns: str = "outside"
    addresses: tuple[str, ...] = ("192.0.2.2/24", "2001:db8:2::2/64")
    node_addresses: tuple[str, ...] = ("192.0.2.1/24", "2001:db8:2::1/64")

    @staticmethod
    def flags(address: str) -> tuple[str, ...]:
        """Return what `ip address add` is to be told of an address: do not wait to detect a duplicate."""
        return ("nodad",) if ":" in address else ()


OUTSIDE = Outside()


@dataclass(frozen=True)
class Traces:
    """Everything of pods' networks that outlives a call of a plugin."""

    links: tuple[str, ...]
    neighbours: tuple[str, ...]
    namespaces: tuple[str, ...]
    files: tuple[str, ...]
    ruleset: str


def traces(node: Node) -> Traces:
    """Look at a node."""
    listed = json.loads(node.run(["ip", "-json", "neighbour", "show", "nud", "permanent"]).stdout)
    with node.entered():
        namespaces = sorted(os.listdir("/run/netns"))
        files = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(STATE)
            for name in names
            if name != "lock" and not name.startswith("last_reserved_ip.")
        )
    return Traces(
        links=tuple(sorted(node.links())),
        neighbours=tuple(sorted(entry["dst"] for entry in listed)),
        namespaces=tuple(namespaces),
        files=tuple(files),
        ruleset=node.ruleset(),
    )


def get_page(node: Node, host: str, port: int, netns: str = "") -> str:
    """Fetch a pod's page over HTTP, from the node or from another namespace of it.

    Raises:
        OSError: nothing answers.
    """
    with node.entered(netns):
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode().strip()
        finally:
            connection.close()
