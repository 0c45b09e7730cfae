"""The vlan plugin: tagged traffic, its options, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.checks import CONFLICT, GW4, GW6, V4, Wire, check, ipam, ping, pods, refusal
from integration.sublinks import PARENT, data_of, left, network, parent

if TYPE_CHECKING:
    from integration.node import Node


@pytest.mark.kernel("802.1Q")
def test_a_pod_talks_in_its_vlan_and_leaves_nothing(node: Node) -> None:
    parent(node, vlan=100)
    conf = network(vlanId=100, mtu=1400)
    with Wire(node, "beyond", "tagged", 0x0806) as arp:
        result = pods(node, conf, "c1", plugin="vlan")[0]
        assert arp.receive()[28:32] == bytes((10, 77, 0, 2)), "announced, with the tag"
    inside = node.links("c1")["eth0"]
    assert result["interfaces"] == [
        {"name": "eth0", "mac": inside["address"], "mtu": 1400, "sandbox": "/run/netns/c1"}
    ]
    assert (inside["mtu"], data_of(node, "c1")["id"]) == (1400, 100)
    assert all(ping(node, "c1", gateway) for gateway in (GW4, GW6))
    assert not check(node, "vlan", conf, result)
    assert "does not have VLAN id 101" in check(node, "vlan", {**conf, "vlanId": 101}, result)
    node.netns("c2")
    answer = refusal(node, "ADD", "vlan", conf, container="c2", netns="c2")
    assert (answer["code"], f"on '{PARENT}'" in answer["msg"]) == (CONFLICT, True)
    node.delete("vlan", conf, container="c2", netns="c2")
    assert not check(node, "vlan", conf, result)
    node.delete("vlan", conf, netns="c1")
    assert left(node, "c1", "c2") == []


@pytest.mark.kernel("802.1Q")
def test_the_parent_is_in_the_container_and_found_by_its_default_route(node: Node) -> None:
    node.netns("c1")
    parent(node, netns="c1", vlan=4094)
    node.exec("c1", "ip", "route", "add", "default", "dev", PARENT, "metric", "9")
    conf = network(master="", vlanId=4094, linkInContainer=True, ipam=ipam(V4), cniVersion="0.1.0")
    result = node.add("vlan", conf, netns="c1", ifname="net1")
    assert result == {"cniVersion": "0.1.0", "ip4": {"ip": "10.77.0.2/24", "gateway": GW4}}
    assert node.links("c1")["net1"]["link"] == PARENT
    assert ping(node, "c1", GW4, "-I", "net1")
    node.delete("vlan", conf, netns="c1", ifname="net1")
    assert set(node.links("c1")) == {"lo", PARENT}


def test_what_it_refuses(node: Node) -> None:
    parent(node)
    node.netns("c1")
    for conf, words in (
        (network(vlanId=4095), "invalid VLAN ID 4095"),
        (network(vlanId=-1), "invalid VLAN ID -1"),
        (network(vlanId=5, mtu=1501), "invalid MTU 1501, must be [0, master MTU(1500)]"),
        (network(vlanId=5, ipam={}), "vlan needs an IPAM plugin"),
        (network(vlanId=5, master=""), "no default route interface found"),
    ):
        answer = refusal(node, "ADD", "vlan", conf, netns="c1")
        assert (answer["code"], answer["msg"].partition(words)[:2]) == (7, ("", words)), answer
        node.delete("vlan", conf, netns="c1")
    assert left(node, "c1") == []
