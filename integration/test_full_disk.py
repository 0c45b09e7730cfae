"""State folders on a filesystem that is full, or read-only: what is said, what is left, what still works."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration.checks import bridge, ipam, pods, ptp, refusal
from integration.dhcp import FOLDER, daemon, dnsmasq, lan, leased, network
from integration.flannel import flannel, write_subnet_env
from integration.waiting import until
from ipam.dhcp.notes import name_of
from prove import snapshot

if TYPE_CHECKING:
    from integration.node import Node
    from prove.snapshot import Snapshot

NOT_AVAILABLE = 50
WHY = {"full": "No space left on device", "read-only": "Read-only file system"}
RATES = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
DEVICES = ["uplink1", "uplink2"]
"""Of which each container is lent one, where the plugin lends them."""


class Stateful(NamedTuple):
    """A plugin: where it keeps what, and whether it is chained after a bridge."""

    plugin: str
    folder: str
    conf: dict[str, Any]
    chained: bool = True


PLUGINS = [
    Stateful("bridge", "/var/lib/cni", bridge(), chained=False),
    Stateful("bridge", "/run/cni", bridge(ipMasq=True, macspoofchk=True), chained=False),
    Stateful("ptp", "/run/cni", ptp(ipMasq=True), chained=False),
    Stateful("flannel", "/var/lib/cni/flannel", flannel(), chained=False),
    Stateful("host-device", "/run/cni", {"device": DEVICES[0], "ipam": ipam()}, chained=False),
    Stateful("portmap", "/run/cni", {"runtimeConfig": PORTS}),
    Stateful("firewall", "/run/cni", {}),
    Stateful("bandwidth", "/run/cni", RATES),
    Stateful("tuning", "/run/cni", {"mtu": 1400}),
]


def small(node: Node, folder: str) -> None:
    """Put a small filesystem in a folder's place."""
    node.run(["mkdir", "-p", folder])
    node.run(["mount", "-t", "tmpfs", "-o", "size=128k,nr_inodes=100,mode=755", "tmpfs", folder])


def spoil(node: Node, folder: str, how: str) -> None:
    """Leave not a block and not an inode, or no right to write."""
    if how == "read-only":
        node.run(["mount", "-o", "remount,ro", folder])
        return
    with suppress(OSError), open(node.path(f"{folder}/filler"), "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with suppress(OSError):
        for number in range(1000):
            with open(node.path(f"{folder}/filler{number}"), "xb"):
                pass


def repair(node: Node, folder: str, how: str) -> None:
    if how == "read-only":
        node.run(["mount", "-o", "remount,rw", folder])
    else:
        node.run(["sh", "-c", f"rm {folder}/filler*"])


def look(node: Node) -> Snapshot:
    """Look at the node, but for link-local addresses, which come and go in the kernel's own time."""
    with node.entered():
        found = snapshot.take()
    return {key: value for key, value in found.items() if not re.match(r"(route|address) .*fe80::", key)}


@pytest.mark.parametrize("how", WHY)
@pytest.mark.parametrize("each", PLUGINS, ids=lambda each: f"{each.plugin} {each.folder}")
def test_no_place_for_state(node: Node, each: Stateful, how: str) -> None:
    conf = {"cniVersion": "1.1.0", "name": "net", **each.conf}
    small(node, each.folder)
    if each.plugin == "flannel":
        write_subnet_env(node)
    previous: list[dict[str, Any]] = [{}, {}]
    if each.chained:
        previous = [{"prevResult": result} for result in pods(node, bridge(), "c1", "c2")]
    else:
        node.netns("c1")
        node.netns("c2")
    confs = [{**conf, **keys} for keys in previous]
    if "device" in conf:
        for lent, device in zip(confs, DEVICES, strict=True):
            node.run(["ip", "link", "add", device, "type", "veth", "peer", "name", f"{device}-far"])
            lent["device"] = device
    first = {"container": "c1", "netns": "c1"}
    second = {"container": "c2", "netns": "c2"}
    # What all containers share is there from now on.
    node.add(each.plugin, confs[0], **first)
    node.delete(each.plugin, confs[0], **first)
    clean = look(node)
    node.add(each.plugin, confs[0], **first)
    spoil(node, each.folder, how)
    before = look(node)

    answer = refusal(node, "ADD", each.plugin, confs[1], **second)
    assert each.folder in answer["msg"]
    assert WHY[how] in answer["msg"]
    assert snapshot.changes(before, look(node)) == []
    ready = refusal(node, "STATUS", each.plugin, conf)
    assert (ready["code"], each.folder in ready["msg"], WHY[how] in ready["msg"]) == (
        NOT_AVAILABLE,
        True,
        True,
    )

    if how == "full":
        node.delete(each.plugin, confs[0], **first)
    repair(node, each.folder, how)
    if how == "read-only":
        node.delete(each.plugin, confs[0], **first)
    assert snapshot.changes(clean, look(node)) == []
    assert node.cni("STATUS", each.plugin, conf) == (0, None)
    node.add(each.plugin, confs[1], **second)
    node.delete(each.plugin, confs[1], **second)
    assert snapshot.changes(clean, look(node)) == []


@pytest.mark.parametrize("how", WHY)
def test_no_place_for_word_to_the_dhcp_daemon(node: Node, how: str) -> None:
    """No daemon runs, and DEL cannot leave word: it fails, so that it is tried again."""
    small(node, FOLDER)
    lease = node.path(f"{FOLDER}/{name_of('c1', 'net', 'eth0')}")
    with open(lease, "wb") as file:
        file.write(b"{}")
    conf = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "dhcp"}}
    spoil(node, FOLDER, how)
    answer = refusal(node, "DEL", "dhcp", conf)
    assert (FOLDER in answer["msg"], WHY[how] in answer["msg"]) == (True, True)
    repair(node, FOLDER, how)
    node.delete("dhcp", conf)
    with open(f"{lease}.release", "rb") as file:
        assert file.read() == b""


def test_no_place_for_a_lease(node: Node) -> None:
    lan(node)
    small(node, FOLDER)
    with dnsmasq(node), daemon(node):
        pods(node, network(), "c1")
        spoil(node, FOLDER, "full")
        node.netns("c2")
        answer = refusal(node, "ADD", "bridge", network(), container="c2", netns="c2")
        assert (FOLDER in answer["msg"], WHY["full"] in answer["msg"]) == (True, True)
        ready = refusal(node, "STATUS", "bridge", {**network(), "cniVersion": "1.1.0"})
        assert (ready["code"], FOLDER in ready["msg"]) == (NOT_AVAILABLE, True)
        until(lambda: len(leased(node)) == 1)
        node.delete("bridge", network(), netns="c1")
        until(lambda: not leased(node))
