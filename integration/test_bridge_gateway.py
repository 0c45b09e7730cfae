"""The bridge plugin's gateway on the host, and the masquerade of what goes further."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    CONFLICT,
    GW4,
    GW6,
    OUTSIDE4,
    OUTSIDE6,
    UPLINK4,
    UPLINK6,
    V4,
    V6,
    address_of,
    addresses,
    bridge,
    check,
    dual_stack,
    ipam,
    leftovers,
    outside,
    ping,
    pod_rules,
    pods,
    refusal,
    routes,
    source_seen,
)

if TYPE_CHECKING:
    from integration.node import Node

FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


def forwarding(node: Node) -> list[str]:
    return node.run(["sysctl", "-n", *FORWARDING]).stdout.decode().split()


def make_bridge(node: Node, *given: str) -> None:
    node.run(["ip", "link", "add", "br0", "type", "bridge"])
    for address in given:
        options = ["nodad"] if ":" in address else []
        node.run(["ip", "address", "add", address, "dev", "br0", *options])
    node.run(["ip", "link", "set", "br0", "up"])


@pytest.mark.parametrize(
    ("subnet", "gateway", "forwards"),
    [(V4, GW4, ["1", "0"]), (V6, GW6, ["0", "1"]), ("10.77.0.128/25", "10.77.0.129", ["1", "0"])],
)
def test_is_gateway(node: Node, subnet: str, gateway: str, forwards: list[str]) -> None:
    assert forwarding(node) == ["0", "0"]
    pods(node, bridge(isGateway=True, ipam=ipam(subnet)), "c1")
    assert addresses(node.links()["br0"]) == {f"{gateway}/{subnet.partition('/')[2]}"}
    assert forwarding(node) == forwards
    assert ping(node, "c1", gateway)
    family = 6 if ":" in subnet else 4
    assert routes(node, "c1", family) == {(subnet, "")}


def test_without_a_gateway_the_bridge_has_no_address(node: Node) -> None:
    result = pods(node, bridge(isGateway=False), "c1")[0]
    assert addresses(node.links()["br0"]) == set()
    assert forwarding(node) == ["0", "0"]
    assert not ping(node, "c1", result["ips"][0]["gateway"], wait=0.3)


@pytest.mark.parametrize("also", [{}, {"isGateway": False}])
def test_is_default_gateway(node: Node, also: dict[str, bool]) -> None:
    pods(node, dual_stack(**also), "c1")
    assert routes(node, "c1") == {(V4, ""), ("default", GW4)}
    assert routes(node, "c1", 6) == {(V6, ""), ("default", GW6)}
    assert addresses(node.links()["br0"]) == {f"{GW4}/24", f"{GW6}/64"}


@pytest.mark.parametrize("destination", ["0.0.0.0/0", "::/0"])
def test_two_default_routes_are_refused(node: Node, destination: str) -> None:
    node.netns("c1")
    conf = dual_stack(ipam=ipam(V4, V6, routes=[{"dst": destination}]))
    answer = refusal(node, "ADD", "bridge", conf, netns="c1")
    assert answer["code"] == 7
    assert "isDefaultGateway" in answer["msg"]
    assert "ipam.routes" in answer["details"]
    assert leftovers(node, "c1") == []


def test_a_default_route_of_ipam_alone(node: Node) -> None:
    pods(node, bridge(ipam=ipam(routes=[{"dst": "0.0.0.0/0"}])), "c1")
    assert routes(node, "c1") == {(V4, ""), ("default", GW4)}


@pytest.mark.parametrize(
    ("held", "subnet"), [("10.99.0.1/24", V4), ("10.77.0.9/24", V4), ("fd00:77::9/64", V6)]
)
def test_another_address_on_the_bridge_is_refused(node: Node, held: str, subnet: str) -> None:
    make_bridge(node, held)
    node.netns("c1")
    answer = refusal(node, "ADD", "bridge", bridge(ipam=ipam(subnet)), netns="c1")
    assert answer["code"] == CONFLICT
    assert "'br0' already has an IP address different from" in answer["msg"]
    assert held in answer["msg"]
    assert "forceAddress" in answer["details"]
    assert addresses(node.links()["br0"]) == {held}
    assert leftovers(node, "c1") == []


@pytest.mark.parametrize(
    ("held", "subnet", "gateway"),
    [("10.99.0.1/24", V4, GW4), ("10.77.0.9/24", V4, GW4), ("fd00:77::9/64", V6, GW6)],
)
def test_force_address_replaces_it(node: Node, held: str, subnet: str, gateway: str) -> None:
    make_bridge(node, held)
    pods(node, bridge(ipam=ipam(subnet), forceAddress=True), "c1")
    assert addresses(node.links()["br0"]) == {f"{gateway}/{subnet.partition('/')[2]}"}
    assert ping(node, "c1", gateway)


@pytest.mark.parametrize("force", [False, True])
def test_several_ipv6_subnets_stand_side_by_side(node: Node, force: bool) -> None:
    make_bridge(node, "fd00:99::1/64")
    first = bridge(ipam=ipam(V6), forceAddress=force)
    second = bridge(name="net2", ipam=ipam("fd00:78::/64"), forceAddress=force)
    pods(node, first, "c1")
    pods(node, second, "c2")
    assert addresses(node.links()["br0"]) == {"fd00:99::1/64", f"{GW6}/64", "fd00:78::1/64"}
    assert ping(node, "c1", GW6)
    assert ping(node, "c2", "fd00:78::1")


BACKENDS: list[dict[str, Any]] = [{}, {"ipMasqBackend": "nftables"}, {"ipMasqBackend": "iptables"}]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda keys: keys.get("ipMasqBackend", "default"))
def test_masquerade_rewrites_what_leaves_the_network(node: Node, backend: dict[str, Any]) -> None:
    outside(node)
    conf = dual_stack(ipMasq=True, **backend)
    results = pods(node, conf, "c1", "c2")
    assert source_seen(node, "c1", "outside", OUTSIDE4) == UPLINK4
    assert source_seen(node, "c1", "outside", OUTSIDE6) == UPLINK6
    assert ping(node, "c1", OUTSIDE4)
    assert ping(node, "c1", OUTSIDE6)
    # inside it nothing is rewritten
    assert source_seen(node, "c1", "c2", address_of(results[1])) == address_of(results[0])
    assert source_seen(node, "c1", "c2", address_of(results[1], 1)) == address_of(results[0], 1)
    by_iptables = node.run(["iptables-save", "-t", "nat"]).stdout.count(b"MASQUERADE")
    assert by_iptables == (2 if backend.get("ipMasqBackend") == "iptables" else 0)
    assert not check(node, "bridge", conf, results[0])
    node.delete("bridge", conf, netns="c1")
    assert not [line for line in pod_rules(node) if address_of(results[0]) in line]
    assert source_seen(node, "c2", "outside", OUTSIDE4) == UPLINK4
    node.delete("bridge", conf, container="c2", netns="c2")
    assert leftovers(node, "c1", "c2") == []


@pytest.mark.parametrize("given", ["nftables", "iptables"])
def test_del_finds_the_rules_of_either_backend(node: Node, given: str) -> None:
    """The configuration may have changed in between."""
    other = {"nftables": "iptables", "iptables": "nftables"}[given]
    pods(node, dual_stack(ipMasq=True, ipMasqBackend=given), "c1")
    assert pod_rules(node)
    node.delete("bridge", dual_stack(ipMasq=True, ipMasqBackend=other), netns="c1")
    assert leftovers(node, "c1") == []


def test_without_masquerade_the_source_is_the_pods(node: Node) -> None:
    outside(node)
    result = pods(node, dual_stack(), "c1")[0]
    assert source_seen(node, "c1", "outside", OUTSIDE4) == address_of(result)
    assert source_seen(node, "c1", "outside", OUTSIDE6) == address_of(result, 1)
    assert pod_rules(node) == []


def test_an_unknown_masquerade_backend_is_refused(node: Node) -> None:
    node.netns("c1")
    conf = bridge(ipMasq=True, ipMasqBackend="ebtables")
    answer = refusal(node, "ADD", "bridge", conf, netns="c1")
    assert (answer["code"], "'ebtables'" in answer["msg"]) == (7, True)
    assert leftovers(node, "c1") == []
