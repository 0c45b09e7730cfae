"""The ptp plugin with a link-local gateway: every pod's only next hop is its own link."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    OUTSIDE4,
    OUTSIDE6,
    UPLINK4,
    UPLINK6,
    V4,
    V6,
    address_of,
    addresses,
    check,
    host_end,
    ipam,
    leftovers,
    outside,
    ping,
    pods,
    ptp,
    refusal,
    routes,
    source_seen,
    static,
)

if TYPE_CHECKING:
    from integration.node import Node

HOP4, HOP6 = "169.254.1.1", "fe80::1"


def routed(**keys: Any) -> dict[str, Any]:
    return ptp(**{"gatewayAddress": HOP4, "proxyARP": True, "ipam": ipam(V4, V6), **keys})


def host_routes(node: Node, family: str) -> set[tuple[str, str]]:
    listed = json.loads(node.run(["ip", family, "-json", "route"]).stdout)
    return {(each["dst"], each["dev"]) for each in listed if "77" in each["dst"]}


@pytest.mark.parametrize("given", [HOP4, HOP6])
def test_pods_of_both_families_talk_and_leave_nothing(node: Node, given: str) -> None:
    outside(node)
    conf = routed(gatewayAddress=given)
    results = pods(node, conf, "c1", "c2", plugin="ptp")
    assert results[0]["ips"] == [
        {"interface": 1, "address": "10.77.0.2/24", "gateway": HOP4},
        {"interface": 1, "address": "fd00:77::2/64", "gateway": HOP6},
    ]
    assert results[0]["routes"] == [{"dst": "0.0.0.0/0", "gw": HOP4}, {"dst": "::/0", "gw": HOP6}]
    for number in (0, 1):
        one, two = (address_of(result, number) for result in results)
        assert source_seen(node, "c1", "c2", two) == one
        assert source_seen(node, "c2", "c1", one) == two
        # The next hop is no source: the host is seen by its own address.
        assert source_seen(node, "", "c2", two) == (UPLINK4, UPLINK6)[number]
        assert all(ping(node, each, (HOP4, f"{HOP6}%eth0")[number]) for each in ("c1", "c2"))
    assert not check(node, "ptp", conf, results[0])
    for container in ("c1", "c2"):
        node.delete("ptp", conf, container=container, netns=container)
    assert leftovers(node, "c1", "c2") == []
    assert host_routes(node, "-4") | host_routes(node, "-6") == set()


def test_the_only_next_hop_is_the_pods_own_link(node: Node) -> None:
    results = pods(node, routed(), "c1", "c2", plugin="ptp")
    assert routes(node, "c1") == routes(node, "c2") == {(HOP4, ""), ("default", HOP4)}
    assert {pair for pair in routes(node, "c1", 6) if pair[0] != HOP6} == {("default", HOP6)}
    ends = [host_end(result) for result in results]
    assert host_routes(node, "-4") == {("10.77.0.2", ends[0]), ("10.77.0.3", ends[1])}
    assert host_routes(node, "-6") == {("fd00:77::2", ends[0]), ("fd00:77::3", ends[1])}
    links = node.links()
    assert [addresses(links[end]) for end in ends] == [set(), set()]  # none of global scope
    assert not [link for link in links.values() if link.get("linkinfo", {}).get("info_kind") == "bridge"]


def test_other_link_local_addresses(node: Node) -> None:
    for number, (given, hops) in enumerate(
        (("169.254.7.7", ("169.254.7.7", HOP6)), ("fe80::7:7", (HOP4, "fe80::7:7")))
    ):
        conf = routed(gatewayAddress=given)
        (result,) = pods(node, conf, f"c{number}", plugin="ptp")
        assert tuple(ip["gateway"] for ip in result["ips"]) == hops
        assert ping(node, f"c{number}", hops[0])
        assert ping(node, f"c{number}", f"{hops[1]}%eth0")


@pytest.mark.parametrize("given", ["10.77.0.1", "fd00:77::1", "nowhere", "169.254.1.1/32", "169.253.1.1"])
@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_any_other_address_is_refused(node: Node, verb: str, given: str) -> None:
    node.netns("c1")
    answer = refusal(node, verb, "ptp", routed(gatewayAddress=given), netns="c1")
    assert (answer["code"], answer["msg"].startswith("gatewayAddress: ")) == (7, True)
    assert given in answer["msg"]
    assert leftovers(node, "c1") == []


@pytest.mark.parametrize("subnet", [V4, V6])
def test_one_family_has_one_next_hop(node: Node, subnet: str) -> None:
    conf = routed(ipam=ipam(subnet))
    results = pods(node, conf, "c1", "c2", plugin="ptp")
    assert len(results[0]["routes"]) == 1
    assert ping(node, "c1", address_of(results[1]))
    assert not check(node, "ptp", conf, results[0])


def test_an_address_needs_no_gateway_of_its_own(node: Node) -> None:
    given = {"type": "static", "addresses": [{"address": "10.77.0.5/32"}, {"address": "fd00:77::5/128"}]}
    conf = routed(ipam=given)
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert ping(node, "c1", f"{HOP6}%eth0")
    assert ping(node, "c1", HOP4)
    assert not check(node, "ptp", conf, result)
    node.delete("ptp", conf, netns="c1")
    assert leftovers(node, "c1") == []


def test_routes_of_ipam_go_to_the_next_hop(node: Node) -> None:
    """A default route of IPAM's is the default route."""
    given = [{"dst": "0.0.0.0/0", "mtu": 1300}, {"dst": "10.80.0.0/16"}, {"dst": "fd00:80::/64"}]
    conf = routed(ipam=ipam(V4, V6, routes=given))
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert result["routes"] == [*given, {"dst": "::/0", "gw": HOP6}]
    assert routes(node, "c1") == {(HOP4, ""), ("default", HOP4), ("10.80.0.0/16", HOP4)}
    assert {("default", HOP6), ("fd00:80::/64", HOP6)} <= routes(node, "c1", 6)
    assert "default via 169.254.1.1 dev eth0 mtu 1300" in node.exec("c1", "ip", "route")
    assert not check(node, "ptp", conf, result)


