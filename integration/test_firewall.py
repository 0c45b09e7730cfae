"""firewall with nftables and iptables: traffic of pods, outside hosts and other bridges."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from integration import suite
from integration.checks import (
    OUTSIDE4,
    OUTSIDE6,
    address_of,
    bridge,
    check,
    dual_stack,
    ipam,
    ping,
    pods,
    refusal,
)
from integration.firewalls import (
    BACKENDS,
    FORWARD,
    accepted,
    admin,
    blocked,
    choose_iptables,
    conf,
    drop_forwarded,
    iptables,
    reachable_outside,
    traces,
)

if TYPE_CHECKING:
    from integration.node import Node

POLICY = '-m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)"'


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
@pytest.mark.parametrize(
    "policy",
    ["open", "same-bridge", pytest.param("isolated", marks=pytest.mark.kernel("bridge netfilter"))],
)
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


def test_podmans_list(node: Node) -> None:
    """The whole list as podman writes it, on a host that drops what it forwards."""
    reachable_outside(node)
    drop_forwarded(node)
    node.netns("c1")
    examples = os.path.join(suite.ROOT, "conflist/examples")
    env = {"NETCONFPATH": examples, "PYTHONPATH": suite.ROOT, "CNI_PATH": node.plugins}
    before = len(iptables(node))
    for verb in ("add", "check", "del", "del"):
        node.run([sys.executable, "-m", "conflist", verb, "podman", "/run/netns/c1"], env)
        if verb == "check":
            assert ping(node, "c1", OUTSIDE4)
            assert len(iptables(node)) == before + 2 + 2 + 2
    assert traces(node) == []
    assert list(node.links("c1")) == ["lo"]
