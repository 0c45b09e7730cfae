"""The ptp plugin's main job: a routed veth pair of both families, checked and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.checks import (
    ALREADY_ATTACHED,
    DEFAULT,
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
    check,
    host_end,
    ipam,
    leftovers,
    outside,
    ping,
    pod_rules,
    pods,
    ptp,
    refusal,
    reservations,
    routes,
    source_seen,
    static,
)
from integration.specification import SHAPES

if TYPE_CHECKING:
    from integration.node import Node


def way_back(node: Node) -> None:
    """Let the host outside send to pods."""
    node.exec("outside", "ip", "route", "add", V4, "via", UPLINK4)
    node.exec("outside", "ip", "route", "add", V6, "via", UPLINK6)


def test_two_pods_of_both_families_talk_and_leave_nothing(node: Node) -> None:
    conf = ptp()
    results = pods(node, conf, "c1", "c2", plugin="ptp")
    for number in (0, 1):
        one, two = (address_of(result, number) for result in results)
        assert source_seen(node, "c1", "c2", two) == one
        assert source_seen(node, "c2", "c1", one) == two
        assert source_seen(node, "", "c2", two) == (GW4, GW6)[number]
        assert all(ping(node, each, (GW4, GW6)[number]) for each in ("c1", "c2"))
    assert not check(node, "ptp", conf, results[0])
    node.delete("ptp", conf, netns="c1")
    assert reservations(node) == {"10.77.0.3", "fd00:77::3"}
    assert not check(node, "ptp", conf, results[1], container="c2", netns="c2")
    node.delete("ptp", conf, container="c2", netns="c2")
    assert leftovers(node, "c1", "c2") == []
    for family in ("-4", "-6"):
        assert "77" not in node.run(["ip", family, "route", "show", "table", "all"]).stdout.decode()


def test_a_pod_is_reached_from_outside_at_once(node: Node) -> None:
    """Nobody waits for the new link's own addresses to be looked for twice."""
    outside(node)
    way_back(node)
    node.netns("c1")
    # As runtimes leave it in a namespace that is to have no IPv6 but what CNI brings.
    node.exec("c1", "sysctl", "-q", "net.ipv6.conf.default.disable_ipv6=1")
    result = node.add("ptp", ptp(), netns="c1")
    assert node.exec("c1", "sysctl", "-n", "net.ipv4.conf.eth0.arp_notify").strip() == "1"
    assert source_seen(node, "outside", "c1", address_of(result, 1)) == OUTSIDE6
    assert source_seen(node, "outside", "c1", address_of(result)) == OUTSIDE4
    assert source_seen(node, "c1", "outside", OUTSIDE4) == "10.77.0.2"
    assert source_seen(node, "c1", "outside", OUTSIDE6) == "fd00:77::2"


