"""What the tests of macvlan, ipvlan, vlan and dummy share: a parent with a network beyond it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration.checks import GW4, GW6, V4, V6, ipam, leftovers

if TYPE_CHECKING:
    from integration.node import Node

PARENT = "uplink"


def network(**keys: Any) -> dict[str, Any]:
    """Return a configuration for any of the plugins: both families, unless told otherwise."""
    return {"cniVersion": "1.1.0", "name": "net", "master": PARENT, "ipam": ipam(V4, V6), **keys}


def parent(node: Node, netns: str = "", vlan: int = 0) -> None:
    """Make the parent, a veth, and at its other end the namespace `beyond`, with the gateways' addresses.

    Args:
        node: the node.
        netns: the container that the parent is in; empty: the node itself.
        vlan: the VLAN that the gateways are in; 0: none.
    """
    node.netns("beyond")
    command = ["ip", "link", "add", PARENT, "type", "veth", "peer", "name", "far", "netns"]
    node.run([*command, node.path("/run/netns/beyond") if netns else "beyond"], netns=netns)
    node.run(["ip", "link", "set", PARENT, "up", "addrgenmode", "none"], netns=netns)
    node.exec("beyond", "ip", "link", "set", "far", "up", "addrgenmode", "none")
    far = "far"
    if vlan:
        far = "tagged"
        node.exec("beyond", *f"ip link add link far name {far} type vlan id {vlan}".split())
        node.exec("beyond", "ip", "link", "set", far, "up", "addrgenmode", "none")
    node.exec("beyond", "ip", "address", "add", f"{GW4}/24", "dev", far)
    for address in (GW6, "fe80::99"):
        node.exec("beyond", "ip", "address", "add", f"{address}/64", "dev", far, "nodad")


def data_of(node: Node, netns: str, ifname: str = "eth0") -> dict[str, Any]:
    """Return what only a link's kind has, as `ip -details` names it."""
    found: dict[str, Any] = node.links(netns)[ifname]["linkinfo"]["info_data"]
    return found


def program(node: Node, name: str, text: str) -> str:
    """Put a shell script in the place of an IPAM plugin; return the folder that has it beside our plugins."""
    folder = "/opt/both"
    node.run(["mkdir", "-p", folder])
    for plugin in ("macvlan", "ipvlan", "vlan", "dummy", "host-local"):
        node.run(["ln", "-sf", f"{node.plugins}/{plugin}", f"{folder}/{plugin}"])
    with open(node.path(f"{folder}/{name}"), "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\n{text}")
    node.run(["chmod", "+x", f"{folder}/{name}"])
    return folder


def left(node: Node, *containers: str) -> list[str]:
    """Return what attachments have left, besides the parent."""
    return [each for each in leftovers(node, *containers) if each != PARENT]
