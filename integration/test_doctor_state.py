"""cnictl doctor on what plugins leave per attachment besides addresses and links: see test_doctor."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import outside
from integration.dhcp import FOLDER, daemon, dnsmasq, lan, leased
from integration.firewalls import choose_iptables, elements, iptables
from integration.test_doctor import BRIDGE, STATE, age_notes, checks, cnictl, doctor, put, state, write_list
from integration.waiting import until
from ipam.dhcp.notes import name_of

if TYPE_CHECKING:
    from integration.node import Node

FILTERED = {**BRIDGE, "ipMasq": False, "macspoofchk": True}
LIMITS = {"ingressRate": 800000, "ingressBurst": 80000, "egressRate": 800000, "egressBurst": 80000}
SECOND = "10.59.0.3"


def attach(node: Node, *plugins: dict[str, Any]) -> None:
    """Make a node with an uplink, and pods c1 and c2 on a network of these plugins."""
    outside(node)
    node.run(["ip", "route", "add", "default", "via", "192.0.2.2"])
    write_list(node, *plugins)
    for name in ("c1", "c2"):
        node.netns(name)
        assert cnictl(node, "add", "pods", f"/run/netns/{name}", "--container-id", name)[0] == 0
    age_notes(node)
    assert doctor(node) == []


def lose(node: Node) -> None:
    """Let c2's namespace go, and all that the runtime and host-local know of it."""
    node.remove_netns("c2")
    os.unlink(node.path("/var/lib/cni/results/pods-c2-eth0"))
    if os.path.exists(node.path(f"{STATE}/{SECOND}")):
        os.unlink(node.path(f"{STATE}/{SECOND}"))
    until(lambda: b":c2:" not in node.run(["ip", "link"]).stdout)


def repair(node: Node, expected: set[str]) -> list[dict[str, Any]]:
    """Let the doctor find just that, change nothing, and repair it; c1 is as it was."""
    # That the kernel has looked for duplicates of the bridge's address is a change, too.
    until(lambda: b"tentative" not in node.run(["ip", "address", "show", "br0"]).stdout)
    before = state(node)
    found = doctor(node)
    assert state(node) == before
    assert checks(found) == expected, found
    assert all(each["safe"] for each in found), found
    assert doctor(node, "--fix") == []
    assert cnictl(node, "check", "pods", "/run/netns/c1", "--container-id", "c1")[0] == 0
    return found


def noted(node: Node) -> list[str]:
    """Return every file below /run/cni that names c2."""
    return [
        os.path.join(folder, name)
        for folder, _folders, names in os.walk(node.path("/run/cni"))
        for name in names
        if "c2" in name
    ]


def spoof_chains(node: Node) -> str:
    return node.run(["nft", "list", "table", "bridge", "nat"]).stdout.decode()


def test_what_nftables_and_notes_have(node: Node) -> None:
    attach(node, FILTERED, {"type": "firewall", "backend": "nftables"}, {"type": "tuning", "mtu": 1400})
    lose(node)
    assert SECOND in elements(node, "pods4")
    assert len(noted(node)) == 4, "firewall, spoof check, stash and the note of it"
    found = repair(node, {"stale-element", "stale-spoof-check", "stale-note"})
    assert {each["network"] for each in found} == {"pods"}
    assert SECOND not in elements(node, "pods4")
    assert "10.59.0.2" in elements(node, "pods4")
    assert "-c2-" not in spoof_chains(node)
    assert noted(node) == []


