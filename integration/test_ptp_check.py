"""DEL, GC, STATUS and CHECK of the ptp plugin: each thing that ADD made is missed, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.checks import (
    V4,
    check,
    host_end,
    ipam,
    leftovers,
    pod_rules,
    pods,
    ptp,
    refusal,
    reservations,
    static,
)

if TYPE_CHECKING:
    from integration.node import Node


@pytest.mark.parametrize("how", ["twice", "without", "gone", "unplugged"])
def test_delete(node: Node, how: str) -> None:
    conf = ptp(ipMasq=True)
    result = pods(node, conf, "c1", plugin="ptp")[0]
    if how == "without":
        node.delete("ptp", conf)
        assert reservations(node) == set()
        assert not [line for line in pod_rules(node) if "masquerade" in line]
    if how == "gone":
        node.remove_netns("c1")
    if how == "unplugged":
        node.run(["ip", "link", "delete", host_end(result)])
    for _time in range(2):
        node.delete("ptp", conf, netns="/run/netns/c1")
    if how == "gone":
        node.netns("c1")
        assert [each for each in leftovers(node, "c1") if not each.startswith("veth")] == []
    else:
        assert leftovers(node, "c1") == []


def test_delete_of_what_never_was(node: Node) -> None:
    node.netns("c1")
    for conf in (ptp(ipMasq=True), ptp(gatewayAddress="nowhere"), ptp(ipam=static("nowhere"))):
        node.delete("ptp", conf, netns="c1")
        node.delete("ptp", conf, netns="/none")
        node.delete("ptp", conf)


def test_gc_removes_what_belongs_to_no_attachment(node: Node) -> None:
    conf = ptp(ipMasq=True)
    results = pods(node, conf, "c1", "c2", plugin="ptp")
    node.run(["ip", "link", "delete", host_end(results[1])])
    listed = [{"containerID": "c1", "ifname": "eth0"}]
    assert node.cni("GC", "ptp", {**conf, "cni.dev/valid-attachments": listed}) == (0, None)
    assert reservations(node) == {"10.77.0.2", "fd00:77::2"}
    assert not [line for line in pod_rules(node) if "10.77.0.3" in line or "fd00:77::3" in line]
    assert not check(node, "ptp", conf, results[0])
    assert node.cni("GC", "ptp", {**conf, "cni.dev/valid-attachments": []}) == (0, None)
    assert reservations(node) == set()
    assert pod_rules(node) == []


def test_status(node: Node) -> None:
    assert node.cni("STATUS", "ptp", ptp()) == (0, None)
    full = ptp(ipam=ipam(ranges=[[{"subnet": V4, "rangeEnd": "10.77.0.2"}]]))
    pods(node, full, "c1", plugin="ptp")
    answer = refusal(node, "STATUS", "ptp", full)
    assert answer["code"] == 50


BREAK = {
    "the container's link is down": ("c1", "ip link set eth0 down", "is down"),
    "the host's link is down": ("", "ip link set VETH down", "is down"),
    "no link": ("", "ip link delete VETH", "'eth0' of the container is gone"),
    "another kind of link": (
        "c1",
        "ip link delete eth0; ip link add eth0 type bridge; ip link set eth0 up",
        "is a bridge, not a veth",
    ),
    "renamed": ("", "ip link set VETH down; ip link set VETH name x; ip link set x up", "is gone"),
    "another pair": (
        "",
        "ip link set VETH down; ip link set VETH name x; ip link add VETH type veth; ip link set VETH up",
        "is not the other end",
    ),
    "mac inside": ("c1", "ip link set eth0 address 02:00:00:00:00:01", "has MAC address"),
    "mac outside": ("", "ip link set VETH address 02:00:00:00:00:01", "has MAC address"),
    "mtu inside": ("c1", "ip link set eth0 mtu 1300", "has MTU 1300"),
    "mtu outside": ("", "ip link set VETH mtu 1300", "has MTU 1300"),
    "address": (
        "c1",
        "ip address add 10.77.0.9/24 dev eth0; ip address delete 10.77.0.2/24 dev eth0",
        "10.77.0.2/24 is missing",
    ),
    "address v6": ("c1", "ip address delete fd00:77::2/64 dev eth0", "fd00:77::2/64 is missing"),
    "way to the gateway": ("c1", "ip route delete 10.77.0.1", "route 10.77.0.1/32 is missing"),
    "way to the gateway v6": ("c1", "ip -6 route delete fd00:77::1", "route fd00:77::1/128 is missing"),
    "subnet": ("c1", "ip route delete 10.77.0.0/24", "route 10.77.0.0/24 via 10.77.0.1 is missing"),
    "subnet v6": ("c1", "ip -6 route delete fd00:77::/64", "route fd00:77::/64 via fd00:77::1 is missing"),
    "default": ("c1", "ip route delete default", "route 0.0.0.0/0"),
    "default v6": ("c1", "ip -6 route delete default", "route ::/0"),
    "gateway": ("", "ip address delete 10.77.0.1/32 dev VETH", "gateway address 10.77.0.1 is missing"),
    "gateway v6": ("", "ip address delete fd00:77::1/128 dev VETH", "gateway address fd00:77::1 is missing"),
    "host route": ("", "ip route delete 10.77.0.2", "route 10.77.0.2/32 is missing"),
    "host route v6": ("", "ip -6 route delete fd00:77::2", "route fd00:77::2/128 is missing"),
    "forwarding": ("", "sysctl -q net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0"),
    "forwarding v6": ("", "sysctl -q net.ipv6.conf.all.forwarding=0", "forwarding is 0"),
    "reservation": ("", "rm /var/lib/cni/networks/net/10.77.0.2", "10.77.0.2"),
    "masquerade": ("", "nft flush chain inet cni_plugins_masquerade masq_checks", "is missing"),
}


@pytest.mark.parametrize("name", BREAK)
def test_check_finds_what_is_broken(node: Node, name: str) -> None:
    where, commands, words = BREAK[name]
    conf = ptp(ipMasq=True, mtu=1400)
    result = pods(node, conf, "c1", plugin="ptp")[0]
    assert not check(node, "ptp", conf, result)
    for command in commands.replace("VETH", host_end(result)).split("; "):
        node.run(command.split(), netns=where)
    assert words in check(node, "ptp", conf, result)
    node.delete("ptp", conf, netns="c1")


def test_check_of_older_versions_finds_the_configured_mtu(node: Node) -> None:
    conf = ptp(cniVersion="1.0.0", mtu=1400)
    result = pods(node, conf, "c1", plugin="ptp")[0]
    node.run(["ip", "link", "set", host_end(result), "mtu", "1300"])
    assert "has MTU 1300" in check(node, "ptp", conf, result)


def test_check_of_another_namespace(node: Node) -> None:
    result = pods(node, ptp(), "c1", plugin="ptp")[0]
    node.netns("c2")
    assert "doesn't match CNI_NETNS" in check(node, "ptp", ptp(), result, netns="c2")
