"""What tests of masquerade share: calls of the plugins' functions in a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugins.address import Prefix
from cni_plugins.attach import masquerade
from cni_plugins.spec.request import Request

if TYPE_CHECKING:
    from integration.node import Node

ADDRESSES = [Prefix.parse("10.77.0.5/24"), Prefix.parse("fd77::5/64")]


def request(command: str, container: str = "c1", ifname: str = "eth0", network: str = "net") -> Request:
    """Return the request of an attachment."""
    env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": ifname}
    return Request(env, {"cniVersion": "1.1.0", "name": network, "prevResult": {"cniVersion": "1.1.0"}})


def add(node: Node, *addresses: Prefix, backend: str | None = None, **whose: str) -> None:
    """Masquerade for addresses, by the plugins' own function."""
    with node.entered():
        masquerade.add(request("ADD", **whose), addresses or ADDRESSES, backend)


def remove(node: Node, **whose: str) -> None:
    """Take the rules of an attachment away."""
    with node.entered():
        masquerade.remove(request("DEL", **whose))
