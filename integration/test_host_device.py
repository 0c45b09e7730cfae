"""host-device: what is lent comes home as it was. Veths stand for hardware."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import GW4, V4, V6, check, files, ipam, ping, pods, refusal, reservations
from integration.node import PEER
from integration.sublinks import PARENT, parent
from integration.waiting import PATIENCE, until

if TYPE_CHECKING:
    from integration.node import Node


MAC = "02:00:00:00:00:07"


def lent(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "device": PARENT, "ipam": ipam(V4, V6), **keys}


def test_an_interface_is_lent_and_comes_home_as_it_was(node: Node) -> None:
    parent(node)
    node.run(["ip", "link", "set", PARENT, "alias", "of old"])
    before = node.links()[PARENT]
    result = pods(node, lent(), "c1", plugin="host-device")[0]
    inside = node.links("c1")["eth0"]
    assert (inside["ifalias"], inside["address"], PARENT in node.links()) == (
        PARENT,
        before["address"],
        False,
    )
    assert result["interfaces"][0]["mac"] == before["address"]
    assert ping(node, "c1", GW4)
    assert not check(node, "host-device", lent(), result)
    node.exec("c1", "ip", "link", "set", "eth0", "down")
    assert "is down" in check(node, "host-device", lent(), result)
    for _time in range(2):
        node.delete("host-device", lent(), netns="c1")
        after = node.links()[PARENT]
        assert (after["ifalias"], "UP" in after["flags"]) == ("of old", True)
    assert set(node.links("c1")) == {"lo"}
    assert reservations(node) == set()


def test_one_that_was_renamed_in_the_container_comes_home(node: Node) -> None:
    parent(node)
    pods(node, lent(), "c1", plugin="host-device")
    node.exec("c1", "ip", "link", "set", "eth0", "down")
    node.exec("c1", "ip", "link", "set", "eth0", "name", "renamed")
    node.exec("c1", "ip", "link", "add", "eth0", "type", "bridge")  # what has its name now is another
    for _time in range(2):
        node.delete("host-device", lent(), netns="c1")
        assert "UP" in node.links()[PARENT]["flags"]
    assert set(node.links("c1")) == {"lo", "eth0"}
    assert reservations(node) == set()


def test_an_address_is_given_back_when_its_interface_is_home(node: Node) -> None:
    """Nobody may get it while it still answers."""
    parent(node)
    pods(node, lent(), "c1", plugin="host-device")
    held = reservations(node)
    with (
        open(node.path("/var/lib/cni/networks/net/lock"), "rb") as lock,
        ThreadPoolExecutor() as other,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        ending = other.submit(node.delete, "host-device", lent(), netns="c1")
        until(lambda: PARENT in node.links())
        assert reservations(node) == held
        fcntl.flock(lock, fcntl.LOCK_UN)
        ending.result(PATIENCE)
    assert reservations(node) == set()


@pytest.mark.parametrize("gone", [False, True])
def test_by_mac_and_a_name_taken_meanwhile(node: Node, capfd: pytest.CaptureFixture[str], gone: bool) -> None:
    """The container's interface of that name is no matter; the host's is, and stays."""
    parent(node)
    mac = node.links()[PARENT]["address"]
    conf = lent(device="", hwaddr=mac.upper())
    pods(node, conf, "c1", plugin="host-device")
    node.exec("c1", "ip", "link", "add", PARENT, "type", "veth", "peer", "name", "x")
    node.run(["ip", "link", "add", PARENT, "type", "veth", "peer", "name", "other"])
    if gone:
        fall(node, "dev0")
    node.delete("host-device", conf, netns="c1")
    home = [name for name, each in node.links().items() if each["address"] == mac]
    assert home == ["dev0"]
    assert node.links()["dev0"]["ifalias"] == PARENT
    said = f"{PARENT} is another interface by now; the one that was lent is dev0\n"
    assert capfd.readouterr().err.count(said) == 1
    assert files(node) == set()


def fall(node: Node, name: str) -> None:
    """Do what the kernel does with hardware when its namespace goes; a veth would go with it."""
    node.exec("c1", "ip", "link", "set", "eth0", "down")
    node.exec("c1", "ip", "link", "set", "eth0", "netns", str(node.pid), "name", name)
    node.remove_netns("c1")


@pytest.mark.parametrize(("key", "name"), [("device", "eth0"), ("hwaddr", "eth0"), ("kernelpath", "dev7")])
def test_one_that_fell_back_and_has_no_note(node: Node, key: str, name: str) -> None:
    """As after an ADD of the reference's. What an administrator gave an alias keeps its name."""
    parent(node)
    node.run(["mount", "-t", "tmpfs", "devices", "/sys/devices"])
    node.run(["mkdir", "-p", f"/sys/devices/card/net/{PARENT}"])
    values = {"device": PARENT, "hwaddr": node.links()[PARENT]["address"], "kernelpath": "/sys/devices/card"}
    conf = lent(**{"device": "", key: values[key]})
    pods(node, conf, "c1", plugin="host-device")
    for file in files(node):
        if "/host-device/" in file:
            os.unlink(node.path(file))
    fall(node, name)
    node.run(["mv", f"/sys/devices/card/net/{PARENT}", f"/sys/devices/card/net/{name}"])
    node.delete("host-device", conf, netns="c1")
    assert "ifalias" not in node.links()[PARENT]
    assert name not in node.links()
    node.run(["mv", f"/sys/devices/card/net/{name}", f"/sys/devices/card/net/{PARENT}"])
    node.run(["ip", "link", "set", PARENT, "alias", "lan7"])
    node.delete("host-device", conf, netns="c1")
    assert node.links()[PARENT]["ifalias"] == "lan7"


