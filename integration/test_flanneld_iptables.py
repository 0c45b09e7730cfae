"""iptables' two kernel interfaces: flanneld's rules are where the node's others are, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import pytest

from flanneld.lease import Lease, LeaseAttrs
from flanneld.metrics import Metrics
from flanneld.netconf import NetworkConfig
from flanneld.options import Options
from flanneld.traffic import Traffic
from integration.node import Node
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

NFT, LEGACY = "nft", "legacy"
OTHER = {NFT: LEGACY, LEGACY: NFT}
KINDS = pytest.mark.parametrize("kind", [NFT, LEGACY])
NETWORKS = '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/48", %s}'
LEASE = Lease(IPv4Network("10.244.7.0/24"), IPv6Network("fd00:244:0:7::/64"), LeaseAttrs(None, None, ""))


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as made:
        yield made


def start(node: Node, *, nftables: bool = False, repair: str = "") -> Metrics:
    """Write the rules as a daemon that starts does; look at them again if something is to be repaired.

    Args:
        node: the machine.
        nftables: EnableNFTables.
        repair: the side whose rules are removed while the daemon runs.
    """
    metrics = Metrics()
    config = NetworkConfig.parse(NETWORKS % f'"EnableNFTables": {"true" if nftables else "false"}')
    traffic = Traffic(config, Options(ip_masq=True, iptables_resync=1), metrics)

    async def scenario() -> None:
        await traffic.want(LEASE)
        if not repair:
            return
        running = asyncio.create_task(traffic.run())
        await asyncio.sleep(0.1)
        node.run([f"iptables-{repair}", "-t", "nat", "-F", "FLANNEL-POSTRTG"])
        try:
            async with asyncio.timeout(PATIENCE):
                while not metrics.repairs:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()

    with node.entered():
        asyncio.run(scenario())
    assert not metrics.errors
    return metrics


def ours(node: Node, kind: str) -> dict[str, int]:
    """Count our rules of both families in one of iptables' sides."""
    found = {}
    for name in ("iptables", "ip6tables"):
        saved = node.run([f"{name}-{kind}-save"]).stdout.decode()
        found[name] = sum(line.startswith("-A") and "FLANNEL-" in line for line in saved.splitlines())
        assert found[name] or "FLANNEL" not in saved
    return found


ALL, NONE = {"iptables": 10, "ip6tables": 10}, {"iptables": 0, "ip6tables": 0}


def kubelet(node: Node, kind: str, *, chain: str = "KUBE-KUBELET-CANARY", program: str = "iptables") -> None:
    node.run([f"{program}-{kind}", "-t", "mangle", "-N", chain])


def rules(node: Node, kind: str, number: int) -> None:
    for port in range(number):
        node.run(
            [f"iptables-{kind}", "-A", "INPUT", "-p", "tcp", "--dport", str(1000 + port), "-j", "ACCEPT"]
        )


def own(node: Node, kind: str) -> None:
    """Choose what `iptables` alone is, as update-alternatives(1) does."""
    for name in ("iptables", "ip6tables"):
        for action in ("", "-restore", "-save"):
            node.run(["ln", "-sfn", f"/usr/sbin/{name}-{kind}{action}", f"/etc/alternatives/{name}{action}"])


def legacy_tables(node: Node) -> str:
    names = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
    return node.run(["cat", *names], check=False).stdout.decode()


@KINDS
def test_kubelets_chain_decides_against_more_rules(
    node: Node, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    kubelet(node, kind, chain="KUBE-IPTABLES-HINT", program="ip6tables")
    rules(node, OTHER[kind], 3)
    with caplog.at_level(logging.INFO):
        metrics = start(node, repair=kind)
    assert ours(node, kind) == ALL
    assert ours(node, OTHER[kind]) == NONE
    assert "flannel" not in node.ruleset().replace("flanneld", "")
    assert metrics.repairs == {"rules": 1}
    (line,) = [record for record in caplog.records if record.getMessage() == "iptables' rules are written"]
    assert vars(line)["kind"] == kind
    assert vars(line)["why"] == "kubelet's chain KUBE-IPTABLES-HINT is there"


@KINDS
def test_more_rules_decide_without_kubelet_and_ours_do_not_count(node: Node, kind: str) -> None:
    kubelet(node, OTHER[kind])
    start(node)
    assert ours(node, OTHER[kind]) == ALL
    node.run([f"iptables-{OTHER[kind]}", "-t", "mangle", "-X", "KUBE-KUBELET-CANARY"])
    rules(node, kind, 3)
    rules(node, OTHER[kind], 2)
    start(node)
    assert ours(node, kind) == ALL
    assert ours(node, OTHER[kind]) == NONE


@KINDS
def test_without_evidence_it_is_the_machines_own(node: Node, kind: str) -> None:
    own(node, kind)
    start(node)
    assert ours(node, kind) == ALL
    assert ours(node, OTHER[kind]) == NONE


@KINDS
def test_the_older_interface_is_not_loaded_by_looking(node: Node, kind: str) -> None:
    if kind == NFT:
        start(node)
    own(node, kind)
    start(node, nftables=True)
    assert legacy_tables(node) == ""
    assert ours(node, NFT) == NONE
    assert "flannel-ipv6" in node.ruleset()


@KINDS
def test_the_other_backends_rules_go_from_both_sides(node: Node, kind: str) -> None:
    kubelet(node, kind)
    start(node)
    assert ours(node, kind) == ALL
    start(node, nftables=True)
    assert ours(node, kind) == NONE
    assert "flannel-ipv4" in node.ruleset()
    start(node)
    assert ours(node, kind) == ALL
    assert "flannel-ipv4" not in node.ruleset()


@KINDS
def test_one_that_is_not_installed_is_no_choice(node: Node, kind: str) -> None:
    """As on a distribution that has left the older kind out: what iptables is there is used."""
    kubelet(node, OTHER[kind])
    rules(node, OTHER[kind], 3)
    own(node, kind)
    multi = f"/usr/sbin/xtables-{OTHER[kind]}-multi"
    node.run(["mount", "--bind", "/dev/null", multi])
    try:
        start(node)
    finally:
        node.run(["umount", multi])
    assert ours(node, kind) == ALL
    assert ours(node, OTHER[kind]) == NONE
