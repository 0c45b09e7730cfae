"""DEL, GC and STATUS of the bridge plugin: whatever is missing, nothing is left and nothing fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    bridge,
    check,
    dual_stack,
    files,
    ipam,
    leftovers,
    ping,
    pod_rules,
    pods,
    port_of,
    refusal,
    reservations,
)
from integration.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.node import Node

FULL = dual_stack(ipMasq=True, macspoofchk=True)
BY_IPTABLES = dual_stack(ipMasq=True, ipMasqBackend="iptables")
VALID = "cni.dev/valid-attachments"


def wait_for_links(node: Node) -> None:
    """Wait until the kernel, which takes its time, has removed what was in a removed namespace."""
    until(lambda: not any(name.startswith("veth") for name in node.links()))


def remove_namespace(node: Node) -> None:
    node.remove_netns("c1")
    wait_for_links(node)


def clear_run(node: Node) -> None:
    node.run(["rm", "-rf", "/run/cni"])


def delete_port(node: Node) -> None:
    node.exec("c1", "ip", "link", "delete", "eth0")


def delete_reservations(node: Node) -> None:
    node.run(["rm", "-rf", "/var/lib/cni/networks"])


def flush_rules(node: Node) -> None:
    node.run(["nft", "flush", "ruleset"])


def delete_bridge(node: Node) -> None:
    node.run(["ip", "link", "delete", "br0"])


DAMAGES: list[Callable[[Node], None]] = [
    remove_namespace,
    clear_run,
    delete_port,
    delete_reservations,
    flush_rules,
    delete_bridge,
]


@pytest.mark.parametrize("conf", [FULL, BY_IPTABLES], ids=["nftables", "iptables"])
@pytest.mark.parametrize("netns", ["c1", "", "/run/netns/gone"])
@pytest.mark.parametrize("with_result", [True, False])
def test_del_twice(node: Node, conf: dict[str, Any], netns: str, with_result: bool) -> None:
    result = pods(node, conf, "c1")[0]
    if netns != "c1":
        remove_namespace(node)
    for _time in range(2):
        node.delete("bridge", {**conf, "prevResult": result} if with_result else conf, netns=netns)
        assert leftovers(node, *(["c1"] if netns == "c1" else [])) == []


@pytest.mark.parametrize("conf", [FULL, BY_IPTABLES], ids=["nftables", "iptables"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_del_of_what_is_damaged(node: Node, conf: dict[str, Any], damage: Callable[[Node], None]) -> None:
    result = pods(node, conf, "c1")[0]
    damage(node)
    node.delete("bridge", {**conf, "prevResult": result}, netns="c1")
    assert leftovers(node) == []


@pytest.mark.parametrize("netns", ["c1", "", "/run/netns/gone"])
@pytest.mark.parametrize("conf", [FULL, BY_IPTABLES, bridge(isGateway=False, ipam={})])
def test_del_of_what_was_never_added(node: Node, conf: dict[str, Any], netns: str) -> None:
    node.netns("c1")
    before = node.ruleset()
    node.delete("bridge", conf, netns=netns)
    assert leftovers(node, "c1") == []
    assert set(node.links()) == {"lo"}
    assert node.ruleset() == before
    assert not files(node)


def test_del_with_a_path_that_is_no_namespace_any_more(node: Node) -> None:
    """Someone unmounted it and left the file."""
    pods(node, FULL, "c1")
    remove_namespace(node)
    with open(node.path("/run/netns/c1"), "x", encoding="ascii"):
        pass
    node.delete("bridge", FULL, netns="c1")
    assert leftovers(node) == []


def test_del_goes_on_after_an_error_and_reports_it(node: Node) -> None:
    conf = {**FULL, "ipam": ipam("10.77.0.0/24")}
    pods(node, conf, "c1")
    broken = {**conf, "ipam": {"type": "no-local"}}
    answer = refusal(node, "DEL", "bridge", broken, netns="c1")
    assert "'no-local'" in answer["msg"]
    assert list(node.links("c1")) == ["lo"]
    assert pod_rules(node) == []
    assert reservations(node) == {"10.77.0.2"}
    node.delete("bridge", conf, netns="c1")
    assert leftovers(node, "c1") == []


def test_del_of_a_stale_request_spares_the_addresss_next_owner(node: Node) -> None:
    """The runtime repeats DEL, with the old result, when somebody else has the address already."""
    conf = {**FULL, "ipam": ipam(ranges=[[{"subnet": "10.77.0.0/24", "rangeEnd": "10.77.0.2"}]])}
    first = pods(node, conf, "c1")[0]
    node.delete("bridge", conf, netns="c1")
    second = pods(node, conf, "c2")[0]
    assert first["ips"] == second["ips"]
    rules = pod_rules(node)
    for netns in ("c1", ""):
        node.delete("bridge", {**conf, "prevResult": first}, netns=netns)
    assert not check(node, "bridge", conf, second, container="c2", netns="c2")
    assert pod_rules(node) == rules


@pytest.mark.parametrize("conf", [FULL, BY_IPTABLES], ids=["nftables", "iptables"])
@pytest.mark.parametrize("noted", [True, False])
def test_gc_removes_what_is_not_valid(node: Node, conf: dict[str, Any], noted: bool) -> None:
    result, _gone = pods(node, conf, "c1", "c2")
    other_network = {**conf, "name": "net2", "bridge": "br1", "ipam": ipam("10.78.0.0/24")}
    other = pods(node, other_network, "c3")[0]
    if not noted:
        clear_run(node)
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    node.remove_netns("c2")
    assert node.cni("GC", "bridge", {**conf, VALID: valid}) == (0, None)
    assert reservations(node) == {"10.77.0.2", "fd00:77::2"}
    masquerades = [line for line in pod_rules(node) if "10.77.0.3" in line or "fd00:77::3" in line]
    assert masquerades == []
    if noted:
        assert not [line for line in pod_rules(node) if "c2-eth0" in line]
        assert not [path for path in files(node) if "c2" in path]
    assert not check(node, "bridge", conf, result)
    assert not check(node, "bridge", other_network, other, container="c3", netns="c3")
    assert ping(node, "c1", "fd00:77::1")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({}, VALID),
        ({VALID: None}, VALID),
        ({VALID: ["c1"]}, VALID),
        ({VALID: [{"containerID": "c1"}]}, "ifname"),
    ],
)
def test_gc_without_a_proper_list_removes_nothing(node: Node, keys: dict[str, Any], named: str) -> None:
    result = pods(node, FULL, "c1")[0]
    answer = refusal(node, "GC", "bridge", {**FULL, **keys})
    assert (answer["code"], named in answer["msg"]) == (7, True)
    assert not check(node, "bridge", FULL, result)


def test_gc_goes_on_after_an_error_and_reports_it(node: Node) -> None:
    pods(node, FULL, "c1")
    answer = refusal(node, "GC", "bridge", {**FULL, "ipam": {"type": "no-local"}, VALID: []})
    assert "'no-local'" in answer["msg"]
    assert pod_rules(node) == []


def test_status(node: Node) -> None:
    assert node.cni("STATUS", "bridge", FULL) == (0, None)
    assert node.cni("STATUS", "bridge", bridge(ipam={})) == (0, None)
    assert set(node.links()) == {"lo"}
    assert not os.path.exists(node.path("/var/lib/cni/networks/net"))
    small = bridge(ipam=ipam("10.77.0.0/30"))
    pods(node, small, "c1")
    answer = refusal(node, "STATUS", "bridge", small)
    assert (answer["code"], "no IP addresses available" in answer["msg"]) == (50, True)


@pytest.mark.parametrize("verb", ["STATUS", "GC"])
def test_verbs_that_an_older_version_does_not_have(node: Node, verb: str) -> None:
    answer = refusal(node, verb, "bridge", bridge(cniVersion="1.0.0", **{VALID: []}))
    assert (answer["code"], answer["cniVersion"]) == (1, "1.0.0")


def test_a_repeated_add_and_del_is_stable(node: Node) -> None:
    """What a node does all day; base chains and the bridge stay, and nothing grows."""
    states = []
    node.netns("c1")
    for number in range(4):
        result = node.add("bridge", FULL, netns="c1", container=f"c{number}")
        assert port_of(result) in node.links()
        node.delete("bridge", FULL, netns="c1", container=f"c{number}")
        states.append((node.ruleset(), set(node.links()), files(node)))
    assert states[1:] == states[:-1]