@pytest.mark.parametrize(
    ("keys", "alias"), [({"device": PARENT}, "other"), ({"device": "", "hwaddr": MAC}, "net:c1")]
)
def test_without_a_note_an_alias_of_something_else_says_no(node: Node, keys: Any, alias: str) -> None:
    """A link of that name in the container was never lent: it stays there."""
    node.netns("c1")
    node.exec("c1", *f"ip link add eth0 address {MAC} type veth peer name x".split())
    node.exec("c1", "ip", "link", "set", "eth0", "alias", alias)
    node.delete("host-device", lent(**keys), netns="c1")
    assert node.links("c1")["eth0"]["ifalias"] == alias


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("name", ["eth0", "dev7"])
def test_an_interface_that_fell_back_gets_its_name(
    node: Node, capfd: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    """GC, which nobody asked about it, says so."""
    parent(node)
    pods(node, lent(), "c1", plugin="host-device")
    fall(node, name)
    if verb == "DEL":
        node.delete("host-device", lent(), netns="c1")
    else:
        for _turn in range(2):
            assert node.cni("GC", "host-device", lent(**{"cni.dev/valid-attachments": []})) == (0, None)
    said = f"GC of network net: brought {PARENT} home, which was lent to c1 eth0\n"
    assert capfd.readouterr().err.count(said) == (verb == "GC")
    assert "ifalias" not in node.links()[PARENT]
    assert name not in node.links()


def test_a_failed_add_brings_it_home(node: Node) -> None:
    parent(node)
    node.netns("c1")
    conf = lent(ipam=ipam(V4, routes=[{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]))
    refusal(node, "ADD", "host-device", conf, netns="c1")
    assert PARENT in node.links()
    answer = refusal(node, "ADD", "host-device", lent(hwaddr="02:00:00:00:00:01"), netns="c1")
    assert (answer["code"], "exactly one of" in answer["msg"]) == (7, True)
    node.delete("host-device", lent(hwaddr="02:00:00:00:00:01"), netns="c1")
    assert reservations(node) == set()


@pytest.mark.peer
@pytest.mark.parametrize("ours_first", [True, False])
def test_either_suite_brings_home_what_the_other_lent(node: Node, *, ours_first: bool) -> None:
    parent(node)
    sides = [node.plugins, PEER] if ours_first else [PEER, node.plugins]
    conf = lent(cniVersion="1.0.0")
    result = pods(node, conf, "c1", plugin="host-device", plugins=sides[0])[0]
    for side in sides:
        assert not check(node, "host-device", conf, result, plugins=side)
    node.delete("host-device", conf, netns="c1", plugins=sides[1])
    assert PARENT in node.links()
    assert set(node.links("c1")) == {"lo"}


def test_status(node: Node) -> None:
    """An interface that a container has is still in the machine; what sysfs does not have is not."""
    parent(node)
    for conf in (lent(), lent(device="", capabilities={"deviceID": True})):
        assert node.cni("STATUS", "host-device", conf) == (0, None)
    pods(node, lent(), "c1", plugin="host-device")
    assert node.cni("STATUS", "host-device", lent()) == (0, None)
    for conf, said in (
        (lent(device=""), "exactly one of"),
        (lent(hwaddr="02:00:00:00:00:01"), "exactly one of"),
        (lent(device="", pciBusID="0000:ff:1f.7"), "no PCI device 0000:ff:1f.7"),
        (lent(device="", kernelpath="/sys/devices/none"), "nothing at '/sys/devices/none'"),
        (lent(ipam={"type": "no-local"}), "'no-local'"),
    ):
        answer = refusal(node, "STATUS", "host-device", conf)
        assert (answer["code"], said in answer["msg"]) == (50, True), answer
