"""The check of source MAC addresses on a real kernel."""

from __future__ import annotations

import json
import select
import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.attach import spoofcheck
from cni_plugins.kernel import notes
from cni_plugins.spec.errors import CheckFailedError, CNIError
from cni_plugins.spec.request import Request

if TYPE_CHECKING:
    from integration.node import Node

MAC = "02:00:00:00:00:05"
EMPTY = """\
table bridge nat {
	chain PREROUTING {
		type filter hook prerouting priority dstnat; policy accept;
	}
}
"""
FULL = """\
table bridge nat {
	chain PREROUTING {
		type filter hook prerouting priority dstnat; policy accept;
		iifname "pod" jump cni-br-iface-c1-eth0 comment "macspoofchk-c1-eth0"
	}

	chain cni-br-iface-c1-eth0 {
		jump cni-br-iface-c1-eth0-mac comment "macspoofchk-c1-eth0"
	}

	chain cni-br-iface-c1-eth0-mac {
		ether saddr 02:00:00:00:00:05 return comment "macspoofchk-c1-eth0"
		drop comment "macspoofchk-c1-eth0"
	}
}
"""


def request(command: str, container: str = "c1", network: str = "net") -> Request:
    env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0"}
    return Request(env, {"cniVersion": "1.1.0", "name": network, "prevResult": {"cniVersion": "1.1.0"}})


def add(node: Node, container: str = "c1", network: str = "net") -> None:
    with node.entered():
        spoofcheck.add(request("ADD", container, network), "pod", MAC)


def remove(node: Node) -> None:
    with node.entered():
        spoofcheck.remove(request("DEL"))


def test_the_ruleset_is_the_references(node: Node) -> None:
    remove(node)
    assert node.ruleset() == ""
    add(node)
    assert node.ruleset() == FULL
    add(node)
    assert node.ruleset() == FULL
    with node.entered():
        spoofcheck.check(request("CHECK"), "pod", MAC)
    remove(node)
    assert node.ruleset() == EMPTY
    remove(node)


def test_what_the_reference_made_is_removed(node: Node) -> None:
    """The reference sends JSON to nft."""
    name = "cni-br-iface-c1-eth0"
    common = {"family": "bridge", "table": "nat"}
    said = {"comment": "macspoofchk-c1-eth0"}
    saddr = {"payload": {"protocol": "ether", "field": "saddr"}}
    commands = [
        {"table": {"family": "bridge", "name": "nat"}},
        {
            "chain": {
                **common,
                "name": "PREROUTING",
                "type": "filter",
                "hook": "prerouting",
                "prio": -300,
                "policy": "accept",
            }
        },
        {"chain": {**common, "name": name}},
        {"chain": {**common, "name": f"{name}-mac"}},
        *(
            {"rule": {**common, **said, "chain": chain, "expr": expr}}
            for chain, expr in (
                (
                    "PREROUTING",
                    [
                        {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "pod"}},
                        {"jump": {"target": name}},
                    ],
                ),
                (name, [{"jump": {"target": f"{name}-mac"}}]),
                (f"{name}-mac", [{"match": {"op": "==", "left": saddr, "right": MAC}}, {"return": None}]),
                (f"{name}-mac", [{"drop": None}]),
            )
        ),
    ]
    text = json.dumps({"nftables": [{"add": command} for command in commands]})
    node.run(["nft", "-j", "-f", "-"], stdin=text.encode())
    assert node.ruleset() == FULL
    with node.entered():
        spoofcheck.check(request("CHECK"), "pod", MAC)
    remove(node)
    assert node.ruleset() == EMPTY


@pytest.mark.peer
def test_either_removes_what_the_other_made(peer_node: Node) -> None:
    peer_node.netns("c1")
    conf: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "net",
        "bridge": "br0",
        "macspoofchk": True,
        "ipam": {},
    }
    result = peer_node.add("bridge", conf, netns="c1")
    port, mac = result["interfaces"][1]["name"], result["interfaces"][2]["mac"]
    theirs = peer_node.ruleset()
    with peer_node.entered():
        spoofcheck.check(request("CHECK"), port, mac)
    remove(peer_node)
    assert peer_node.ruleset() == EMPTY
    with peer_node.entered():
        spoofcheck.add(request("ADD"), port, mac)
    assert peer_node.ruleset() == theirs
    peer_node.delete("bridge", conf, netns="c1")
    assert peer_node.ruleset() == EMPTY
    remove(peer_node)


