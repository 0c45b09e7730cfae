"""DEL, GC, STATUS and CHECK of macvlan, and what it does with its IPAM plugin: nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.checks import (
    DEFAULT,
    GW4,
    V4,
    V6,
    Wire,
    check,
    ipam,
    ping,
    pods,
    refusal,
    reservations,
    static,
)
from integration.node import PEER
from integration.sublinks import PARENT, left, network, parent, program

if TYPE_CHECKING:
    from integration.node import Node

ARP = 0x0806


DHCP = """
echo "$CNI_COMMAND $(ip -n ${CNI_NETNS##*/} -br link show $CNI_IFNAME | cut -d' ' -f1)" >> /opt/log
[ "$CNI_COMMAND" = ADD ] || exit 0
ip -n ${CNI_NETNS##*/} link set $CNI_IFNAME up
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.9/24", "gateway": "10.77.0.1"}],
       "dns": {"nameservers": ["10.77.0.1"]}}'
"""


def test_an_ipam_plugin_that_uses_the_interface(node: Node) -> None:
    """A DHCP client brings it up to ask, and needs it at DEL, too."""
    parent(node)
    node.netns("c1")
    folder = program(node, "dhcp", DHCP)
    conf = network(cniVersion="1.0.0", ipam={"type": "dhcp"})
    with Wire(node, "beyond", "far", ARP) as arp:
        result = node.add("macvlan", conf, netns="c1", plugins=folder)
        assert {frame[28:32] for frame in arp.frames(0.3)} == {bytes((10, 77, 0, 9))}
    assert (result["ips"][0]["address"], result["dns"]) == ("10.77.0.9/24", {"nameservers": [GW4]})
    assert ping(node, "c1", GW4)
    node.delete("macvlan", conf, netns="c1", plugins=folder)
    name = f"eth0@if{node.links()[PARENT]['ifindex']}"
    assert node.run(["cat", "/opt/log"]).stdout.decode() == f"ADD {name}\nDEL {name}\n"
    assert left(node, "c1") == []


@pytest.mark.parametrize("how", ["missing", "error", "no address", "conflict"])
def test_a_failing_ipam_leaves_nothing(node: Node, how: str) -> None:
    parent(node)
    node.netns("c1")
    given = {
        "missing": {"type": "nosuch"},
        "error": ipam("10.77.0.0/33"),
        "no address": {"type": "static"},
        "conflict": static("10.77.0.9/24", routes=[{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]),
    }[how]
    refusal(node, "ADD", "macvlan", network(ipam=given), netns="c1")
    assert left(node, "c1") == []
    assert reservations(node) == set()


@pytest.mark.parametrize("how", ["twice", "without", "gone", "unplugged"])
def test_delete(node: Node, how: str) -> None:
    parent(node)
    conf = network()
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    if how == "without":
        node.delete("macvlan", conf)
        assert reservations(node) == set()
    if how == "gone":
        node.remove_netns("c1")
    if how == "unplugged":
        node.exec("c1", "ip", "link", "delete", "eth0")
    for _time in range(2):
        node.delete("macvlan", {**conf, "prevResult": result}, netns="/run/netns/c1")
    assert left(node, *([] if how == "gone" else ["c1"])) == []


def test_delete_of_what_never_was(node: Node) -> None:
    node.netns("c1")
    for conf in (network(), network(master=""), network(mode="?", mac="?"), network(ipam={})):
        node.delete("macvlan", conf, netns="c1")
        node.delete("macvlan", conf, netns="/none")
        node.delete("macvlan", conf)


def test_gc_without_ipam_has_nothing_to_do(node: Node) -> None:
    assert node.cni("GC", "macvlan", network(ipam={}, **{"cni.dev/valid-attachments": []})) == (0, None)


def test_status(node: Node) -> None:
    parent(node)
    assert node.cni("STATUS", "macvlan", network()) == (0, None)
    assert node.cni("STATUS", "macvlan", network(ipam={})) == (0, None)
    assert node.cni("STATUS", "macvlan", network(master="nosuch", linkInContainer=True)) == (0, None)
    for conf, words in (
        (network(master="nosuch"), "failed to look up master 'nosuch'"),
        (network(master=""), "no default route"),
        (network(ipam=ipam(ranges=[[{"subnet": V4, "rangeEnd": "10.77.0.1"}]])), "10.77.0"),
    ):
        answer = refusal(node, "STATUS", "macvlan", conf)
        assert (answer["code"], words in answer["msg"]) == (50, True), answer


BREAK = {
    "down": ("c1", "ip link set eth0 down", "is down"),
    "gone": ("c1", "ip link delete eth0", "'eth0' of the container is gone"),
    "another kind": (
        "c1",
        "ip link delete eth0; ip link add eth0 type bridge; ip link set eth0 up",
        "is a bridge, not a macvlan",
    ),
    "mode": ("c1", "ip link set eth0 type macvlan mode private", "does not have mode 'bridge'"),
    "mac": ("c1", "ip link set eth0 address 02:00:00:00:00:01", "has MAC address 02:00:00:00:00:01"),
    "mtu": ("c1", "ip link set eth0 mtu 1300", "has MTU 1300, not 1400"),
    "parent": (
        "",
        f"ip link set {PARENT} down; ip link set {PARENT} name other",
        f"master '{PARENT}' is gone",
    ),
    "other parent": (
        "",
        "ip link set uplink down; ip link set uplink name other; ip link add uplink type bridge",
        "is not on master 'uplink'",
    ),
    "address": ("c1", "ip address delete 10.77.0.2/24 dev eth0", "10.77.0.2/24 is missing"),
    "address v6": ("c1", "ip address delete fd00:77::2/64 dev eth0", "fd00:77::2/64 is missing"),
    "route": ("c1", "ip route delete default", "route 0.0.0.0/0 via 10.77.0.1 is missing"),
    "reservation": ("", "rm /var/lib/cni/networks/net/10.77.0.2", "10.77.0.2"),
}


@pytest.mark.parametrize("name", BREAK)
def test_check_finds_what_is_broken(node: Node, name: str) -> None:
    where, commands, words = BREAK[name]
    parent(node)
    conf = network(mtu=1400, ipam=ipam(V4, V6, routes=DEFAULT))
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    assert not check(node, "macvlan", conf, result)
    for command in commands.split("; "):
        node.run(command.split(), netns=where)
    assert words in check(node, "macvlan", conf, result)
    node.delete("macvlan", conf, netns="c1")


def test_check_of_another_namespace(node: Node) -> None:
    parent(node)
    result = pods(node, network(), "c1", plugin="macvlan")[0]
    node.netns("c2")
    assert "doesn't match CNI_NETNS" in check(node, "macvlan", network(), result, netns="c2")


def test_check_of_older_versions_finds_the_configured_mtu(node: Node) -> None:
    parent(node)
    conf = network(cniVersion="1.0.0", mtu=1400)
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    node.exec("c1", "ip", "link", "set", "eth0", "mtu", "1300")
    assert "has MTU 1300" in check(node, "macvlan", conf, result)


@pytest.mark.peer
def test_attachments_of_either_suite_are_the_others(node: Node) -> None:
    """Nothing is kept besides the link and the address, so that plugins can be swapped under running pods."""
    parent(node)
    conf = network(cniVersion="1.0.0")
    node.netns("c1")
    for first, second in ((PEER, node.plugins), (node.plugins, PEER)):
        result = node.add("macvlan", conf, netns="c1", plugins=first)
        assert not check(node, "macvlan", conf, result, plugins=second)
        node.delete("macvlan", {**conf, "prevResult": result}, netns="c1", plugins=second)
        assert set(node.links("c1")) == {"lo"}
        assert reservations(node) == set()