def test_what_nobody_noted(node: Node) -> None:
    """As the reference, which keeps no notes, or after somebody cleared /run."""
    attach(node, FILTERED, {"type": "firewall", "backend": "nftables"})
    lose(node)
    for path in noted(node):
        os.unlink(path)
    repair(node, {"stale-element", "stale-spoof-check"})
    assert SECOND not in elements(node, "pods4")
    assert "-c2-" not in spoof_chains(node)
    assert spoof_chains(node).count("chain cni-br-iface-c1-eth0") == 2


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_rules_that_let_an_address_through_that_nobody_has(node: Node, variant: str) -> None:
    choose_iptables(node, variant)
    attach(node, {**BRIDGE, "ipMasq": False}, {"type": "firewall", "backend": "iptables"})
    kept = [line for line in iptables(node, "CNI-FORWARD") if SECOND not in line]
    lose(node)
    for path in noted(node):
        os.unlink(path)
    found = repair(node, {"stale-iptables-rule"})
    assert len(found) == 2
    assert all(f"lets {SECOND} through" in each["text"] for each in found)
    assert iptables(node, "CNI-FORWARD") == kept
    # Of a network that is not configured here, somebody else may know.
    node.run(["iptables", "-A", "CNI-FORWARD", "-s", "10.99.0.9/32", "-j", "ACCEPT"])
    (other,) = doctor(node)
    assert (other["network"], other["safe"]) == ("", False)
    assert other["repair"] == ["iptables -t filter -D CNI-FORWARD -s 10.99.0.9/32 -j ACCEPT"]


def test_a_limit(node: Node) -> None:
    attach(node, {**BRIDGE, "ipMasq": False}, {"type": "bandwidth", **LIMITS})
    lose(node)

    def limits() -> set[str]:
        return {name for name in node.links() if name.startswith("bwp")}

    before = limits()
    (found,) = repair(node, {"stale-link"})
    (gone,) = before - limits()
    assert (found["repair"], len(before)) == ([f"ip link delete {gone}"], 2)
    assert "a bandwidth limit of container c2" in found["text"]


def test_notes_that_the_list_has_no_plugin_for(node: Node) -> None:
    attach(node, {**BRIDGE, "ipMasq": False})
    path = "/run/cni/portmap/pods:gone:eth0"
    put(node, path)
    (found,) = doctor(node, "--fix")
    assert (found["check"], found["safe"], found["repair"]) == ("stale-note", False, [f"rm {path}"])


def test_stashes_that_no_note_tells_of(node: Node) -> None:
    attach(node, {**BRIDGE, "ipMasq": False}, {"type": "tuning", "mtu": 1400})
    os.unlink(node.path("/run/cni/tuning-stashes/pods:c1:eth0"))
    path = "/run/cni/tuning/gone_eth0.json"
    put(node, path, "{}")
    put(node, "/run/cni/tuning/young_eth0.json", "{}", age=0)
    (found,) = doctor(node, "--fix")
    assert (found["check"], found["safe"], found["repair"]) == ("stale-stash", False, [f"rm {path}"])


def test_leases(node: Node) -> None:
    lan(node)
    write_list(node, {"type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp"}})
    with dnsmasq(node), daemon(node):
        for name in ("c1", "c2"):
            node.netns(name)
            assert cnictl(node, "add", "pods", f"/run/netns/{name}", "--container-id", name)[0] == 0
        age_notes(node)
        assert doctor(node) == []
        lose(node)
        assert len(leased(node)) == 2
        (found,) = repair(node, {"stale-lease"})
        assert found["repair"] == ["cnictl del pods /gone --container-id c2 --ifname eth0"]
        until(lambda: not os.path.exists(node.path(f"{FOLDER}/{name_of('c2', 'pods', 'eth0')}")))


def test_leases_without_a_daemon(node: Node) -> None:
    write_list(node, {"type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp"}})
    record = {"container_id": "gone", "network": "pods", "ifname": "eth0", "netns": "/run/netns/gone"}
    put(node, f"{FOLDER}/{name_of('gone', 'pods', 'eth0')}", json.dumps(record))
    found = doctor(node, "--fix")
    assert {(each["check"], each["safe"]) for each in found} == {("stale-lease", False), ("status", False)}
    assert all("systemctl enable --now cni-dhcp.socket" in each["advice"] for each in found)