@pytest.mark.parametrize("damage", [["x"], ["1"], []])
def test_a_damaged_note_is_not_believed(node: Node, damage: list[str]) -> None:
    add(node)
    with node.entered():
        notes.write("spoofcheck", ("net", "c1", "eth0"), damage)
    remove(node)
    assert node.ruleset() == EMPTY


def test_half_of_it_is_removed_too(node: Node) -> None:
    add(node)
    node.run(["nft", "flush", "chain", "bridge", "nat", "cni-br-iface-c1-eth0"])
    node.run(["nft", "delete", "chain", "bridge", "nat", "cni-br-iface-c1-eth0-mac"])
    with node.entered(), pytest.raises(CheckFailedError):
        spoofcheck.check(request("CHECK"), "pod", MAC)
    remove(node)
    assert node.ruleset() == EMPTY


@pytest.mark.parametrize(
    "broken",
    [
        ["flush", "chain", "bridge", "nat", "PREROUTING"],
        ["flush", "chain", "bridge", "nat", "cni-br-iface-c1-eth0-mac"],
        ["insert", "rule", "bridge", "nat", "cni-br-iface-c1-eth0-mac", "accept"],
    ],
)
def test_check_finds_what_was_broken(node: Node, broken: list[str]) -> None:
    add(node)
    node.run(["nft", *broken])
    with node.entered(), pytest.raises(CheckFailedError):
        spoofcheck.check(request("CHECK"), "pod", MAC)


def test_gc_removes_what_is_not_valid(node: Node) -> None:
    add(node)
    add(node, "c2")
    add(node, "c3", "other")
    with node.entered():
        spoofcheck.gc(request("GC"), {("c2", "eth0")})
    left = node.ruleset()
    assert [container in left for container in ("-c1-", "-c2-", "-c3-")] == [False, True, True]


def test_gc_goes_on_after_an_attachment_that_stays(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """The first and the last: in whatever order a folder lists its files, one comes before another."""
    containers = [f"c{number}" for number in range(5)]
    for container in containers:
        add(node, container)
    stuck = ("c0", "c4")
    for container in stuck:  # a chain that is in use cannot be deleted
        node.run(["nft", f"add rule bridge nat PREROUTING jump cni-br-iface-{container}-eth0"])
    with node.entered(), pytest.raises(CNIError, match=r"busy.*; .*busy"):
        spoofcheck.gc(request("GC"), set())
    left = node.ruleset()
    assert [each for each in containers if f"cni-br-iface-{each}-eth0-mac" in left] == list(stuck)
    said = capfd.readouterr().err
    assert [each for each in containers if f"check of {each} eth0" in said] == ["c1", "c2", "c3"]
    node.run(["nft", "flush chain bridge nat PREROUTING"])
    with node.entered():
        spoofcheck.gc(request("GC"), set())
        assert notes.attachments("spoofcheck") == []
    assert node.ruleset() == EMPTY


def test_a_forged_address_does_not_pass(node: Node) -> None:
    node.netns("pod")
    node.run(["ip", "link", "add", "br0", "type", "bridge"])
    node.run(["ip", "address", "add", "10.77.0.1/24", "dev", "br0"])
    node.run(["ip", "link", "add", "pod", "type", "veth", "peer", "eth0", "netns", "pod"])
    node.run(["ip", "link", "set", "pod", "master", "br0", "up"])
    node.run(["ip", "link", "set", "br0", "up"])
    node.exec("pod", "ip", "link", "set", "eth0", "address", MAC)
    node.exec("pod", "ip", "address", "add", "10.77.0.5/24", "dev", "eth0")
    node.exec("pod", "ip", "link", "set", "eth0", "up")
    add(node)
    assert arrives(node)
    node.exec("pod", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    assert not arrives(node)
    remove(node)
    assert arrives(node)


def arrives(node: Node) -> bool:
    """Tell whether a frame of the pod reaches the node, which is looked for while the pod sends and sends.

    Neighbour discovery that lost its first request to a busy machine takes a second to try again.
    """
    with node.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with node.entered("pod"):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("10.77.0.1", 9000))
        for _datagram in range(80):
            client.sendto(b"x", ("10.77.0.1", 9000))
            if select.select([server], [], [], 0.05)[0]:
                return True
    return False
