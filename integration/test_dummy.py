"""The dummy plugin, and what it and its like do on a kernel that has no such links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration import features
from integration.checks import (
    DEFAULT,
    GW4,
    V4,
    V6,
    addresses,
    check,
    ipam,
    pods,
    refusal,
    reservations,
    routes,
)
from integration.sublinks import left, network, parent

if TYPE_CHECKING:
    from integration.node import Node

FEATURES = {"dummy": "dummy", "ipvlan": "ipvlan", "vlan": "802.1Q"}


@pytest.mark.kernel("dummy")
def test_a_pod_has_its_addresses_and_leaves_nothing(node: Node) -> None:
    conf = network(ipam=ipam(V4, V6, routes=DEFAULT))
    result = pods(node, conf, "c1", plugin="dummy")[0]
    inside = node.links("c1")["eth0"]
    assert result["interfaces"] == [
        {"name": "eth0", "mac": inside["address"], "mtu": 1500, "sandbox": "/run/netns/c1"}
    ]
    assert (inside["linkinfo"]["info_kind"], "UP" in inside["flags"]) == ("dummy", True)
    assert addresses(inside) == {"10.77.0.2/24", "fd00:77::2/64"}
    assert routes(node, "c1") == {(V4, ""), ("default", GW4)}
    assert not check(node, "dummy", conf, result)
    node.exec("c1", "ip", "address", "delete", "fd00:77::2/64", "dev", "eth0")
    assert "fd00:77::2/64 is missing" in check(node, "dummy", conf, result)
    node.exec("c1", "ip", "link", "set", "eth0", "down")
    assert "is down" in check(node, "dummy", conf, result)
    node.delete("dummy", conf, netns="c1")
    assert left(node, "c1") == []
    old = network(cniVersion="0.1.0", ipam=ipam(V4))
    result = node.add("dummy", old, netns="c1", container="c2")
    assert result == {"cniVersion": "0.1.0", "ip4": {"ip": "10.77.0.3/24", "gateway": GW4}}


def test_it_needs_addresses(node: Node) -> None:
    node.netns("c1")
    for verb in ("ADD", "STATUS"):
        answer = refusal(node, verb, "dummy", network(ipam={}), netns="c1")
        assert (answer["code"], answer["msg"]) == (7, "dummy interface requires an IPAM configuration")
    node.delete("dummy", network(ipam={}), netns="c1")


@pytest.mark.kernel
@pytest.mark.parametrize("plugin", FEATURES)
def test_status_knows_what_the_kernel_has(node: Node, plugin: str) -> None:
    parent(node)
    node.netns("c1")
    conf = network(vlanId=7)
    if features.has(FEATURES[plugin]):
        assert node.cni("STATUS", plugin, conf) == (0, None)
        return
    answer = refusal(node, "STATUS", plugin, conf)
    assert (answer["code"], answer["msg"]) == (50, f"the kernel has no {plugin} links")
    answer = refusal(node, "ADD", plugin, conf, netns="c1")
    assert (answer["code"], f"failed to create {plugin} 'eth0'" in answer["msg"]) == (100, True)
    assert left(node, "c1") == []
    assert reservations(node) == set()
