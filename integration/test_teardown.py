"""DEL and GC go through all their steps: what one family, or one file, refuses does not keep the rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import V4, V6, bridge, files, ipam, leftovers, pod_rules, pods, refusal, reservations

if TYPE_CHECKING:
    from integration.node import Node

RESTORE = "/etc/alternatives/iptables-restore"
VALID = "cni.dev/valid-attachments"
MASQUERADE = bridge(ipMasq=True, ipMasqBackend="iptables", ipam=ipam(V4, V6))
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


def break_iptables(node: Node) -> str:
    """Let iptables-restore fail for IPv4; return what it was."""
    was = os.readlink(node.path(RESTORE))
    os.unlink(node.path(RESTORE))
    with open(node.path(RESTORE), "x", encoding="ascii") as file:
        file.write("#!/bin/sh\nexit 1\n")
    os.chmod(node.path(RESTORE), 0o755)
    return was


def mend_iptables(node: Node, was: str) -> None:
    os.unlink(node.path(RESTORE))
    os.symlink(was, node.path(RESTORE))


def rules(node: Node, program: str) -> list[str]:
    """Return the rules and chains that are a container's."""
    listed = node.run([program, "-t", "nat", "-S"]).stdout.decode().splitlines()
    return [line for line in listed if "c1" in line or line.startswith("-N CNI-DN-")]


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("plugin", ["bridge", "portmap"])
def test_one_of_two_families_fails(node: Node, plugin: str, verb: str) -> None:
    (result,) = pods(node, MASQUERADE if plugin == "bridge" else bridge(ipam=ipam(V4, V6)), "c1")
    given: dict[str, Any] = {**MASQUERADE, VALID: []}
    if plugin == "portmap":
        given = {**given, "backend": "iptables", "runtimeConfig": PORTS, "prevResult": result}
        node.add("portmap", given, netns="c1")
    assert rules(node, "iptables")
    assert rules(node, "ip6tables")
    was = break_iptables(node)
    answer = refusal(node, verb, plugin, given, netns="c1")
    assert "iptables-restore failed with status 1" in answer["msg"]
    assert rules(node, "iptables")
    assert rules(node, "ip6tables") == []
    mend_iptables(node, was)
    assert node.cni(verb, plugin, given, netns="c1") == (0, None)
    assert rules(node, "iptables") == []
    if plugin == "portmap":
        node.delete("bridge", MASQUERADE, netns="c1")
    assert leftovers(node, "c1") == []


def test_a_lock_of_host_device_that_is_none(node: Node) -> None:
    node.run(["ip", "link", "add", "lent", "type", "veth", "peer", "name", "far"])
    conf = {"cniVersion": "1.1.0", "name": "net", "device": "lent", "ipam": ipam()}
    pods(node, conf, "c1", plugin="host-device")
    lock = node.path("/run/cni/host-device/lock")
    os.unlink(lock)
    os.mkdir(lock)
    answer = refusal(node, "GC", "host-device", {**conf, VALID: []})
    assert "/run/cni/host-device/lock" in answer["msg"]
    assert reservations(node) == set()


def test_a_note_of_firewall_that_cannot_be_swept(node: Node) -> None:
    (result,) = pods(node, bridge(), "c1")
    conf = {"cniVersion": "1.1.0", "name": "net", "backend": "nftables"}
    node.add("firewall", {**conf, "prevResult": result}, netns="c1")
    os.mkdir(node.path("/run/cni/firewall/.folder"))
    assert [line for line in pod_rules(node) if "10.77.0." in line]
    answer = refusal(node, "GC", "firewall", {**conf, VALID: []})
    assert answer["code"] == 100
    assert [line for line in pod_rules(node) if "10.77.0." in line] == []
    assert [path for path in files(node) if "/firewall" in path] == []
