"""sbr: containers with two interfaces, whose packets take the way that their source says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import bridge, check, ipam, ping, pods, refusal, unmount_netns
from integration.node import PEER

if TYPE_CHECKING:
    from integration.node import Node

NET = "10.78.0.0/24"
GW, POD = "10.78.0.1", "10.78.0.2"
NET6 = "fd00:78::/64"
GW6, POD6 = "fd00:78::1", "fd00:78::2"
MAIN = 254


def second(*subnets: str, **keys: Any) -> dict[str, Any]:
    """Return a network for a second interface, with a route to somewhere beyond."""
    routes = [{"dst": "198.51.100.0/24"}]
    return bridge(**{"name": "two", "bridge": "br1", "ipam": ipam(*subnets or (NET,), routes=routes), **keys})


@pytest.fixture
def pod(node: Node) -> Any:
    """The result of a container's second attachment; the first has the default route."""
    pods(node, bridge(isDefaultGateway=True), "c1")
    return node.add("bridge", second(), netns="c1", ifname="net1")


def sbr(result: Any, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "two", "prevResult": result, **keys}


def rules(node: Node, family: int = 4) -> dict[str, str]:
    """Return the sources that have a rule, and the table that it leads to."""
    listed = json.loads(node.exec("c1", "ip", f"-{family}", "-json", "rule"))
    return {each["src"]: each["table"] for each in listed if each["src"] != "all"}


def table(node: Node, number: str | int, family: int = 4, device: str = "net1") -> set[tuple[str, str]]:
    """Return the routes of a table over a device: destination, and gateway or nothing."""
    shown = node.exec(
        "c1", "ip", f"-{family}", "-json", "route", "show", "table", str(number), "dev", device, check=False
    )
    return {
        (each["dst"], each.get("gateway", ""))
        for each in json.loads(shown or "[]")
        if each.get("type", "unicast") == "unicast" and not each["dst"].startswith("ff00")
    }


def way(node: Node, target: str, source: str = "") -> tuple[str, str]:
    """Return the gateway and the device by which the kernel would send."""
    given = ["from", source] if source else []
    found = json.loads(node.exec("c1", "ip", "-json", "route", "get", target, *given))[0]
    return found.get("gateway", ""), found["dev"]


SUBNET = (NET, "")
BEYOND = ("198.51.100.0/24", GW)
DEFAULT = ("default", GW)


def test_a_source_has_its_own_way(node: Node, pod: Any) -> None:
    assert way(node, "203.0.113.1") == ("10.77.0.1", "eth0")
    assert way(node, "203.0.113.1", POD) == ("10.77.0.1", "eth0")
    conf = sbr(pod)
    result = node.add("sbr", conf, netns="c1", ifname="net1")
    assert result == pod
    assert rules(node) == {POD: "100"}
    assert table(node, 100) == {SUBNET, BEYOND, DEFAULT}
    assert table(node, MAIN) == set()
    assert table(node, MAIN, device="eth0") == {("default", "10.77.0.1"), ("10.77.0.0/24", "")}
    assert way(node, "203.0.113.1") == ("10.77.0.1", "eth0")
    assert way(node, "203.0.113.1", POD) == (GW, "net1")
    assert check(node, "sbr", conf, result, ifname="net1") == ""
    assert check(node, "bridge", second(), result, ifname="net1") == ""
    for _time in range(2):
        node.delete("sbr", conf, netns="c1", ifname="net1")
        assert rules(node) == {}


def test_packets_leave_by_that_way(node: Node, pod: Any) -> None:
    """What answers a host beyond the second network goes back there, and not by the default route."""
    node.netns("far")
    node.run(
        ["ip", "link", "add", "far0", "master", "br1", "type", "veth", "peer", "name", "eth0", "netns", "far"]
    )
    node.run(["ip", "link", "set", "far0", "up"])
    for command in (
        "link set eth0 up",
        "address add 10.78.0.9/24 dev eth0",
        "address add 203.0.113.9/32 dev eth0",
    ):
        node.exec("far", "ip", *command.split())
    conf = sbr(pod, gateways=["10.78.0.9"])
    assert not ping(node, "c1", "203.0.113.9", "-I", POD, wait=0.5)
    node.add("sbr", conf, netns="c1", ifname="net1")
    assert ping(node, "c1", "203.0.113.9", "-I", POD)