def test_the_result_is_what_the_kernel_has(node: Node) -> None:
    result = pods(node, ptp(mtu=1400), "c1", plugin="ptp")[0]
    port, inside = node.links()[host_end(result)], node.links("c1")["eth0"]
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": port["ifname"], "mac": port["address"], "mtu": 1400},
            {"name": "eth0", "mac": inside["address"], "mtu": 1400, "sandbox": "/run/netns/c1"},
        ],
        "ips": [
            {"interface": 1, "address": "10.77.0.2/24", "gateway": GW4},
            {"interface": 1, "address": "fd00:77::2/64", "gateway": GW6},
        ],
        "routes": DEFAULT,
    }
    assert addresses(inside) == {"10.77.0.2/24", "fd00:77::2/64"}
    assert addresses(port) == {f"{GW4}/32", f"{GW6}/128"}
    assert (port["mtu"], inside["mtu"]) == (1400, 1400)
    assert port["ifname"].startswith("veth")
    assert len(port["ifname"]) == len("veth") + 8
    assert (port["ifindex"], port["link_index"]) == (inside["link_index"], inside["ifindex"])
    assert routes(node, "c1") == {(GW4, ""), (V4, GW4), ("default", GW4)}
    assert routes(node, "c1", 6) == {(GW6, ""), (V6, GW6), ("default", GW6)}
    forwarding = ["sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
    assert node.run(forwarding).stdout == b"1\n1\n"


@pytest.mark.parametrize(("subnet", "forwards"), [(V4, b"1\n0\n"), (V6, b"0\n1\n")])
def test_one_family(node: Node, subnet: str, forwards: bytes) -> None:
    conf = ptp(ipam=ipam(subnet))
    results = pods(node, conf, "c1", "c2", plugin="ptp")
    assert ping(node, "c1", address_of(results[1]))
    forwarding = ["sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
    assert node.run(forwarding).stdout == forwards
    assert not check(node, "ptp", conf, results[0])


@pytest.mark.parametrize("version", SHAPES)
def test_each_shape_of_a_result(node: Node, version: str) -> None:
    conf = ptp(cniVersion=version)
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert result["cniVersion"] == version
    if version == "0.2.0":
        assert result == {
            "cniVersion": version,
            "ip4": {"ip": "10.77.0.2/24", "gateway": GW4, "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00:77::2/64", "gateway": GW6, "routes": [{"dst": "::/0"}]},
        }
    else:
        families = [ip.get("version") for ip in result["ips"]]
        assert families == (["4", "6"] if version.startswith("0.") else [None, None])
        assert all(("mtu" in each) is (version == "1.1.0") for each in result["interfaces"])
    assert ping(node, "c1", GW4)
    assert ping(node, "c1", GW6)


@pytest.mark.parametrize("backend", [{}, {"ipMasqBackend": "nftables"}, {"ipMasqBackend": "iptables"}])
def test_masquerade(node: Node, backend: dict[str, str]) -> None:
    outside(node)
    conf = ptp(ipMasq=True, **backend)
    results = pods(node, conf, "c1", "c2", plugin="ptp")
    for number, (uplink, target) in enumerate(((UPLINK4, OUTSIDE4), (UPLINK6, OUTSIDE6))):
        assert source_seen(node, "c1", "outside", target) == uplink
        one, two = (address_of(result, number) for result in results)
        assert source_seen(node, "c1", "c2", two) == one
    assert not check(node, "ptp", conf, results[0])
    node.run(["nft", "flush", "ruleset"])
    assert check(node, "ptp", conf, results[0])
    node.delete("ptp", conf, netns="c1")
    node.delete("ptp", conf, container="c2", netns="c2")
    assert leftovers(node, "c1", "c2") == []


def test_an_unknown_backend_is_refused_and_nothing_stays(node: Node) -> None:
    node.netns("c1")
    answer = refusal(node, "ADD", "ptp", ptp(ipMasq=True, ipMasqBackend="ipchains"), netns="c1")
    assert (answer["code"], "ipchains" in answer["msg"]) == (7, True)
    assert leftovers(node, "c1") == []


def test_without_masquerade_the_source_stays(node: Node) -> None:
    outside(node)
    way_back(node)
    pods(node, ptp(), "c1", plugin="ptp")
    assert source_seen(node, "c1", "outside", OUTSIDE4) == "10.77.0.2"
    assert pod_rules(node) == []


def test_dns_of_the_network_goes_before_that_of_ipam(node: Node) -> None:
    of_ipam = {"nameservers": ["192.0.2.53"], "search": ["example.org"]}
    given = static("10.77.0.2/24", dns=of_ipam)
    assert pods(node, ptp(ipam=given), "c1", plugin="ptp")[0]["dns"] == of_ipam
    for key, value in (
        ("nameservers", ["192.0.2.54"]),
        ("search", ["a"]),
        ("options", ["b"]),
        ("domain", "c"),
    ):
        node.delete("ptp", ptp(ipam=given), netns="c1")
        assert node.add("ptp", ptp(ipam=given, dns={key: value}), netns="c1")["dns"] == {key: value}


def test_several_addresses_of_a_family(node: Node) -> None:
    addresses_ = [
        {"address": "10.77.0.5/24", "gateway": GW4},
        {"address": "10.77.0.6/24", "gateway": GW4},
        {"address": "10.77.1.5/24", "gateway": "10.77.1.1"},
        {"address": "fd00:77::5/128", "gateway": GW6},
    ]
    conf = ptp(ipam=static() | {"addresses": addresses_, "routes": DEFAULT})
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert all(ping(node, "c1", target) for target in (GW4, "10.77.1.1", GW6))
    assert all(ping(node, "c1", GW4, "-I", source) for source in ("10.77.0.5", "10.77.0.6", "10.77.1.5"))
    assert routes(node, "c1") == {
        *((GW4, ""), (V4, GW4), ("10.77.1.1", ""), ("10.77.1.0/24", "10.77.1.1"), ("default", GW4))
    }
    assert not check(node, "ptp", conf, result)
    node.delete("ptp", conf, netns="c1")
    assert leftovers(node, "c1") == []


def test_routes_of_ipam_reach_the_kernel(node: Node) -> None:
    given = [
        {"dst": "10.80.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 77},
        {"dst": "10.81.0.0/16", "gw": "10.77.0.7", "table": 100},
        {"dst": "10.82.0.0/16", "scope": 253},
    ]
    conf = ptp(ipam=ipam(V4, routes=given))
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert result["routes"] == given
    shown = node.exec("c1", "ip", "route", "show", "table", "all")
    assert f"10.80.0.0/16 via {GW4} dev eth0 metric 77 mtu 1300 advmss 1200" in shown
    # The only one on the link is the host, whatever the address.
    assert "10.81.0.0/16 via 10.77.0.7 dev eth0 table 100 onlink" in shown
    assert "10.82.0.0/16 dev eth0 scope link" in shown
    assert not check(node, "ptp", conf, result)


def test_a_pod_takes_over_the_address_of_a_dying_one(node: Node) -> None:
    """A namespace goes some time after its container; until then its link is there, and the routes to it."""
    given = static("10.77.0.5/24")
    given["addresses"].append({"address": "fd00:77::5/64", "gateway": GW6})
    conf = ptp(ipam=given)
    pods(node, conf, "c1", "c2", plugin="ptp")
    for target in ("10.77.0.5", "fd00:77::5"):
        assert source_seen(node, "", "c2", target)


def test_an_address_without_a_gateway_is_refused(node: Node) -> None:
    node.netns("c1")
    answer = refusal(node, "ADD", "ptp", ptp(ipam=static("10.77.0.2/24", gateway="")), netns="c1")
    assert (answer["code"], "10.77.0.2/24 has no gateway" in answer["msg"]) == (7, True)
    assert leftovers(node, "c1") == []


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS"])
def test_ipam_is_needed(node: Node, verb: str) -> None:
    node.netns("c1")
    answer = refusal(node, verb, "ptp", ptp(ipam={}, prevResult={"cniVersion": "1.1.0"}), netns="c1")
    assert (answer["code"], "needs an IPAM plugin" in answer["msg"]) == (7, True)
    node.delete("ptp", ptp(ipam={}), netns="c1")


def test_a_taken_interface_name_is_refused_and_stays(node: Node) -> None:
    result = pods(node, ptp(), "c1", plugin="ptp")[0]
    answer = refusal(node, "ADD", "ptp", ptp(), container="c9", netns="c1")
    assert (answer["code"], "'eth0' already exists" in answer["msg"]) == (ALREADY_ATTACHED, True)
    assert not check(node, "ptp", ptp(), result)
    assert reservations(node) == {"10.77.0.2", "fd00:77::2"}


@pytest.mark.parametrize("plugins", ["in-process", "executed"])
def test_no_address_is_an_error_and_none_is_kept(node: Node, plugins: str) -> None:
    """An IPAM plugin that keeps one all the same is told to give it back."""
    node.netns("c1")
    folder = ""
    conf = ptp(ipam={"type": "static"})
    if plugins == "executed":
        folder = "/opt/both"
        node.run(["mkdir", folder])
        node.run(["ln", "-s", f"{node.plugins}/ptp", f"{folder}/ptp"])
        script = (
            '#!/bin/sh\necho "$CNI_COMMAND" >> /opt/log\n'
            '[ "$CNI_COMMAND" != ADD ] || echo \'{"cniVersion": "1.1.0"}\'\n'
        )
        with open(node.path(f"{folder}/static"), "w", encoding="ascii") as file:
            file.write(script)
        node.run(["chmod", "+x", f"{folder}/static"])
    answer = refusal(node, "ADD", "ptp", conf, netns="c1", plugins=folder)
    assert (answer["code"], "missing IP config" in answer["msg"]) == (7, True)
    assert leftovers(node, "c1") == []
    if plugins == "executed":
        assert node.run(["cat", "/opt/log"]).stdout.split() == [b"ADD", b"DEL"]


def test_a_failing_ipam_leaves_nothing(node: Node) -> None:
    node.netns("c1")
    answer = refusal(node, "ADD", "ptp", ptp(ipam=ipam("10.77.0.0/33")), netns="c1")
    assert "10.77.0.0/33" in answer["msg"]
    assert leftovers(node, "c1") == []
