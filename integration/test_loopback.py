from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import check, ping, ptp, refusal
from integration.specification import SHAPES
from integration.sublinks import network, parent

if TYPE_CHECKING:
    from integration.node import Node


def loopback(version: str = "1.1.0", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "lo-net", **keys}


def is_up(node: Node, netns: str = "c1") -> bool:
    return "UP" in node.links(netns)["lo"]["flags"]


def test_it_is_up_and_down_again(node: Node) -> None:
    node.netns("c1")
    assert not is_up(node)
    node.add("loopback", loopback(), netns="c1", ifname="lo")
    assert is_up(node)
    assert ping(node, "c1", "127.0.0.1")
    assert ping(node, "c1", "::1")
    with node.entered("c1"), socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=60).close()
    for _time in range(2):
        node.delete("loopback", loopback(), netns="c1", ifname="lo")
        assert not is_up(node)


@pytest.mark.parametrize("version", SHAPES)
def test_result(node: Node, version: str) -> None:
    node.netns("c1")
    result = node.add("loopback", loopback(version), netns="c1", ifname="lo")
    if version == "0.2.0":
        assert result == {"cniVersion": version, "ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}}
        return
    ips = [{"interface": 0, "address": address} for address in ("127.0.0.1/8", "::1/128")]
    if version < "1.0.0":
        ips = [{**ip, "version": number} for ip, number in zip(ips, "46", strict=True)]
    lo = {"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/c1"}
    assert result == {"cniVersion": version, "interfaces": [lo], "ips": ips}


def test_result_without_ipv6(node: Node) -> None:
    node.netns("c1")
    node.exec("c1", "sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1")
    result = node.add("loopback", loopback(), netns="c1", ifname="lo")
    assert [ip["address"] for ip in result["ips"]] == ["127.0.0.1/8"]
    assert not check(node, "loopback", loopback(), result, ifname="lo")


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.0.0", "1.1.0"])
def test_prev_result_passes(node: Node, version: str) -> None:
    node.netns("c1")
    previous: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/c1"}],
        "ips": [{"interface": 0, "address": "10.77.0.2/24", "gateway": "10.77.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    if version == "0.4.0":
        previous["ips"][0]["version"] = "4"
    if version == "0.2.0":
        ip = {"ip": "10.77.0.2/24", "gateway": "10.77.0.1", "routes": [{"dst": "0.0.0.0/0"}]}
        previous = {"cniVersion": version, "ip4": ip, "dns": previous["dns"]}
    given = loopback(version, prevResult=previous)
    assert node.add("loopback", given, netns="c1", ifname="lo") == previous
    assert is_up(node)


def test_the_interfaces_name_is_lo_whatever_the_runtime_says(node: Node) -> None:
    node.netns("c1")
    result = node.add("loopback", loopback(), netns="c1", ifname="eth0")
    assert result["interfaces"][0]["name"] == "lo"
    assert is_up(node)
    assert list(node.links("c1")) == ["lo"]


@pytest.mark.parametrize(
    ("damage", "repair", "found"),
    [
        ("ip link set lo down", "ip link set lo up", "'lo' of the container is down"),
        (
            "ip address delete 127.0.0.1/8 dev lo",
            "ip address add 127.0.0.1/8 dev lo",
            "127.0.0.1/8 is missing",
        ),
    ],
)
def test_check(node: Node, damage: str, repair: str, found: str) -> None:
    node.netns("c1")
    result = node.add("loopback", loopback(), netns="c1", ifname="lo")
    assert not check(node, "loopback", loopback(), result, ifname="lo")
    node.exec("c1", *damage.split())
    assert found in check(node, "loopback", loopback(), result, ifname="lo")
    node.exec("c1", *repair.split())
    assert not check(node, "loopback", loopback(), result, ifname="lo")


@pytest.mark.parametrize("netns", ["", "/run/netns/gone"])
def test_del_without_a_namespace(node: Node, netns: str) -> None:
    node.delete("loopback", loopback(), netns=netns, ifname="lo")
    assert "UP" in node.links()["lo"]["flags"]


@pytest.mark.parametrize(("plugin", "conf"), [("ptp", ptp()), ("macvlan", network())])
def test_a_late_del_when_the_namespace_is_another_containers(
    node: Node, plugin: str, conf: dict[str, Any]
) -> None:
    """Its interface says so; what has no interface of ours is taken for one's own, as by the reference."""
    parent(node)
    node.netns("c1")
    for container in ("old", "new"):
        node.add("loopback", loopback(), netns="c1", ifname="lo", container=container)
    node.add(plugin, conf, netns="c1", container="new")
    node.delete("loopback", loopback(), netns="c1", ifname="lo", container="old")
    assert is_up(node)
    node.delete("loopback", loopback(), netns="c1", ifname="lo", container="new")
    assert not is_up(node)


def test_the_hosts_loopback_is_safe(node: Node) -> None:
    for verb in ("ADD", "DEL"):
        answer = refusal(node, verb, "loopback", loopback(), netns="/proc/self/ns/net", ifname="lo")
        assert answer["code"] == 8
    assert "UP" in node.links()["lo"]["flags"]


def test_add_to_a_namespace_that_is_gone(node: Node) -> None:
    answer = refusal(node, "ADD", "loopback", loopback(), netns="/run/netns/gone", ifname="lo")
    assert (answer["code"], "/run/netns/gone" in answer["msg"]) == (100, True)


def test_status_and_gc_have_nothing_to_say(node: Node) -> None:
    assert node.cni("STATUS", "loopback", loopback()) == (0, None)
    assert node.cni("GC", "loopback", {**loopback(), "cni.dev/valid-attachments": []}) == (0, None)
