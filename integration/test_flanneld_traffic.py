"""Masquerade and forward rules: as the reference's, put back, and removed where they are old."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from flanneld import traffic as traffic_module
from flanneld.lease import Lease, LeaseAttrs
from flanneld.metrics import Metrics
from flanneld.netconf import NetworkConfig
from flanneld.notices import Filters
from flanneld.options import Options
from flanneld.traffic import Traffic
from integration.fleet import NETWORK, VXLAN, Fleet, Member, wait
from integration.node import Node
from integration.pings import Pings
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = {4: NETWORK, 6: "fd00:244::/48"}


@pytest.fixture(params=["nftables", "iptables"], scope="module")
def fleet(request: pytest.FixtureRequest, suite_bin: str) -> Iterator[Fleet]:
    """Two machines with a pod each."""
    networks = {"EnableIPv6": True, "IPv6Network": NETWORKS[6]}
    config = {**VXLAN, **networks, "EnableNFTables": request.param == "nftables"}
    with Fleet(suite_bin, config, ["--ip-masq", "--iptables-resync=20"]) as made:
        made.populate((1, 11), (2, 21))
        yield made


def subnet(member: Member) -> str:
    return member.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")


def rules(member: Member, fleet: Fleet) -> str:
    if 'EnableNFTables": true' in fleet.etcd.get("/coreos.com/network/config").popitem()[1]:
        return member.node.run(["nft", "list", "table", "ip", "flannel-ipv4"], check=False).stdout.decode()
    saved = member.node.run(["iptables-save"]).stdout.decode()
    return "".join(line + "\n" for line in saved.splitlines() if "FLANNEL" in line and line[0] == "-")


def expected(member: Member, fleet: Fleet) -> str:
    own = subnet(member)
    if "table" in rules(member, fleet):
        return f"""\
table ip flannel-ipv4 {{
	chain forward {{
		comment "chain to accept flannel traffic"
		type filter hook forward priority filter; policy accept;
		ip saddr {NETWORK} accept
		ip daddr {NETWORK} accept
	}}

	chain postrtg {{
		comment "chain to manage traffic masquerading by flannel"
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr {own} ip daddr {NETWORK} return
		ip saddr {NETWORK} ip daddr {own} return
		ip saddr != {NETWORK} ip daddr {own} return
		ip saddr {NETWORK} ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != {NETWORK} ip daddr {NETWORK} masquerade fully-random
	}}
}}
"""
    masq, forward = '-m comment --comment "flanneld masq"', '-m comment --comment "flanneld forward"'
    lines = (
        f"-A FORWARD {forward} -j FLANNEL-FWD",
        f"-A FLANNEL-FWD -s {NETWORK} {forward} -j ACCEPT",
        f"-A FLANNEL-FWD -d {NETWORK} {forward} -j ACCEPT",
        f"-A POSTROUTING {masq} -j FLANNEL-POSTRTG",
        f"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN",
        f"-A FLANNEL-POSTRTG -s {own} -d {NETWORK} {masq} -j RETURN",
        f"-A FLANNEL-POSTRTG -s {NETWORK} -d {own} {masq} -j RETURN",
        f"-A FLANNEL-POSTRTG ! -s {NETWORK} -d {own} {masq} -j RETURN",
        f"-A FLANNEL-POSTRTG -s {NETWORK} ! -d 224.0.0.0/4 {masq} -j MASQUERADE --random-fully",
        f"-A FLANNEL-POSTRTG ! -s {NETWORK} -d {NETWORK} {masq} -j MASQUERADE --random-fully",
    )
    return "".join(line + "\n" for line in lines)


def test_the_rules_are_the_references(fleet: Fleet) -> None:
    member = fleet.members["node-11"]
    found, wanted = rules(member, fleet), expected(member, fleet)
    assert sorted(found.splitlines()) == sorted(wanted.splitlines())
    chain = [line for line in found.splitlines() if "POSTRTG -" in line or "ip saddr" in line]
    assert chain == [line for line in wanted.splitlines() if "POSTRTG -" in line or "ip saddr" in line]


BREAKS = {
    "nftables": {
        "table": "nft delete table {kind} {table}",
        "masquerade": "nft flush chain {kind} {table} postrtg;"
        " nft add rule {kind} {table} postrtg {kind} saddr {network} return",
        "forward": "nft flush chain {kind} {table} forward; nft add rule {kind} {table} forward drop",
    },
    "iptables": {
        "chain": "{tool} -t nat -F FLANNEL-POSTRTG",
        "jump": "{tool} -D FORWARD 1",
        "masquerade": "{tool} -t nat -R FLANNEL-POSTRTG 5 -s {network} -j RETURN",
        "forward": "{tool} -R FLANNEL-FWD 1 -j DROP",
    },
}


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_what_somebody_removes_or_replaces_comes_back(
    fleet: Fleet, family: int, record_property: Any
) -> None:
    member, pods = fleet.members["node-11"], fleet.members["node-21"]
    infos = pods.node.links("node-21")["eth0"]["addr_info"]
    inet = "inet" if family == 4 else "inet6"
    (remote,) = [info["local"] for info in infos if info["family"] == inet and info["scope"] == "global"]
    kind, table, tool = (
        ("ip", "flannel-ipv4", "iptables") if family == 4 else ("ip6", "flannel-ipv6", "ip6tables")
    )
    backend = "nftables" if "table" in rules(member, fleet) else "iptables"
    show = ["nft", "list", "table", kind, table] if backend == "nftables" else [f"{tool}-save"]

    def shown() -> str:
        said = member.node.run(show, check=False).stdout.decode()
        return "".join(line for line in said.splitlines(keepends=True) if line[0] not in "#:")

    wanted = shown()
    with Pings(member.node, remote, "node-11") as pings:
        for name, command in BREAKS[backend].items():
            words = {"kind": kind, "table": table, "tool": tool, "network": NETWORKS[family]}
            began = time.time()
            member.node.run(["sh", "-ec", command.format(**words)])
            took = wait(lambda: shown() == wanted)
            failed = pings.failed_since(began)
            record_property(
                f"{backend} {name}, IPv{family}", f"back after {took:.2f} s, pings failed for {failed:.2f} s"
            )
    assert 'flanneld_repairs_total{kind="rules"} ' in member.get("/metrics")


def test_a_full_pass_needs_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the older kernel side of iptables gives none."""

    async def silence(_changes: Filters) -> None:
        await asyncio.Event().wait()

    async def scenario(node: Node) -> None:
        metrics = Metrics()
        config = NetworkConfig.parse(f'{{"Network": "{NETWORK}", "EnableNFTables": true}}')
        traffic = Traffic(config, Options(), metrics)
        await traffic.want(Lease(IPv4Network("10.244.7.0/24"), None, LeaseAttrs(None, None, "")))
        node.run(["nft", "delete", "table", "ip", "flannel-ipv4"])
        running = asyncio.create_task(traffic.run())
        try:
            async with asyncio.timeout(PATIENCE):
                while "flannel-ipv4" not in node.ruleset():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
        assert metrics.repairs == {"rules": 1}

    assert traffic_module._PERIOD == 30
    monkeypatch.setattr(traffic_module, "_PERIOD", 0.5)
    monkeypatch.setattr(Filters, "next", silence)
    with Node() as node, node.entered():
        asyncio.run(scenario(node))


