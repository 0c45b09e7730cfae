"""The parents of macvlan links: found by the default route, in the container, missing, of a small MTU."""

from __future__ import annotations

from binascii import crc32
from typing import TYPE_CHECKING

import pytest

from integration.checks import (
    ALREADY_ATTACHED,
    GW4,
    check,
    ping,
    pods,
    refusal,
)
from integration.sublinks import PARENT, left, network, parent

if TYPE_CHECKING:
    from integration.node import Node


@pytest.mark.parametrize("how", ["v4", "v6", "metric", "none"])
def test_the_parent_is_found_by_the_default_route(node: Node, how: str) -> None:
    parent(node)
    node.run(["ip", "link", "add", "other", "type", "veth", "peer", "name", "another"])
    for name in ("other", "another"):
        node.run(["ip", "link", "set", name, "up"])
    for command in {
        "v4": [f"ip route add default dev {PARENT}", "ip -6 route add default dev other"],
        "v6": [f"ip -6 route add default dev {PARENT}", "ip route add 10.0.0.0/8 dev other"],
        "metric": [
            "ip route add default dev other metric 100",
            f"ip route add default dev {PARENT} metric 50",
        ],
        "none": ["ip route add default dev other table 9", "ip route add unreachable default"],
    }[how]:
        node.run(command.split())
    conf = network(master="")
    node.netns("c1")
    if how == "none":
        answer = refusal(node, "ADD", "macvlan", conf, netns="c1")
        assert (answer["code"], answer["msg"]) == (7, "no default route interface found")
        assert refusal(node, "STATUS", "macvlan", conf)["code"] == 50
    else:
        result = node.add("macvlan", conf, netns="c1")
        assert node.links("c1")["eth0"]["link_index"] == node.links()[PARENT]["ifindex"]
        assert ping(node, "c1", GW4)
        assert not check(node, "macvlan", conf, result)
    node.delete("macvlan", conf, netns="c1")


@pytest.mark.parametrize("master", [PARENT, ""])
def test_the_parent_is_in_the_container(node: Node, master: str) -> None:
    node.netns("c1")
    parent(node, netns="c1")
    if not master:
        node.exec("c1", "ip", "route", "add", "default", "dev", PARENT, "metric", "9")
    conf = network(master=master, linkInContainer=True, mtu=1300)
    result = node.add("macvlan", conf, netns="c1", ifname="net1")
    inside = node.links("c1")
    assert inside["net1"]["link"] == PARENT
    assert ping(node, "c1", GW4, "-I", "net1")
    assert not check(node, "macvlan", conf, result, ifname="net1")
    node.delete("macvlan", conf, netns="c1", ifname="net1")
    assert set(node.links("c1")) == {"lo", PARENT}
    answer = refusal(node, "ADD", "macvlan", {**conf, "master": "nosuch"}, netns="c1", ifname="net1")
    assert answer["msg"] == "failed to look up master 'nosuch': no such interface"


@pytest.mark.kernel
def test_the_host_may_have_a_link_of_that_name(node: Node) -> None:
    """Before Linux 6.15 the kernel looked for a new link's name where the request came from, too."""
    parent(node)
    node.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "another"])
    conf = network()
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    assert ping(node, "c1", GW4)
    assert not check(node, "macvlan", conf, result)
    answer = refusal(node, "ADD", "macvlan", conf, netns="c1", container="c2")
    assert (answer["code"], "'eth0' already exists" in answer["msg"]) == (ALREADY_ATTACHED, True)
    assert not check(node, "macvlan", conf, result), "nothing of the first was touched"
    node.delete("macvlan", conf, netns="c1")
    assert set(node.links("c1")) == {"lo"}
    assert "eth0" in node.links()


def test_a_link_that_was_never_given_its_name_is_deleted(node: Node) -> None:
    """An ADD that was killed in between leaves it, where the kernel needs a name for the time being."""
    parent(node)
    node.netns("c1")
    name = f"cni{crc32(b'eth0'):08x}"
    node.exec("c1", "ip", "link", "add", name, "type", "veth", "peer", "name", "other")
    node.delete("macvlan", network(), netns="c1")
    assert set(node.links("c1")) == {"lo"}


def test_parents_that_cannot_be_used(node: Node) -> None:
    parent(node)
    node.netns("c1")
    answer = refusal(node, "ADD", "macvlan", network(master="nosuch"), netns="c1")
    assert answer["msg"] == "failed to look up master 'nosuch': no such interface"
    node.run(["ip", "link", "set", PARENT, "down"])
    for verb in ("ADD", "STATUS"):
        answer = refusal(node, verb, "macvlan", network(), netns="c1")
        assert (answer["code"], answer["msg"]) == (100 if verb == "ADD" else 50, f"master '{PARENT}' is down")
        assert answer["details"] == f"ip link set {PARENT} up"
    assert left(node, "c1") == []


@pytest.mark.parametrize("mtu", [-100, 1501])
def test_an_mtu_beyond_the_parents_is_refused(node: Node, mtu: int) -> None:
    parent(node)
    node.netns("c1")
    answer = refusal(node, "ADD", "macvlan", network(mtu=mtu), netns="c1")
    assert (answer["code"], answer["msg"]) == (7, f"invalid MTU {mtu}, must be [0, master MTU(1500)]")
    assert left(node, "c1") == []
    node.delete("macvlan", network(mtu=mtu), netns="c1")
