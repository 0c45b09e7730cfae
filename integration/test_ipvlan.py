"""The ipvlan plugin: its modes, the chained form, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import GW4, GW6, V4, address_of, addresses, check, ipam, ping, pods, refusal, routes
from integration.sublinks import PARENT, data_of, left, network, parent

if TYPE_CHECKING:
    from integration.node import Node

OTHER = {"l2": "l3", "l3": "l3s", "l3s": "l2"}


def before(node: Node, **keys: Any) -> dict[str, Any]:
    """Return a result as a plugin gives it that made or found the parent."""
    return {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": PARENT, "mac": node.links()[PARENT]["address"]}],
        "ips": [{"address": "10.77.0.5/24", "gateway": GW4, "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24"}],
        "dns": {"nameservers": [GW4]},
        **keys,
    }


@pytest.mark.kernel("ipvlan")
@pytest.mark.parametrize("mode", OTHER)
def test_two_pods_talk_in_every_mode(node: Node, mode: str) -> None:
    parent(node)
    conf = network(mode=mode, mtu=1400)
    results = pods(node, conf, "c1", "c2", plugin="ipvlan")
    inside = node.links("c1")["eth0"]
    assert results[0]["interfaces"] == [
        {"name": "eth0", "mac": node.links()[PARENT]["address"], "mtu": 1400, "sandbox": "/run/netns/c1"}
    ]
    assert (inside["mtu"], data_of(node, "c1")["mode"]) == (1400, mode)
    assert ping(node, "c1", address_of(results[1], 0))
    assert not check(node, "ipvlan", conf, results[0])
    assert "does not have mode" in check(node, "ipvlan", {**conf, "mode": OTHER[mode]}, results[0])
    if mode != "l2":
        return
    assert all(ping(node, "c1", target) for target in (GW4, GW6, address_of(results[1], 1)))
    for each in ("c1", "c2"):
        node.delete("ipvlan", conf, container=each, netns=each)
    assert left(node, "c1", "c2") == []


@pytest.mark.kernel("ipvlan")
def test_chained_it_takes_the_addresses_before(node: Node) -> None:
    parent(node)
    node.netns("c1")
    conf = network(master="", ipam={})
    result = node.add("ipvlan", {**conf, "prevResult": before(node)}, netns="c1")
    assert [each["name"] for each in result["interfaces"]] == ["eth0"]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.77.0.5/24", 0)]
    assert result["dns"] == {"nameservers": [GW4]}
    assert addresses(node.links("c1")["eth0"]) == {"10.77.0.5/24"}
    assert routes(node, "c1") == {(V4, ""), ("192.0.2.0/24", GW4)}
    assert ping(node, "c1", GW4)
    assert not check(node, "ipvlan", conf, result)
    node.delete("ipvlan", {**conf, "prevResult": result}, netns="c1")
    assert left(node, "c1") == []


@pytest.mark.kernel("ipvlan")
def test_the_parent_is_in_the_container_and_found_by_its_default_route(node: Node) -> None:
    node.netns("c1")
    parent(node, netns="c1")
    node.exec("c1", "ip", "route", "add", "default", "dev", PARENT, "metric", "9")
    conf = network(master="", linkInContainer=True, ipam=ipam(V4), cniVersion="0.1.0")
    result = node.add("ipvlan", conf, netns="c1", ifname="net1")
    assert result == {"cniVersion": "0.1.0", "ip4": {"ip": "10.77.0.2/24", "gateway": GW4}}
    assert node.links("c1")["net1"]["link"] == PARENT
    assert ping(node, "c1", GW4, "-I", "net1")
    node.delete("ipvlan", conf, netns="c1", ifname="net1")
    assert set(node.links("c1")) == {"lo", PARENT}


def test_what_it_refuses(node: Node) -> None:
    parent(node)
    node.netns("c1")
    two = before(node, interfaces=[{"name": PARENT}, {"name": "eth9"}])
    for conf, words in (
        (network(mode="l4"), 'unknown ipvlan mode: "l4"'),
        (network(mtu=1501), "invalid MTU 1501, must be [0, master MTU(1500)]"),
        (network(ipam={}), "ipvlan needs addresses"),
        (network(ipam={}, prevResult=before(node, ips=[])), "ipvlan needs addresses"),
        (network(ipam={}, master="", prevResult=two), "chained master failure"),
        (network(master=""), "no default route interface found"),
    ):
        answer = refusal(node, "ADD", "ipvlan", conf, netns="c1")
        assert (answer["code"], answer["msg"].partition(words)[:2]) == (7, ("", words)), answer
        node.delete("ipvlan", conf, netns="c1")
    assert left(node, "c1") == []
