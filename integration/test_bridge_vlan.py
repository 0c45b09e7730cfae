"""VLANs of the bridge plugin: needs a kernel with bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    CONFLICT,
    GW4,
    GW6,
    Wire,
    address_of,
    addresses,
    bridge,
    check,
    dual_stack,
    leftovers,
    mac_bytes,
    ping,
    pods,
    port_of,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.node import Node

TAG = 0x8100


def flat(**keys: Any) -> dict[str, Any]:
    """Return the configuration of a network without gateway and addresses."""
    return bridge(isGateway=False, ipam={}, **keys)


def vlans(node: Node, port: str) -> dict[int, set[str]]:
    """Return a port's VLANs and their flags, as iproute2 shows them."""
    listed = json.loads(node.run(["bridge", "-json", "vlan", "show"]).stdout)
    found: dict[int, set[str]] = {}
    for item in listed:
        if item["ifname"] == port:
            for vlan in item["vlans"]:
                for number in range(vlan["vlan"], vlan.get("vlanEnd", vlan["vlan"]) + 1):
                    found[number] = set(vlan.get("flags", ()))
    return found


def passes(node: Node, sender: str, receiver: str, tag: int | None = None) -> bool:
    """Send a frame, with a VLAN tag or without, followed by nothing; tell whether it arrives."""
    source = mac_bytes(node.links(sender)["eth0"]["address"])
    with Wire(node, receiver) as arriving, Wire(node, sender) as leaving:
        if tag is None:
            leaving.send(b"frame", source=source)
        else:
            leaving.ethertype, inner = TAG, leaving.ethertype
            leaving.send(tag.to_bytes(2, "big") + inner.to_bytes(2, "big") + b"frame", source=source)
        return arriving.payload(1.0) == b"frame"


def test_an_existing_bridge_that_does_not_filter(node: Node) -> None:
    """The one case that every kernel can show."""
    node.run(["ip", "link", "add", "br0", "type", "bridge"])
    node.netns("c1")
    for keys in ({"vlan": 10}, {"vlanTrunk": [{"id": 10}]}):
        answer = refusal(node, "ADD", "bridge", dual_stack(**keys), netns="c1")
        assert answer["code"] == CONFLICT
        assert "'br0' does not filter VLANs" in answer["msg"]
        assert "vlan_filtering 1" in answer["details"]
    assert leftovers(node, "c1") == []


@pytest.mark.kernel("bridge VLAN filtering")
@pytest.mark.parametrize("preserve", [None, True, False])
def test_access_ports(node: Node, preserve: bool | None) -> None:
    keys = {} if preserve is None else {"preserveDefaultVlan": preserve}
    results = pods(node, flat(vlan=10, **keys), "c1", "c2")
    pods(node, flat(vlan=20, **keys), "c3")
    default = {} if preserve is False else {1: {"Egress Untagged"}}
    for result in results:
        assert vlans(node, port_of(result)) == {**default, 10: {"PVID", "Egress Untagged"}}
    assert node.links()["br0"]["linkinfo"]["info_data"]["vlan_filtering"] == 1
    assert passes(node, "c1", "c2")
    assert not passes(node, "c1", "c3")


@pytest.mark.kernel("bridge VLAN filtering")
def test_trunk_ports(node: Node) -> None:
    conf = flat(vlanTrunk=[{"id": 5}, {"minID": 10, "maxID": 12}], preserveDefaultVlan=False)
    trunk = pods(node, conf, "c1")[0]
    assert vlans(node, port_of(trunk)) == {5: set(), 10: set(), 11: set(), 12: set()}
    pods(node, flat(vlan=11, preserveDefaultVlan=False), "c2")
    pods(node, flat(vlan=13, preserveDefaultVlan=False), "c3")
    assert passes(node, "c1", "c2", tag=11)
    assert not passes(node, "c1", "c2", tag=10)
    assert not passes(node, "c1", "c3", tag=13)  # not one of the trunk's
    assert not passes(node, "c1", "c2")  # untagged: the default VLAN is gone
    assert not check(node, "bridge", conf, trunk)


@pytest.mark.kernel("bridge VLAN filtering")
def test_the_gateway_of_a_vlan(node: Node) -> None:
    conf = dual_stack(vlan=10, ipMasq=True)
    first, second = pods(node, conf, "c1", "c2")
    host = node.links()
    assert [each["name"] for each in first["interfaces"]] == ["br0", port_of(first), "eth0", "br0.10"]
    gateway = host["br0.10"]
    assert first["interfaces"][3] == {
        "name": "br0.10",
        "mac": gateway["address"],
        "mtu": gateway["mtu"],
    }
    assert addresses(gateway) == {f"{GW4}/24", f"{GW6}/64"}
    assert addresses(host["br0"]) == set()
    peer = host[gateway["link"]]
    assert (gateway["linkinfo"]["info_kind"], peer["master"]) == ("veth", "br0")
    assert gateway["ifindex"] > peer["ifindex"]
    assert 10 in vlans(node, peer["ifname"])
    assert sum(link.get("master") == "br0" for link in host.values()) == 3  # one gateway for both pods
    for pod, other in (("c1", second), ("c2", first)):
        assert all(ping(node, pod, each) for each in (GW4, GW6, address_of(other), address_of(other, 1)))
    assert not check(node, "bridge", conf, first)
    for pod in ("c1", "c2"):
        node.delete("bridge", conf, container=pod, netns=pod)
    assert node.links().keys() == {"lo", "br0", "br0.10", peer["ifname"]}


ADDRESSES = f"ip address replace {GW4}/24 dev br0.10; ip address replace {GW6}/64 dev br0.10 nodad"
CASES: Mapping[str, tuple[str, str, str]] = {
    "access VLAN": (
        "bridge vlan delete dev {port} vid 10",
        "bridge vlan add dev {port} vid 10 pvid untagged",
        "VLAN 10 is missing on '{port}'",
    ),
    "tagged now": (
        "bridge vlan add dev {port} vid 10 pvid",
        "bridge vlan add dev {port} vid 10 pvid untagged",
        "VLAN 10 is missing on '{port}'",
    ),
    "gateway": (
        "ip link set br0.10 down",
        f"ip link set br0.10 up; {ADDRESSES}",
        "'br0.10' of the host is down",
    ),
    "gateway's address": (
        "ip address delete 10.77.0.1/24 dev br0.10",
        ADDRESSES,
        "gateway address 10.77.0.1/24 is missing on 'br0.10'",
    ),
}


@pytest.mark.kernel("bridge VLAN filtering")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_check_finds_what_is_broken(node: Node, case: tuple[str, str, str]) -> None:
    conf = dual_stack(vlan=10)
    result = pods(node, conf, "c1")[0]
    damage, repair, found = (text.format(port=port_of(result)) for text in case)
    assert not check(node, "bridge", conf, result)
    node.run(["sh", "-ec", damage])
    assert found in check(node, "bridge", conf, result)
    node.run(["sh", "-ec", repair])
    assert not check(node, "bridge", conf, result)