def test_dual_stack_and_several_addresses(node: Node) -> None:
    pods(node, bridge(isDefaultGateway=True), "c1")
    network = second(NET, "10.79.0.0/24", NET6, cniVersion="1.1.0")
    pod = node.add("bridge", network, netns="c1", ifname="net1")
    conf = sbr(pod)
    result = node.add("sbr", conf, netns="c1", ifname="net1")
    assert rules(node) == {POD: "100", "10.79.0.2": "101"}
    assert rules(node, 6) == {POD6: "102"}
    assert table(node, 100) == {SUBNET, BEYOND, DEFAULT}
    assert table(node, 101) == {("10.79.0.0/24", ""), ("default", "10.79.0.1")}
    assert table(node, 102, 6) == {(NET6, ""), ("fe80::/64", ""), ("default", GW6)}
    assert table(node, MAIN) == set()
    # link-local addresses belong to the link and have no other way
    assert table(node, MAIN, 6) == {("fe80::/64", "")}
    assert way(node, "2001:db8::1", POD6) == (GW6, "net1")
    assert check(node, "sbr", conf, result, ifname="net1") == ""
    node.delete("sbr", conf, netns="c1", ifname="net1")
    assert rules(node) == rules(node, 6) == {}


def test_tables_in_use_are_left_alone(node: Node, pod: Any) -> None:
    node.exec("c1", "ip", "rule", "add", "from", "192.0.2.1", "table", "100")
    node.exec("c1", "ip", "route", "add", "192.0.2.0/24", "dev", "eth0", "table", "101")
    node.exec("c1", "ip", "-6", "rule", "add", "from", "2001:db8::1", "table", "102")
    conf = sbr(pod)
    node.add("sbr", conf, netns="c1", ifname="net1")
    assert rules(node) == {"192.0.2.1": "100", POD: "103"}
    node.delete("sbr", conf, netns="c1", ifname="net1")
    assert rules(node) == {"192.0.2.1": "100"}
    assert table(node, 101, device="eth0") == {("192.0.2.0/24", "")}


def test_two_interfaces_of_a_container(node: Node, pod: Any) -> None:
    third = second("10.79.0.0/24", name="three", bridge="br2")
    other = node.add("bridge", third, netns="c1", ifname="net2")
    node.add("sbr", sbr(pod), netns="c1", ifname="net1")
    node.add("sbr", sbr(other, name="three"), netns="c1", ifname="net2")
    assert rules(node) == {POD: "100", "10.79.0.2": "101"}
    node.delete("sbr", sbr(pod), netns="c1", ifname="net1")
    assert rules(node) == {"10.79.0.2": "101"}
    assert way(node, "203.0.113.1", "10.79.0.2") == ("10.79.0.1", "net2")


def test_a_table_that_exists(node: Node, pod: Any) -> None:
    before = table(node, MAIN)
    conf = sbr(pod, table=5001)
    result = node.add("sbr", conf, netns="c1", ifname="net1")
    assert rules(node) == {POD: "5001"}
    assert table(node, MAIN) == before
    assert check(node, "sbr", conf, result, ifname="net1") == ""
    node.exec("c1", "ip", "rule", "add", "from", POD, "table", "6000")
    node.delete("sbr", conf, netns="c1", ifname="net1")
    assert rules(node) == {POD: "6000"}
    assert "rule" in check(node, "sbr", conf, result, ifname="net1")


def test_gateways_of_the_configuration(node: Node) -> None:
    pods(node, bridge(isDefaultGateway=True), "c1")
    network = second(NET, NET6)
    network["ipam"]["routes"] = [{"dst": "0.0.0.0/0", "priority": 500}]
    pod = node.add("bridge", network, netns="c1", ifname="net1")
    conf = sbr(pod, gateways=["10.78.0.77", "fd00:78::77"])
    result = node.add("sbr", conf, netns="c1", ifname="net1")
    assert table(node, 100) == {SUBNET, ("default", "10.78.0.77")}
    assert table(node, 101, 6) == {(NET6, ""), ("fe80::/64", ""), ("default", "fd00:78::77")}
    assert check(node, "sbr", conf, result, ifname="net1") == ""
    node.exec("c1", "ip", "route", "del", "default", "table", "100")
    assert "10.78.0.77" in check(node, "sbr", conf, result, ifname="net1")


@pytest.mark.parametrize(
    "gateways", [["nonsense"], [GW, "10.78.0.9"], [GW6, "fd00::2"], [GW, GW6, GW], ["10.78.0.1/24"], [7]]
)
def test_gateways_that_are_refused(node: Node, pod: Any, gateways: Any) -> None:
    conf = sbr(pod, gateways=gateways)
    assert refusal(node, "ADD", "sbr", conf, netns="c1", ifname="net1")["code"] == 7
    assert rules(node) == {}


