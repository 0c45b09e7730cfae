"""vrf: an interface and its routes in a routing domain of their own. Veths stand for hardware."""

from __future__ import annotations

from typing import Any

import pytest

from integration.checks import DEFAULT, GW4, GW6, V4, V6, check, ipam, pods, refusal, routes
from integration.node import PEER, Node
from integration.sublinks import PARENT, parent

pytestmark = pytest.mark.kernel("vrf")


def lent(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "device": PARENT, "ipam": ipam(V4, V6), **keys}


@pytest.mark.peer
def test_routes_move_to_the_vrf(node: Node) -> None:
    parent(node)
    first = lent(ipam=ipam(V4, V6, routes=[{"dst": "0.0.0.0/0"}]))
    result = pods(node, first, "c1", plugin="host-device")[0]
    conf = {"cniVersion": "1.1.0", "name": "net", "vrfname": "red", "table": 1001, "prevResult": result}
    assert node.add("vrf", conf, netns="c1") == result
    assert f"default via {GW4}" in node.exec("c1", "ip", "route", "show", "table", "1001")
    assert node.links("c1")["eth0"]["master"] == "red"
    assert not check(node, "vrf", conf, result)
    assert refusal(node, "ADD", "vrf", conf, netns="c1")["code"] == 105
    node.delete("vrf", conf, netns="c1")
    assert "red" not in node.links("c1")
    old = {**conf, "cniVersion": "1.0.0", "prevResult": {**result, "cniVersion": "1.0.0"}}
    for adder, deleter in ((node.plugins, PEER), (PEER, node.plugins)):
        node.add("vrf", old, netns="c1", plugins=adder)
        assert node.links("c1")["eth0"]["master"] == "red"
        node.delete("vrf", old, netns="c1", plugins=deleter)
        assert "red" not in node.links("c1")


def table_of(node: Node, name: str) -> int:
    return int(node.links("c1")[name]["linkinfo"]["info_data"]["table"])


def test_two_members_of_both_families_in_a_table_that_is_free(node: Node) -> None:
    parent(node)
    node.netns("c1")
    node.exec("c1", "ip", "link", "add", "taken", "type", "vrf", "table", "1")
    lend = lent(ipam=ipam(V4, V6, routes=DEFAULT))
    conf = {"cniVersion": "1.1.0", "name": "net", "vrfname": "blue"}
    first = node.add("host-device", lend, netns="c1")
    node.add("vrf", {**conf, "prevResult": first}, netns="c1")
    assert table_of(node, "blue") == 2
    for gateway, family in ((GW4, "-4"), (GW6, "-6")):
        assert f"default via {gateway}" in node.exec("c1", "ip", family, "route", "show", "table", "2")
    assert f"{GW6}" not in node.exec("c1", "ip", "-6", "route")

    node.exec("c1", "ip", "link", "add", "net1", "up", "type", "dummy")
    second = {"cniVersion": "1.1.0", "interfaces": [{"name": "net1", "sandbox": "/run/netns/c1"}]}
    node.add("vrf", {**conf, "prevResult": second}, netns="c1", ifname="net1")
    assert {node.links("c1")[name]["master"] for name in ("eth0", "net1")} == {"blue"}
    node.delete("vrf", {**conf, "prevResult": first}, netns="c1")
    assert "master" not in node.links("c1")["eth0"]
    for family in ("-4", "-6"):
        left = node.exec("c1", "ip", family, "route", "show", "table", "2", "dev", "eth0")
        assert left == "", "what ADD moved goes with the membership"
    assert routes(node, "c1") >= {(V4, "")}
    assert "associated" in check(node, "vrf", conf, first)
    for keys in ({"vrfname": "net1"}, {"vrfname": "blue", "table": 77}):
        wrong = {**conf, **keys, "prevResult": first}
        assert refusal(node, "ADD", "vrf", wrong, netns="c1")["code"] == 105
        node.delete("vrf", wrong, netns="c1")
    assert node.links("c1")["net1"]["master"] == "blue"
    for _time in range(2):
        node.delete("vrf", {**conf, "prevResult": second}, netns="c1", ifname="net1")
        assert set(node.links("c1")) == {"lo", "eth0", "net1", "taken"}
    assert node.cni("STATUS", "vrf", conf) == (0, None)
