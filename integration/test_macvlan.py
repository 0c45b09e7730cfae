"""The macvlan plugin on a veth: modes, options, the parent that it finds, traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.checks import (
    BROADCAST,
    GW4,
    GW6,
    V4,
    Wire,
    address_of,
    check,
    ipam,
    mac_bytes,
    ping,
    pods,
    refusal,
)
from integration.specification import SHAPES
from integration.sublinks import PARENT, data_of, left, network, parent
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from integration.node import Node

MAC = "02:00:5e:10:00:01"
ARP, IPV6 = 0x0806, 0x86DD


def test_two_pods_of_both_families_talk_and_leave_nothing(node: Node) -> None:
    parent(node)
    conf = network(ipam=ipam("10.77.0.0/24", "fd00:77::/64", routes=[{"dst": "0.0.0.0/0"}]))
    with Wire(node, "beyond", "far", ARP) as arp, Wire(node, "beyond", "far", IPV6) as v6:
        results = pods(node, conf, "c1", "c2", plugin="macvlan")
        macs = [each["interfaces"][0]["mac"] for each in results]
        # Nobody was asked anything yet: these are the pods' own announcements.
        announced = {(frame[6:12], frame[28:32]) for frame in arp.frames(0.3)}
        assert announced == {
            (mac_bytes(mac), bytes((10, 77, 0, last))) for mac, last in zip(macs, (2, 3), strict=True)
        }
        advertised = {frame[62:78] for frame in v6.frames(0.3) if frame[54] == 136}
        assert {bytes.fromhex(f"fd000077{last:024x}") for last in (2, 3)} <= advertised
    for number, gateway in enumerate((GW4, GW6)):
        assert ping(node, "c1", gateway)
        assert ping(node, "c1", address_of(results[1], number))
    inside = node.links("c1")["eth0"]
    assert results[0]["interfaces"] == [
        {"name": "eth0", "mac": inside["address"], "mtu": 1500, "sandbox": "/run/netns/c1"}
    ]
    assert [ip["interface"] for ip in results[0]["ips"]] == [0, 0]
    assert (inside["linkinfo"]["info_kind"], data_of(node, "c1")["mode"]) == ("macvlan", "bridge")
    assert node.exec("c1", "ip", "route", "show", "default").startswith(f"default via {GW4} ")
    assert not check(node, "macvlan", conf, results[0])
    for each in ("c1", "c2"):
        node.delete("macvlan", conf, container=each, netns=each)
    assert left(node, "c1", "c2") == []


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa"])
def test_modes_say_who_reaches_whom(node: Node, mode: str) -> None:
    """Vepa sends everything to the switch, and takes broadcasts back from it; private does not."""
    parent(node)
    conf = network(mode=mode)
    results = pods(node, conf, "c1", "c2", plugin="macvlan")
    assert data_of(node, "c1")["mode"] == mode
    macs = [mac_bytes(each["interfaces"][0]["mac"]) for each in results]
    with Wire(node, "c1") as one, Wire(node, "c2") as two, Wire(node, "beyond", "far") as far:
        one.send(b"between", source=macs[0], target=macs[1])
        assert two.payload(PATIENCE if mode == "bridge" else 0.2) == (b"between" if mode == "bridge" else b"")
        assert far.payload(0.2 if mode == "bridge" else PATIENCE) == (b"" if mode == "bridge" else b"between")
        far.send(b"reflected", source=macs[0], target=macs[1])
        assert two.payload() == b"reflected"
        far.send(b"to all", source=macs[0], target=BROADCAST)
        assert two.payload(PATIENCE if mode == "vepa" else 0.2) == (b"to all" if mode == "vepa" else b"")
    assert not check(node, "macvlan", conf, results[0])


@pytest.mark.parametrize("mac", ["", MAC])
def test_passthru_takes_the_parent_over(node: Node, mac: str) -> None:
    parent(node)
    before = node.links()[PARENT]
    assert before["promiscuity"] == 0
    conf = network(mode="passthru", mac=mac)
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    expected = mac or before["address"]
    during = node.links()[PARENT]
    assert (result["interfaces"][0]["mac"], during["address"]) == (expected, expected)
    assert during["promiscuity"] == 1
    assert ping(node, "c1", GW4)
    assert not check(node, "macvlan", conf, result)
    node.netns("c2")
    assert "failed to create macvlan" in refusal(node, "ADD", "macvlan", conf, netns="c2")["msg"]
    node.delete("macvlan", conf, netns="c1")
    after = node.links()[PARENT]
    assert (after["address"], after["promiscuity"]) == (before["address"], 0)


def test_an_unknown_mode_is_refused(node: Node) -> None:
    parent(node)
    node.netns("c1")
    answer = refusal(node, "ADD", "macvlan", network(mode="bridged"), netns="c1")
    assert (answer["code"], answer["msg"]) == (7, 'unknown macvlan mode: "bridged"')
    node.delete("macvlan", network(mode="bridged"), netns="c1")


def test_options_of_the_link(node: Node) -> None:
    parent(node)
    conf = network(mtu=1400, bcqueuelen=2000)
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    inside = node.links("c1")["eth0"]
    assert (inside["mtu"], result["interfaces"][0]["mtu"]) == (1400, 1400)
    shown = node.exec("c1", "ip", "-d", "link", "show", "eth0")
    assert "bcqueuelen 2000 usedbcqueuelen 2000" in shown
    assert not check(node, "macvlan", conf, result)
    assert "broadcast queue length 500" in check(node, "macvlan", {**conf, "bcqueuelen": 500}, result)


def test_the_most_particular_mac_is_taken(node: Node) -> None:
    parent(node)
    node.netns("c1")
    conf = network()
    for number, (key, value) in enumerate(
        (
            ("mac", "02:00:00:00:00:00"),
            ("args", ""),
            ("args", {"cni": {"mac": "02:00:00:00:00:02"}}),
            ("runtimeConfig", {"mac": "02:00:00:00:00:03"}),
        )
    ):
        conf[key] = value or {}
        given = "MAC=02:00:00:00:00:01" if number else ""
        result = node.add("macvlan", conf, netns="c1", args=given)
        assert result["interfaces"][0]["mac"] == f"02:00:00:00:00:0{number}"
        assert node.links("c1")["eth0"]["address"] == f"02:00:00:00:00:0{number}"
        node.delete("macvlan", conf, netns="c1", args=given)
    answer = refusal(node, "ADD", "macvlan", network(mac="01:00:5e:00:00:01"), netns="c1")
    assert (answer["code"], "unicast" in answer["msg"]) == (7, True)


def test_without_ipam_the_link_is_only_up(node: Node) -> None:
    parent(node)
    conf = network(ipam={}, dns={"nameservers": ["192.0.2.53"]})
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    assert set(result) == {"cniVersion", "interfaces", "dns"}
    mac = mac_bytes(result["interfaces"][0]["mac"])
    with Wire(node, "c1") as inside, Wire(node, "beyond", "far") as far:
        inside.send(b"out", source=mac)
        assert far.payload() == b"out"
    assert not check(node, "macvlan", conf, result)
    node.delete("macvlan", conf, netns="c1")
    assert left(node, "c1") == []


@pytest.mark.parametrize("version", SHAPES)
def test_each_shape_of_a_result(node: Node, version: str) -> None:
    parent(node)
    conf = network(cniVersion=version, ipam=ipam(V4))
    result = pods(node, conf, "c1", plugin="macvlan")[0]
    if version == "0.2.0":
        assert result == {"cniVersion": version, "ip4": {"ip": "10.77.0.2/24", "gateway": GW4}}
    else:
        interface = {"name": "eth0", "mac": node.links("c1")["eth0"]["address"], "sandbox": "/run/netns/c1"}
        ip = {"interface": 0, "address": "10.77.0.2/24", "gateway": GW4}
        assert result == {
            "cniVersion": version,
            "interfaces": [interface | ({"mtu": 1500} if version == "1.1.0" else {})],
            "ips": [ip | ({"version": "4"} if version.startswith("0.") else {})],
        }
    node.delete("macvlan", {**conf, "prevResult": result}, netns="c1")
    answer = node.cni("ADD", "macvlan", {**conf, "ipam": {}}, netns="c1")
    if version == "0.2.0":
        assert "no valid IP addresses" in answer[1]["msg"]
    else:
        assert answer[0] == 0