def test_masquerade_spares_the_network(node: Node) -> None:
    outside(node)
    results = pods(node, routed(ipMasq=True), "c1", "c2", plugin="ptp")
    for number, (uplink, target) in enumerate(((UPLINK4, OUTSIDE4), (UPLINK6, OUTSIDE6))):
        assert source_seen(node, "c1", "outside", target) == uplink
        one, two = (address_of(result, number) for result in results)
        assert source_seen(node, "c1", "c2", two) == one


@pytest.mark.parametrize("proxy", [True, False])
@pytest.mark.parametrize("mode", [{"gatewayAddress": HOP4}, {}])
def test_proxy_arp(node: Node, mode: dict[str, str], proxy: bool) -> None:
    """Who takes the outside to be on the link is answered by the host, at once."""
    outside(node)
    conf = ptp(
        **mode, proxyARP=proxy, ipMasq=True, ipam=ipam(V4, routes=[{"dst": "192.0.2.0/24", "scope": 253}])
    )
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert ping(node, "c1", OUTSIDE4, wait=0.7) is proxy
    assert not check(node, "ptp", conf, result)
    if proxy:
        node.run(["sysctl", "-q", f"net.ipv4.conf.{host_end(result)}.proxy_arp=0"])
        assert "proxy ARP is off" in check(node, "ptp", conf, result)


BREAK = {
    "next hop": ("", f"ip address delete {HOP4}/32 dev VETH", f"gateway address {HOP4} is missing"),
    "next hop v6": ("", f"ip address delete {HOP6}/128 dev VETH", f"gateway address {HOP6} is missing"),
    "way to it": ("c1", f"ip route delete {HOP4}", f"route {HOP4}/32 is missing"),
    "way to it v6": ("c1", f"ip -6 route delete {HOP6}", f"route {HOP6}/128 is missing"),
    "default": ("c1", "ip route delete default", f"route 0.0.0.0/0 via {HOP4} is missing"),
    "default v6": ("c1", "ip -6 route delete default", f"route ::/0 via {HOP6} is missing"),
    "host route": ("", "ip route delete 10.77.0.2", "route 10.77.0.2/32 is missing"),
    "host route v6": ("", "ip -6 route delete fd00:77::2", "route fd00:77::2/128 is missing"),
}


@pytest.mark.parametrize("name", BREAK)
def test_check_finds_what_is_broken(node: Node, name: str) -> None:
    where, command, words = BREAK[name]
    result = pods(node, routed(), "c1", plugin="ptp")[0]
    assert not check(node, "ptp", routed(), result)
    node.run(command.replace("VETH", host_end(result)).split(), netns=where)
    assert words in check(node, "ptp", routed(), result)


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_older_versions(node: Node, version: str) -> None:
    conf = routed(cniVersion=version)
    result = pods(node, conf, "c1", plugin="ptp")[0]
    if version == "0.2.0":
        assert result["ip4"]["gateway"] == HOP4
        assert result["ip6"]["routes"] == [{"dst": "::/0", "gw": HOP6}]
    elif version != "0.3.1":
        assert not check(node, "ptp", conf, result)
    node.delete("ptp", conf, netns="c1")
    assert leftovers(node, "c1") == []


def test_static_addresses_asked_for_at_run_time(node: Node) -> None:
    conf = routed(ipam=static(), runtimeConfig={"ips": ["10.77.0.9/24", "fd00:77::9/64"]})
    result = pods(node, conf, "c1", plugin="ptp", args="IP=10.77.0.8/24;GATEWAY=10.77.0.1;IgnoreUnknown=1")[0]
    assert addresses(node.links("c1")["eth0"]) == {"10.77.0.9/24", "fd00:77::9/64"}
    assert not check(node, "ptp", conf, result)
