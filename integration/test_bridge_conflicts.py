"""An ADD of the bridge plugin that cannot succeed: a clear error, and nothing left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    ALREADY_ATTACHED,
    CONFLICT,
    GW4,
    V4,
    addresses,
    bridge,
    check,
    dual_stack,
    ipam,
    leftovers,
    ping,
    pod_rules,
    pods,
    refusal,
    reservations,
)

if TYPE_CHECKING:
    from integration.node import Node

KERNEL = 100
NO_ADDRESS = 102
DELEGATE = 103


def test_the_bridges_name_is_taken_by_another_kind_of_link(node: Node) -> None:
    node.run(["ip", "link", "add", "br0", "type", "veth", "peer", "name", "other"])
    node.netns("c1")
    answer = refusal(node, "ADD", "bridge", bridge(), netns="c1")
    assert answer["code"] == CONFLICT
    assert answer["msg"] == "'br0' already exists but is not a bridge"
    assert answer["details"]
    assert set(node.links()) == {"lo", "br0", "other"}
    assert list(node.links("c1")) == ["lo"]
    assert reservations(node) == set()


def test_a_bridge_that_is_down_is_brought_up(node: Node) -> None:
    node.run(["ip", "link", "add", "br0", "type", "bridge"])
    before = node.links()["br0"]
    assert "UP" not in before["flags"]
    pods(node, bridge(), "c1")
    assert "UP" in node.links()["br0"]["flags"]
    assert ping(node, "c1", GW4)


def test_the_administrators_bridge_keeps_what_it_has(node: Node) -> None:
    node.run(["ip", "link", "add", "br0", "address", "02:00:00:00:00:aa", "type", "bridge"])
    node.run(["ip", "link", "add", "port", "up", "master", "br0", "type", "veth", "peer", "name", "other"])
    node.run(["ip", "address", "add", f"{GW4}/24", "dev", "br0"])
    result = pods(node, bridge(), "c1")[0]
    assert result["interfaces"][0]["mac"] == "02:00:00:00:00:aa"
    node.delete("bridge", bridge(), netns="c1")
    links = node.links()
    assert links["port"]["master"] == "br0"
    assert addresses(links["br0"]) == {f"{GW4}/24"}


def test_the_containers_interface_name_is_taken(node: Node) -> None:
    node.netns("c1")
    node.exec("c1", "ip", "link", "add", "eth0", "type", "bridge")
    answer = refusal(node, "ADD", "bridge", dual_stack(ipMasq=True, macspoofchk=True), netns="c1")
    assert answer["code"] == ALREADY_ATTACHED
    assert answer["msg"] == "interface 'eth0' already exists in the container"
    assert node.links("c1")["eth0"]["linkinfo"]["info_kind"] == "bridge"
    assert leftovers(node) == []


def test_a_second_add_does_not_harm_the_first(node: Node) -> None:
    conf = dual_stack(ipMasq=True, macspoofchk=True)
    result = pods(node, conf, "c1")[0]
    rules = pod_rules(node)
    assert refusal(node, "ADD", "bridge", conf, netns="c1")["code"] == ALREADY_ATTACHED
    assert not check(node, "bridge", conf, result)
    node.netns("c1-again")  # a second namespace with the same names
    assert refusal(node, "ADD", "bridge", conf, netns="c1-again")["code"] == ALREADY_ATTACHED
    assert not check(node, "bridge", conf, result)
    assert pod_rules(node) == rules
    assert ping(node, "c1", GW4)


BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "exhausted range": ({"ipam": ipam("10.77.0.0/30")}, NO_ADDRESS, "no IP addresses available"),
    "second range exhausted": (
        {"ipam": ipam(V4, "10.77.1.0/30"), "forceAddress": True},
        NO_ADDRESS,
        "no IP addresses available",
    ),
    "invalid subnet": ({"ipam": ipam("10.77.0.0/33")}, 7, "10.77.0.0/33"),
    "unreachable route": (
        {"ipam": ipam(routes=[{"dst": "10.9.0.0/16", "gw": "10.66.0.1"}])},
        KERNEL,
        "failed to add route 10.9.0.0/16",
    ),
    "the same route twice": (
        {"ipam": ipam(routes=[{"dst": "10.9.0.0/16"}, {"dst": "10.9.0.0/16"}])},
        CONFLICT,
        "10.9.0.0/16",
    ),
    "route that is none": ({"ipam": ipam(routes=[{"dst": "10.9.0.0"}])}, 7, "10.9.0.0"),
    "no such IPAM plugin": ({"ipam": {"type": "no-local"}}, DELEGATE, "failed to find plugin 'no-local'"),
    "IPAM plugin with a path": ({"ipam": {"type": "../bridge"}}, 7, "../bridge"),
    "masquerade backend": ({"ipMasqBackend": "ebtables"}, 7, "ebtables"),
    "version without several addresses": (
        {"cniVersion": "0.2.0", "ipam": ipam(V4, "10.77.1.0/24"), "forceAddress": True},
        7,
        "does not support more than 1 address per family",
    ),
}


@pytest.mark.parametrize(("options", "code", "text"), BROKEN.values(), ids=BROKEN)
def test_an_add_that_fails_on_the_way_leaves_nothing(
    node: Node, options: dict[str, Any], code: int, text: str
) -> None:
    for number, subnet in enumerate(("10.77.0.0/30", "10.77.1.0/30")):  # take what small ranges have
        node.add("host-local", bridge(ipam=ipam(subnet)), container=f"h{number}", netns="/none")
    held, host = reservations(node), set(node.links())
    node.netns("c1")
    conf = bridge(**{"ipMasq": True, "macspoofchk": True, **options})
    answer = refusal(node, "ADD", "bridge", conf, netns="c1")
    assert (answer["code"], text in answer["msg"]) == (code, True), answer
    assert reservations(node) == held
    assert set(node.links()) <= host | {"br0"}
    assert list(node.links("c1")) == ["lo"]
    assert pod_rules(node) == []
    assert not any(os.listdir(node.path(f"/run/cni/{kind}")) for kind in _note_kinds(node))


def _note_kinds(node: Node) -> list[str]:
    top = node.path("/run/cni")
    return [name for name in os.listdir(top) if os.path.isdir(f"{top}/{name}")] if os.path.isdir(top) else []


def test_the_kernel_refuses_at_the_last_step(node: Node) -> None:
    """Someone else has a table of the name that the spoof check needs, with another kind of chain there."""
    node.run(["nft", "add table bridge nat; add chain bridge nat PREROUTING"])
    node.netns("c1")
    conf = dual_stack(ipMasq=True, macspoofchk=True)
    answer = refusal(node, "ADD", "bridge", conf, netns="c1")
    assert (answer["code"], "nf_tables" in answer["msg"]) == (KERNEL, True), answer
    assert leftovers(node, "c1") == []


@pytest.mark.parametrize("path", ["/run/netns/none", "/proc/self/status"])
def test_a_namespace_that_is_none(node: Node, path: str) -> None:
    answer = refusal(node, "ADD", "bridge", bridge(), netns=path)
    assert answer["code"] == KERNEL
    assert path in answer["msg"]
    assert leftovers(node) == []


def test_the_hosts_own_namespace(node: Node) -> None:
    answer = refusal(node, "ADD", "bridge", bridge(), netns="/proc/self/ns/net")
    assert answer["code"] == 8
    assert set(node.links()) == {"lo"}