def test_source_hints(node: Node) -> None:
    pods(node, bridge(isDefaultGateway=True), "c1")
    pod = node.add("bridge", second(NET, NET6), netns="c1", ifname="net1")
    conf = sbr(pod, addSourceHints=True)
    result = node.add("sbr", conf, netns="c1", ifname="net1")
    assert table(node, 100) == {SUBNET, BEYOND, DEFAULT}
    assert table(node, MAIN) == {SUBNET}
    assert table(node, MAIN, 6) == {(NET6, ""), ("fe80::/64", "")}
    for target, source in (("10.78.0.9", POD), ("fd00:78::9", POD6)):
        found = json.loads(node.exec("c1", "ip", "-json", "route", "get", target))[0]
        assert (found["dev"], found["prefsrc"]) == ("net1", source)
    assert check(node, "sbr", conf, result, ifname="net1") == ""
    node.exec("c1", "ip", "-6", "route", "del", NET6, "dev", "net1", "table", "main")
    assert "main table" in check(node, "sbr", conf, result, ifname="net1")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"rule del from {POD}", "rule"),
        ("route del default table 100", "default route"),
        (f"route del {NET} table 100", "no route to"),
        ("route del 198.51.100.0/24 table 100", "198.51.100.0/24"),
        ("link set net1 down", "down"),
    ],
)
def test_check_finds_what_is_broken(node: Node, pod: Any, command: str, said: str) -> None:
    conf = sbr(pod)
    result = node.add("sbr", conf, netns="c1", ifname="net1")
    node.exec("c1", "ip", *command.split())
    assert said in check(node, "sbr", conf, result, ifname="net1")


def all_routes(node: Node) -> list[str]:
    """Return the routes of every table but those for multicast, which the kernel makes when it gets to it."""
    listed = node.exec("c1", "ip", "route", "show", "table", "all").splitlines()
    return [line for line in listed if not line.startswith("multicast ")]


def test_an_add_that_fails_leaves_what_was_there(node: Node, pod: Any) -> None:
    before = all_routes(node)
    conf = sbr(pod, gateways=["192.0.2.1"])  # on no link
    assert refusal(node, "ADD", "sbr", conf, netns="c1", ifname="net1")["code"] == 100
    assert all_routes(node) == before
    assert rules(node) == {}
    none: dict[str, Any] = {**pod, "ips": []}
    assert "No IP addresses" in refusal(node, "ADD", "sbr", sbr(none), netns="c1", ifname="net1")["msg"]
    alone = {"cniVersion": "1.1.0", "name": "two"}
    assert "chained" in refusal(node, "ADD", "sbr", alone, netns="c1", ifname="net1")["msg"]
    assert refusal(node, "ADD", "sbr", sbr(pod), netns="c1", ifname="net7")["code"] == 100


def test_addresses_of_other_interfaces_have_no_rule(node: Node, pod: Any) -> None:
    result = {**pod, "ips": [*pod["ips"], {"address": "192.0.2.7/24", "interface": 0}]}
    node.add("sbr", sbr(result), netns="c1", ifname="net1")
    assert rules(node) == {POD: "100"}


@pytest.mark.parametrize("gone", ["prevResult", "link", "namespace", "mount", "path"])
def test_delete_when_something_is_gone(node: Node, pod: Any, gone: str) -> None:
    conf = sbr(pod)
    node.add("sbr", conf, netns="c1", ifname="net1")
    netns = "c1"
    if gone == "prevResult":
        del conf["prevResult"]
    elif gone == "link":
        node.exec("c1", "ip", "link", "delete", "net1")
    elif gone == "namespace":
        node.remove_netns("c1")
    elif gone == "mount":
        unmount_netns(node, "c1")
    else:
        netns = ""
    for _time in range(2):
        node.delete("sbr", conf, netns=netns, ifname="net1")
    if gone in ("prevResult", "link"):
        assert rules(node) == {}


def test_status(node: Node) -> None:
    assert node.cni("STATUS", "sbr", sbr(None)) == (0, None)


@pytest.mark.peer
@pytest.mark.parametrize(("adder", "deleter"), [("theirs", "ours"), ("ours", "theirs")])
@pytest.mark.parametrize("subnets", [(NET,), (NET, NET6), (NET, "10.79.0.0/24")])
def test_what_one_made_the_other_checks_and_deletes(
    node: Node, adder: str, deleter: str, subnets: tuple[str, ...]
) -> None:
    folders = {"ours": node.plugins, "theirs": PEER}
    pods(node, bridge(isDefaultGateway=True), "c1")
    pod = node.add("bridge", second(*subnets, cniVersion="1.0.0"), netns="c1", ifname="net1")
    conf = sbr(pod, cniVersion="1.0.0")
    result = node.add("sbr", conf, netns="c1", ifname="net1", plugins=folders[adder])
    assert table(node, 100) == {SUBNET, BEYOND, DEFAULT}
    assert table(node, MAIN) == set()
    if len(subnets) > 1:
        family = 6 if subnets[1] == NET6 else 4
        assert table(node, 101, family) >= {(subnets[1], "")}
    for side in folders.values():
        given = {**conf, "prevResult": result}
        assert node.cni("CHECK", "sbr", given, netns="c1", ifname="net1", plugins=side) == (0, None)
    node.delete("sbr", conf, netns="c1", ifname="net1", plugins=folders[deleter])
    assert rules(node) == rules(node, 6) == {}
