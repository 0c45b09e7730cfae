"""Binaries are swapped under running pods of ptp and static networks: the Go plugins' work and ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    GW4,
    GW6,
    V4,
    V6,
    address_of,
    addresses,
    folder_of_both,
    host_end,
    ipam,
    ping,
    pods,
    ptp,
    reservations,
    routes,
    source_seen,
    static,
)
from integration.node import PEER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.node import Node

pytestmark = pytest.mark.peer

OURS, THEIRS = "ours", "theirs"
SWAPS = pytest.mark.parametrize(("adder", "deleter"), [(THEIRS, OURS), (OURS, THEIRS)])
BY_IPTABLES = {"ipMasq": True, "ipMasqBackend": "iptables"}
DUAL_STATIC = static("10.77.0.5/24", routes=[{"dst": "0.0.0.0/0"}], dns={"nameservers": ["192.0.2.53"]})
DUAL_STATIC["addresses"].append({"address": "fd00:77::5/64", "gateway": GW6})
NETWORKS: dict[str, dict[str, Any]] = {
    "dual-stack": {},
    "IPv4": {"ipam": ipam(V4)},
    "IPv6": {"ipam": ipam(V6)},
    "mtu": {"mtu": 1400},
    "ipMasq": BY_IPTABLES,
    "static": {"ipam": DUAL_STATIC},
}


def folder(node: Node, side: str) -> str:
    return node.plugins if side == OURS else PEER


def verify(node: Node, side: str, conf: Mapping[str, Any], result: Any, container: str = "c1") -> None:
    given = {**conf, "prevResult": result}
    how = {"container": container, "netns": container, "plugins": folder(node, side)}
    assert node.cni("CHECK", "ptp", given, **how) == (0, None)


def rules(node: Node) -> str:
    """Return what is of a pod in the tables."""
    lines = node.ruleset().splitlines()
    return "\n".join(line for line in lines if "10.77" in line or "fd00:77" in line)


@SWAPS
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_what_one_made_the_other_checks_and_deletes(
    node: Node, version: str, name: str, adder: str, deleter: str
) -> None:
    conf = ptp(cniVersion=version, **NETWORKS[name])
    result = pods(node, conf, "c1", plugin="ptp", plugins=folder(node, adder))[0]
    if version in ("0.4.0", "1.0.0"):
        for side in (OURS, THEIRS):
            verify(node, side, conf, result)
    for _time in range(2):
        node.delete("ptp", {**conf, "prevResult": result}, netns="c1", plugins=folder(node, deleter))
    assert set(node.links()) == {"lo"}
    assert set(node.links("c1")) == {"lo"}
    assert reservations(node) == set()
    assert rules(node) == ""


def test_ours_find_the_masquerade_that_theirs_chose(node: Node) -> None:
    conf = ptp(cniVersion="1.0.0", ipMasq=True)
    pods(node, conf, "c1", plugin="ptp", plugins=PEER)
    assert "10.77.0.2" in rules(node)
    node.delete("ptp", conf, netns="c1")
    assert rules(node) == ""


@pytest.mark.parametrize("name", NETWORKS)
def test_both_give_the_same_state(node: Node, name: str) -> None:
    conf = ptp(cniVersion="1.0.0", **NETWORKS[name])
    seen = []
    for side in (OURS, THEIRS):
        result = pods(node, conf, side, plugin="ptp", plugins=folder(node, side))[0]
        port, inside = node.links()[host_end(result)], node.links(side)["eth0"]
        own = [address_of(result, number) for number in range(len(result["ips"]))]
        text = json.dumps(
            [
                {"dns": {}, **{key: value for key, value in result.items() if key != "interfaces"}},
                [sorted(each) for each in result["interfaces"]],
                [sorted(addresses(link)) for link in (port, inside)],
                [(link["mtu"], "UP" in link["flags"]) for link in (port, inside)],
                [sorted(routes(node, side, family)) for family in (4, 6)],
            ]
        )
        for number, address in enumerate(own):
            text = text.replace(f'"{address}', f'"address {number}')
        seen.append(text)
        node.delete("ptp", conf, container=side, netns=side, plugins=folder(node, side))
    assert seen[0] == seen[1]


@SWAPS
def test_one_pod_of_each_side_on_one_network(node: Node, adder: str, deleter: str) -> None:
    conf = ptp(cniVersion="1.0.0", **BY_IPTABLES)
    first = pods(node, conf, "c1", plugin="ptp", plugins=folder(node, adder))[0]
    second = pods(node, conf, "c2", plugin="ptp", plugins=folder(node, deleter))[0]
    assert [address_of(each) for each in (first, second)] == ["10.77.0.2", "10.77.0.3"]
    # Theirs make the kernel look for duplicates of the link's own IPv6 address, which takes up to 2 s.
    patiently = ("-c20", "-i0.2")
    for number, gateway in enumerate((GW4, GW6)):
        assert ping(node, "c1", gateway, *patiently)
        assert ping(node, "c2", gateway, *patiently)
        assert source_seen(node, "c1", "c2", address_of(second, number)) == address_of(first, number)
    node.delete("ptp", conf, netns="c1", plugins=folder(node, deleter))
    for side in (OURS, THEIRS):
        verify(node, side, conf, second, "c2")
    node.delete("ptp", conf, container="c2", netns="c2", plugins=folder(node, adder))
    assert reservations(node) == set()
    assert rules(node) == ""


@pytest.mark.parametrize(("ours", "theirs"), [("ptp", "static"), ("static", "ptp")])
def test_a_folder_of_both(node: Node, ours: str, theirs: str) -> None:
    """A delegate is a program like any other, whoever wrote it."""
    both = folder_of_both(node, ours, theirs)
    conf = ptp(cniVersion="1.0.0", ipam=DUAL_STATIC)
    result = pods(node, conf, "c1", plugin="ptp", plugins=both, args="IP=10.77.1.5/24;GATEWAY=10.77.1.1")[0]
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.5/24", "fd00:77::5/64", "10.77.1.5/24"]
    assert ping(node, "c1", "10.77.1.1")
    given = {**conf, "prevResult": result}
    assert node.cni("CHECK", "ptp", given, netns="c1", plugins=both) == (0, None)
    node.delete("ptp", conf, netns="c1", plugins=both)
    assert set(node.links("c1")) == {"lo"}


@SWAPS
def test_static(node: Node, adder: str, deleter: str) -> None:
    conf = ptp(cniVersion="1.0.0", ipam=DUAL_STATIC)
    how = {"netns": "/none", "args": "IP=10.77.1.5/24;GATEWAY=10.77.1.1"}
    results = [node.add("static", conf, plugins=folder(node, side), **how) for side in (adder, deleter)]
    assert results[0] == results[1]
    given = {**conf, "prevResult": results[0]}
    assert node.cni("CHECK", "static", given, plugins=folder(node, deleter), **how) == (0, None)
    node.delete("static", given, plugins=folder(node, deleter), **how)