def test_the_other_backends_rules_go_when_it_is_switched(fleet: Fleet) -> None:
    member = fleet.members["node-11"]
    before = rules(member, fleet)
    (key, text), *_ = fleet.etcd.get("/coreos.com/network/config").items()
    to_nftables = '"EnableNFTables": false' in text
    other = text.replace("false", "true") if to_nftables else text.replace(": true}", ": false}")
    assert other != text
    fleet.etcd.put(key, other)
    member.stop()
    fleet.start(member)
    ruleset = member.node.ruleset()
    assert ("FLANNEL-POSTRTG" in ruleset) is not to_nftables
    assert ("flannel-ipv4" in ruleset) is to_nftables
    assert rules(member, fleet) != before


def test_a_removal_that_failed_is_tried_again() -> None:
    """Nothing is wanted any more, but somebody else's rule still leads to our chain."""
    jump = ["-m", "comment", "--comment", "flanneld masq", "-j", "FLANNEL-POSTRTG"]

    async def scenario(node: Node) -> None:
        metrics = Metrics()
        config = NetworkConfig.parse(f'{{"Network": "{NETWORK}", "EnableNFTables": true}}')
        traffic = Traffic(config, Options(iptables_forward_rules=False), metrics)
        await traffic.want(Lease(IPv4Network("10.244.7.0/24"), None, LeaseAttrs(None, None, "")))
        assert metrics.errors == {"traffic": 1}
        running = asyncio.create_task(traffic.run())
        await asyncio.sleep(0.1)
        node.run(["iptables", "-t", "nat", "-D", "OUTPUT", "-j", "FLANNEL-POSTRTG"])
        try:
            async with asyncio.timeout(PATIENCE):
                while "FLANNEL" in node.ruleset():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
        assert not metrics.repairs

    with Node() as node:
        for words in (
            ["-N", "FLANNEL-POSTRTG"],
            ["-A", "POSTROUTING", *jump],
            ["-A", "OUTPUT", "-j", "FLANNEL-POSTRTG"],
        ):
            node.run(["iptables", "-t", "nat", *words])
        with node.entered():
            asyncio.run(scenario(node))


def test_the_rules_of_a_network_before_go(fleet: Fleet) -> None:
    """Another Network in the configuration: one set of rules, of the new one."""
    member = fleet.members["node-11"]
    (key, text), *_ = fleet.etcd.get("/coreos.com/network/config").items()
    fleet.etcd.put(key, text.replace(NETWORK, "10.99.0.0/16"))
    member.stop()
    fleet.start(member)
    wait(lambda: "10.99.0.0/16" in member.node.ruleset())
    assert NETWORK not in rules(member, fleet)
    assert subnet(member).startswith("10.99.")


def test_both_families(suite_bin: str) -> None:
    """IPv6 has a table, or chains, of its own, with the same rules; ff00::/8 is its multicast."""
    networks = {"Network": NETWORK, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
    for by_nftables in (True, False):
        config = {**networks, "Backend": {"Type": "vxlan"}, "EnableNFTables": by_nftables}
        with Fleet(suite_bin, config, ["--ip-masq", "--ip-masq-fully-random-disable"]) as made:
            member = made.join(1, 11)
            made.start()
            if by_nftables:
                found = member.node.run(["nft", "list", "table", "ip6", "flannel-ipv6"]).stdout.decode()
                assert "ip6 saddr fd00:244::/48 ip6 daddr != ff00::/8 masquerade\n" in found
                assert "ip6 daddr fd00:244::/48 accept" in found
            else:
                found = member.node.run(["ip6tables-save"]).stdout.decode()
                assert "-A FLANNEL-FWD -s fd00:244::/48" in found
                assert "-s fd00:244::/48 ! -d ff00::/8" in found
            assert "masquerade" in member.node.ruleset().lower()
            assert "random" not in member.node.ruleset()
