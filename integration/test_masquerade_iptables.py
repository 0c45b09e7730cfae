"""Masquerade by iptables, of both kinds: the reference's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.address import Prefix
from cni_plugins.attach import masquerade
from cni_plugins.rules.masquerade import iptables_chain
from cni_plugins.spec.errors import CheckFailedError
from integration.masquerades import ADDRESSES, add, remove, request

if TYPE_CHECKING:
    from integration.node import Node


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.kernel("ip_tables"))])
def iptables_node(node: Node, request: pytest.FixtureRequest) -> Node:
    """A machine whose iptables is the one over nf_tables, or the older one."""
    if request.param == "legacy":
        node.run(["mount", "--bind", "/usr/sbin/xtables-legacy-multi", "/usr/sbin/xtables-nft-multi"])
    return node


def iptables(node: Node, program: str = "iptables") -> list[str]:
    return node.run([program, "-t", "nat", "-S"]).stdout.decode().splitlines()


def test_iptables_rules_are_the_references(iptables_node: Node) -> None:
    second = Prefix.parse("10.78.0.5/24")
    add(iptables_node, ADDRESSES[0], second, ADDRESSES[1], backend="iptables")
    said = '-m comment --comment "name: \\"net\\" id: \\"c1\\""'
    chain = iptables_chain("net", "c1")
    assert iptables(iptables_node)[-5:] == [
        f"-A POSTROUTING -s 10.77.0.5/32 {said} -j {chain}",
        f"-A POSTROUTING -s 10.78.0.5/32 {said} -j {chain}",
        f"-A {chain} -d 10.77.0.0/24 {said} -j ACCEPT",
        f"-A {chain} -d 10.78.0.0/24 {said} -j ACCEPT",
        f"-A {chain} ! -d 224.0.0.0/4 {said} -j MASQUERADE",
    ]
    assert iptables(iptables_node, "ip6tables")[-3:] == [
        f"-A POSTROUTING -s fd77::5/128 {said} -j {chain}",
        f"-A {chain} -d fd77::/64 {said} -j ACCEPT",
        f"-A {chain} ! -d ff00::/8 {said} -j MASQUERADE",
    ]
    with iptables_node.entered():
        masquerade.check(request("CHECK"), [*ADDRESSES, second], "iptables")
    iptables_node.run(["iptables", "-t", "nat", "-D", chain, "3"])
    with iptables_node.entered(), pytest.raises(CheckFailedError, match="MASQUERADE"):
        masquerade.check(request("CHECK"), [*ADDRESSES, second], "iptables")
    remove(iptables_node)
    assert not any("CNI-" in line for line in iptables(iptables_node) + iptables(iptables_node, "ip6tables"))
    remove(iptables_node)


def test_iptables_serves_a_containers_second_interface_and_a_repetition(iptables_node: Node) -> None:
    second = Prefix.parse("10.78.0.5/24")
    for _time in range(2):
        add(iptables_node, ADDRESSES[0], backend="iptables")
        add(iptables_node, second, ifname="eth1", backend="iptables")
    targets = [line.rpartition(" ")[2] for line in iptables(iptables_node) if line.startswith("-A CNI-")]
    assert targets == ["ACCEPT", "ACCEPT", "MASQUERADE"]
    with iptables_node.entered():
        masquerade.check(request("CHECK"), [ADDRESSES[0], second], "iptables")


def test_gc_of_iptables_spares_the_valid_and_other_networks(iptables_node: Node) -> None:
    for container in ("c1", "c2"):
        add(iptables_node, ADDRESSES[0], backend="iptables", container=container)
    add(iptables_node, ADDRESSES[0], backend="iptables", network="other")
    with iptables_node.entered():
        masquerade.gc(request("GC"), {("c2", "eth0")}, configured=True)
    left = [line for line in iptables(iptables_node) if line.startswith("-A POSTROUTING")]
    assert [(("c2" in line), ("other" in line)) for line in left] == [(True, False), (False, True)]
    assert sum(line.startswith("-N CNI-") for line in iptables(iptables_node)) == 2


@pytest.mark.peer
def test_what_the_go_bridge_made_is_removed(peer_node: Node) -> None:
    peer_node.netns("c1")
    conf: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "net",
        "bridge": "br0",
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"},
    }
    peer_node.add("bridge", conf, netns="c1")
    assert any("CNI-" in line for line in iptables(peer_node))
    remove(peer_node)
    assert not any("CNI-" in line for line in iptables(peer_node))
