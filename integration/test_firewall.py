"""firewall with nftables and iptables: traffic of pods, outside hosts and other bridges."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    OUTSIDE4,
    OUTSIDE6,
    address_of,
    bridge,
    check,
    dual_stack,
    files,
    ipam,
    ping,
    pods,
    refusal,
)
from integration.firewalls import (
    blocked,
    choose_iptables,
    conf,
    drop_forwarded,
    elements,
    iptables,
    reachable_outside,
)

if TYPE_CHECKING:
    from integration.node import Node

FORWARD = '-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD'
POLICY = '-m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)"'
BACKENDS = ("nftables", "iptables")


def admin(name: str = "CNI-ADMIN") -> str:
    return f'-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j {name}'


def accepted(address: str) -> list[str]:
    return [
        f"-A CNI-FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A CNI-FORWARD -s {address} -j ACCEPT",
    ]


def notes(node: Node) -> set[str]:
    """Return what firewall has noted."""
    return {path for path in files(node) if "/firewall" in path}


def traces(node: Node) -> list[str]:
    """Return what is left of pods in either backend and in the notes."""
    rules = [line for family in (4, 6) for line in iptables(node, family=family) if "ACCEPT" in line]
    return [
        *[line for line in rules if not line.startswith("-P")],
        *[elements(node, name) for name in ("pods4", "pods6") if elements(node, name)],
        *sorted(notes(node)),
    ]


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_what_iptables_drops_is_let_through_by_default(node: Node, variant: str) -> None:
    choose_iptables(node, variant)
    reachable_outside(node)
    one, two = pods(node, dual_stack(), "c1", "c2")
    drop_forwarded(node)
    assert blocked(node, "c1")
    assert blocked(node, "c1", OUTSIDE6)
    given = conf(one)
    assert node.add("firewall", given, netns="c1") == one
    assert ping(node, "c1", OUTSIDE4)
    assert ping(node, "c1", OUTSIDE6)
    assert ping(node, "c1", address_of(two))
    # Answers come in, what nobody asked for does not; and the other pod has nothing of this
    assert blocked(node, "outside", address_of(one))
    assert blocked(node, "c2")
    assert check(node, "firewall", given, one) == ""
    node.add("firewall", given, netns="c1")
    host4, host6 = f"{address_of(one)}/32", f"{address_of(one, 1)}/128"
    assert iptables(node, "CNI-FORWARD") == ["-N CNI-FORWARD", admin(), *accepted(host4)]
    assert iptables(node, "CNI-FORWARD", 6) == ["-N CNI-FORWARD", admin(), *accepted(host6)]
    assert iptables(node, "FORWARD") == ["-P FORWARD DROP", FORWARD]
    for _time in range(2):
        node.delete("firewall", conf(), container="c1")
    assert blocked(node, "c1")
    assert iptables(node, "CNI-FORWARD") == ["-N CNI-FORWARD", admin()]
    assert traces(node) == []


def test_nftables_where_iptables_has_no_say(node: Node) -> None:
    reachable_outside(node)
    one, two = pods(node, dual_stack(), "c1", "c2")
    node.add("firewall", conf(one), container="c1", netns="c1")
    assert "cni_plugins_firewall" in node.ruleset()
    assert "FORWARD" not in node.ruleset()
    # What comes last in the chain is for those that are not the pods'
    node.run(["nft", "add rule inet cni_plugins_firewall forward drop"])
    for target in (OUTSIDE4, OUTSIDE6, address_of(two)):
        assert ping(node, "c1", target)
    assert blocked(node, "c2")
    assert blocked(node, "c2", OUTSIDE6)
    assert blocked(node, "outside", address_of(one))
    # The administrator's chain goes first, and an ADD leaves it as it is
    node.run(["nft", f"add rule inet cni_plugins_firewall admin ip daddr {OUTSIDE4} drop"])
    node.add("firewall", conf(two), container="c2", netns="c2")
    assert blocked(node, "c1")
    assert ping(node, "c2", OUTSIDE6)
    for name in ("c1", "c2"):
        node.delete("firewall", conf(), container=name)
    assert traces(node) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["open", "same-bridge", "isolated"])
def test_ingress_policies(node: Node, backend: str, policy: str) -> None:
    reachable_outside(node)
    nets = {
        "br0": bridge(isDefaultGateway=True),
        "br1": bridge(name="b", bridge="br1", isDefaultGateway=True, ipam=ipam("10.78.0.0/24")),
        "br2": bridge(name="c", bridge="br2", isDefaultGateway=True, ipam=ipam("10.79.0.0/24")),
    }
    results = dict(zip(("c1", "c2"), pods(node, nets["br0"], "c1", "c2"), strict=True))
    results["c3"] = pods(node, nets["br1"], "c3")[0]
    results["c4"] = pods(node, nets["br2"], "c4")[0]
    at = {name: address_of(result) for name, result in results.items()}
    for name, result in results.items():
        given = conf(result, backend=backend, ingressPolicy="open" if name == "c4" else policy)
        node.add("firewall", given, container=name, netns=name)
    given = conf(results["c1"], backend=backend, ingressPolicy=policy)
    assert check(node, "firewall", given, results["c1"], container="c1") == ""
    assert ping(node, "c1", OUTSIDE4)
    assert ping(node, "c1", at["c4"])
    assert ping(node, "c1", "10.77.0.1")
    assert ping(node, "c1", at["c2"], wait=3 if policy != "isolated" else 0.4) == (policy != "isolated")
    assert ping(node, "c1", at["c3"], wait=3 if policy == "open" else 0.4) == (policy == "open")
    if backend == "iptables" and policy == "same-bridge":
        assert iptables(node, "FORWARD")[1:] == [f"-A FORWARD {POLICY} -j CNI-ISOLATION-STAGE-1", FORWARD]
        assert iptables(node, "CNI-ISOLATION-STAGE-1")[1:] == [
            f"-A CNI-ISOLATION-STAGE-1 -i br1 ! -o br1 {POLICY} -j CNI-ISOLATION-STAGE-2",
            f"-A CNI-ISOLATION-STAGE-1 -i br0 ! -o br0 {POLICY} -j CNI-ISOLATION-STAGE-2",
            f"-A CNI-ISOLATION-STAGE-1 {POLICY} -j RETURN",
        ]
        assert iptables(node, "CNI-ISOLATION-STAGE-2")[1:] == [
            f"-A CNI-ISOLATION-STAGE-2 -o br1 {POLICY} -j DROP",
            f"-A CNI-ISOLATION-STAGE-2 -o br0 {POLICY} -j DROP",
            f"-A CNI-ISOLATION-STAGE-2 {POLICY} -j RETURN",
        ]


def test_isolation_stays_before_acceptance(node: Node) -> None:
    (result,) = pods(node, bridge(), "c1")
    given = conf(result, backend="iptables", ingressPolicy="same-bridge")
    node.add("firewall", given, netns="c1")
    node.run(["iptables", "-D", "FORWARD", "2"])
    node.add("firewall", conf(result, backend="iptables"), netns="c1")
    assert iptables(node, "FORWARD")[1:] == [f"-A FORWARD {POLICY} -j CNI-ISOLATION-STAGE-1", FORWARD]


def test_admin_chain(node: Node) -> None:
    reachable_outside(node)
    (result,) = pods(node, bridge(isDefaultGateway=True), "c1")
    given = conf(result, iptablesAdminChainName="OURS")
    node.run(["iptables", "-N", "OURS"])
    node.run(["iptables", "-A", "OURS", "-d", OUTSIDE4, "-j", "DROP"])
    node.add("firewall", given, netns="c1")
    assert iptables(node, "CNI-FORWARD")[1] == admin("OURS")
    assert blocked(node, "c1")
    assert check(node, "firewall", given, result) == ""
    node.delete("firewall", given, netns="c1")
    assert "-d 192.0.2.2/32" in iptables(node, "OURS")[1]
    for keys, said in (
        ({"iptablesAdminChainName": "with blank"}, "cannot be a chain's name"),
        ({"iptablesAdminChainName": "OURS", "backend": "nftables"}, "the backend is nftables"),
        ({"backend": "pf"}, "unrecognized backend 'pf'"),
        ({"ingressPolicy": "closed"}, "unknown ingress policy: 'closed'"),
    ):
        error = refusal(node, "ADD", "firewall", conf(result, **keys), netns="c1")
        assert (error["code"], said in error["msg"]) == (7, True), error
    bare = {**result, "interfaces": []}
    bare["ips"] = [{"address": "10.77.0.9/24"}]
    error = refusal(node, "ADD", "firewall", conf(bare, ingressPolicy="same-bridge"), netns="c1")
    assert "chain" in error["details"]
    assert "prevResult" in refusal(node, "ADD", "firewall", conf(), netns="c1")["msg"]
    assert traces(node) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_check_finds_each_missing_piece(node: Node, backend: str) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    given = conf(result, backend=backend, ingressPolicy="isolated")
    node.add("firewall", given, netns="c1")
    if backend == "iptables":
        saved = {
            family: [line[3:] for line in iptables(node, family=family) if line[:2] == "-A"]
            for family in (4, 6)
        }
        for family, rules in saved.items():
            program = "iptables" if family == 4 else "ip6tables"
            for rule in rules:
                table = f"*filter\n-D {rule}\nCOMMIT\n"
                node.run([f"{program}-restore", "--noflush"], stdin=table.encode())
                said = check(node, "firewall", given, result)
                assert rule.split(" ")[0] in said, (rule, said)
                node.add("firewall", given, netns="c1")
                assert check(node, "firewall", given, result) == ""
        return
    four, six = address_of(result), address_of(result, 1)
    table = "inet cni_plugins_firewall"
    for broken, said in (
        (f"delete element {table} pods4 {{ {four} }}", four),
        (f"delete element {table} pods6 {{ {six} }}", six),
        (f'delete element {table} bridges {{ "br0" }}', "bridge br0"),
        (f'delete element {table} isolated {{ "br0" . "br0" }}', "bridge br0"),
        (f'delete element {table} inside {{ "br0" . "br0" }}', "bridge br0"),
        (f"flush chain {table} isolation", "not as firewall makes them"),
        (f"flush chain {table} forward", "not as firewall makes them"),
        ("flush ruleset", "not as firewall makes them"),
    ):
        node.run(["nft", broken])
        assert said in check(node, "firewall", given, result), broken
        node.add("firewall", given, netns="c1")
        assert check(node, "firewall", given, result) == ""


def test_check_finds_that_iptables_drops_since(node: Node) -> None:
    (result,) = pods(node, bridge(), "c1")
    node.add("firewall", conf(result), netns="c1")
    assert check(node, "firewall", conf(result), result) == ""
    drop_forwarded(node)
    assert "now it drops them" in check(node, "firewall", conf(result), result)
    # Attached anew it is iptables' and nothing is left in the other place
    node.add("firewall", conf(result), netns="c1")
    assert check(node, "firewall", conf(result), result) == ""
    assert elements(node, "pods4") == ""
    node.delete("firewall", conf(), netns="c1")
    assert traces(node) == []
    node.add("firewall", conf(result, backend="nftables"), netns="c1")
    assert check(node, "firewall", conf(result, backend="nftables"), result) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_address_that_passed_to_another(node: Node, backend: str) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    given = conf(result, backend=backend)
    node.add("firewall", given, container="old", netns="c1")
    node.add("firewall", given, container="new", netns="c1")
    node.delete("firewall", given, container="old")
    node.delete("firewall", given, container="old")
    assert check(node, "firewall", given, result, container="new") == ""
    collect = conf(**{"cni.dev/valid-attachments": [{"containerID": "new", "ifname": "eth0"}]})
    assert node.cni("GC", "firewall", collect) == (0, None)
    assert check(node, "firewall", given, result, container="new") == ""
    node.delete("firewall", given, container="new")
    assert traces(node) == []


def test_gc_of_both_backends(node: Node) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    for number, (name, backend) in enumerate((("a", "nftables"), ("b", "nftables"), ("c", "iptables"))):
        ips = [{"address": f"10.77.0.{10 + number}/24"}, {"address": f"fd00:77::{10 + number}/64"}]
        node.add("firewall", conf({**result, "ips": ips}, backend=backend), container=name, netns="c1")
    ips = [{"address": "10.77.0.20/24"}]
    node.add("firewall", conf({**result, "ips": ips}, name="else"), container="d", netns="c1")
    os.unlink(node.path("/run/cni/firewall/net:b:eth0"))
    keep = conf(**{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]})
    assert node.cni("GC", "firewall", keep) == (0, None)
    assert "10.77.0.10 " in elements(node, "pods4")
    assert "10.77.0.11 " not in elements(node, "pods4")
    assert [line for line in iptables(node, "CNI-FORWARD") if "10.77.0.12/" in line] == []
    none = conf(**{"cni.dev/valid-attachments": []})
    assert node.cni("GC", "firewall", none) == (0, None)
    assert elements(node, "pods4") == ""
    assert len([line for line in iptables(node, "CNI-FORWARD") if "10.77.0.20/" in line]) == 2
    assert node.cni("GC", "firewall", {**none, "name": "else"}) == (0, None)
    assert [line for line in traces(node) if "address:" not in line] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_delete_without_the_note(node: Node, backend: str) -> None:
    (result,) = pods(node, bridge(), "c1")
    node.add("firewall", conf(result, backend=backend), netns="c1")
    os.unlink(node.path("/run/cni/firewall/net:c1:eth0"))
    # nftables knows by the comment, iptables by the addresses alone; the backend is another by now
    node.delete("firewall", conf(None if backend == "nftables" else result, backend="nftables"))
    assert [line for line in traces(node) if "address:" not in line] == []


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_every_version_of_the_specification(node: Node, version: str) -> None:
    (result,) = pods(node, dual_stack(cniVersion=version), "c1")
    given = conf(result, cniVersion=version)
    assert node.add("firewall", given, netns="c1") == result
    assert elements(node, "pods4")
    assert elements(node, "pods6")
    node.delete("firewall", given, netns="c1")
    assert traces(node) == []


def status(node: Node, **keys: Any) -> tuple[int, str]:
    answered, error = node.cni("STATUS", "firewall", conf(**keys))
    return (0, "") if answered == 0 else (error["code"], error["msg"])


def test_status(node: Node) -> None:
    for keys in ({}, {"backend": "nftables"}, {"backend": "iptables"}, {"ingressPolicy": "isolated"}):
        assert status(node, **keys) == (0, "")
    assert node.ruleset() == ""
    assert status(node, backend="firewalld") == (50, "firewalld is not on the system's message bus")
    node.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])
    code, said = status(node, ingressPolicy="isolated")
    assert (code, "ports of a bridge" in said) == (50, True)
    assert status(node, ingressPolicy="same-bridge") == (0, "")
    assert status(node, ingressPolicy="closed")[0] == 7
    os.unlink(node.path("/etc/alternatives/iptables"))
    assert status(node, backend="iptables") == (50, "iptables cannot be used on this host")
