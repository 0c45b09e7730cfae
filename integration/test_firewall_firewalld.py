"""firewall with Debian's firewalld, on a message bus of the node's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.checks import (
    OUTSIDE4,
    OUTSIDE6,
    address_of,
    check,
    dual_stack,
    ping,
    pods,
    refusal,
)
from integration.firewalls import blocked, conf, firewalld, iptables, notes, reachable_outside, zone_sources
from integration.node import PEER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.node import Node


@pytest.fixture
def guarded(node: Node) -> Iterator[Node]:
    """The node, its packets between a bridge and the uplink rejected by firewalld."""
    reachable_outside(node)
    with firewalld(node):
        for zone, device in (("block", "br0"), ("public", "uplink")):
            node.run(["firewall-cmd", f"--zone={zone}", f"--add-interface={device}"])
        yield node


def test_sources_of_a_zone(guarded: Node) -> None:
    node = guarded
    (one, two) = pods(node, dual_stack(), "c1", "c2")
    assert blocked(node, "c1")
    host = f"{address_of(one)}/32"
    hosts = {host, f"{address_of(one, 1)}/128"}
    given = conf(one, iptablesAdminChainName="OURS")  # of no use here, and no reason to leave firewalld
    for _time in range(2):
        assert node.add("firewall", given, container="c1", netns="c1") == one
    assert zone_sources(node, "trusted") == hosts
    assert ping(node, "c1", OUTSIDE4)
    assert ping(node, "c1", OUTSIDE6)
    assert blocked(node, "c2")
    for backend in (None, "firewalld"):
        assert node.cni("STATUS", "firewall", conf(backend=backend)) == (0, None)
    assert check(node, "firewall", given, one) == ""
    node.run(["firewall-cmd", "--zone=trusted", f"--remove-source={host}"])
    assert host in check(node, "firewall", given, one)
    for _time in range(2):
        node.delete("firewall", conf(), container="c1")
    assert zone_sources(node, "trusted") == set()
    assert notes(node) == set()
    # Another zone; a zone that is not; an address that is in another zone already
    home = conf(two, firewalldZone="home", backend="firewalld", ingressPolicy="same-bridge")
    node.add("firewall", home, container="c2", netns="c2")
    assert f"{address_of(two)}/32" in zone_sources(node, "home")
    assert check(node, "firewall", home, two, container="c2", netns="c2") == ""
    assert "CNI-FORWARD" not in "".join(iptables(node))
    assert "CNI-ISOLATION-STAGE-1" in "".join(iptables(node, "FORWARD"))
    node.run(["iptables", "-F", "CNI-ISOLATION-STAGE-2"])
    assert "STAGE-2" in check(node, "firewall", home, two, container="c2", netns="c2")
    for zone, container in (("nowhere", "c1"), ("work", "c9")):
        wrong = conf(one if container == "c1" else two, firewalldZone=zone)
        error = refusal(node, "ADD", "firewall", wrong, container=container, netns="c1")
        assert (error["code"], zone in error["msg"]) == (106, True), error
    assert f"{address_of(two)}/32" in zone_sources(node, "home")
    gone = conf(**{"cni.dev/valid-attachments": []})
    assert node.cni("GC", "firewall", gone) == (0, None)
    assert zone_sources(node, "home") == set()


@pytest.mark.peer
def test_swapped_with_the_reference(guarded: Node) -> None:
    node = guarded
    (result,) = pods(node, dual_stack(cniVersion="1.0.0"), "c1")
    given = conf(result, cniVersion="1.0.0")
    hosts = {f"{address_of(result)}/32", f"{address_of(result, 1)}/128"}
    for adder, deleter in ((PEER, node.plugins), (node.plugins, PEER)):
        node.add("firewall", given, netns="c1", plugins=adder)
        assert zone_sources(node, "trusted") == hosts
        assert ping(node, "c1", OUTSIDE4)
        for side in (PEER, node.plugins):
            assert node.cni("CHECK", "firewall", given, netns="c1", plugins=side) == (0, None)
        node.delete("firewall", given, netns="c1", plugins=deleter)
        assert zone_sources(node, "trusted") == set()
    node.delete("firewall", given, netns="c1")
    assert notes(node) == set()


def test_firewalld_has_ended(node: Node) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    given = conf(result)
    with firewalld(node):
        node.add("firewall", given, netns="c1")
    assert "not running" in check(node, "firewall", given, result)
    # Without it another backend serves, and what was noted of firewalld keeps nobody from leaving
    node.add("firewall", given, netns="c1")
    assert check(node, "firewall", given, result) == ""
    node.delete("firewall", conf(), netns="c1")
    assert notes(node) == set()
