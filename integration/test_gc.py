"""GC of pairs whose attachment is gone although the namespace is not (CNI 1.1.0, section 2, "GC")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import bridge, check, ipam, pods, ptp

if TYPE_CHECKING:
    from integration.node import Node

VALID = "cni.dev/valid-attachments"


def gc(node: Node, plugin: str, conf: dict[str, Any], *containers: str) -> None:
    """Run a GC that spares the interface eth0 of some containers."""
    valid = [{"containerID": each, "ifname": "eth0"} for each in containers]
    assert node.cni("GC", plugin, {**conf, VALID: valid}) == (0, None)


@pytest.mark.parametrize(("plugin", "conf"), [("bridge", bridge(ipMasq=True)), ("ptp", ptp(ipMasq=True))])
def test_pairs_without_an_attachment_go(
    node: Node, plugin: str, conf: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    result, _stale = pods(node, conf, "c1", "c2", plugin=plugin)
    # Same container, same interface; only the network tells them apart.
    other = {**conf, "name": "other", "bridge": "br1", "ipam": ipam("10.78.0.0/24")}
    node.add(plugin, other, container="c2", netns="c2", ifname="eth1")
    # Of another suite, one in a name like ours, and one of ours that lost its alias.
    node.run(["ip", "link", "add", "veth12345678", "type", "veth", "peer", "name", "theirs"])
    node.run(["ip", "link", "set", "theirs", "alias", "net:c2"])
    before = set(node.links())
    gc(node, plugin, conf, "c1")
    said = capfd.readouterr().err
    assert "eth0" not in node.links("c2")
    assert "eth1" in node.links("c2")
    (gone,) = before - set(node.links())
    assert f"removed the veth pair {gone} of c2 eth0" in said
    assert "a rule that masquerades (net: net, if: eth0, id: c2)" in said
    assert " c1 " not in said
    assert not check(node, plugin, conf, result)
    gc(node, plugin, conf, "c1")
    assert capfd.readouterr().err == ""
    assert before - set(node.links()) == {gone}


def test_a_name_too_long_for_an_alias_is_attached_all_the_same(node: Node) -> None:
    node.netns("c1")
    node.add("bridge", bridge(), container="c" * 250, netns="c1")
    gc(node, "bridge", bridge())
    assert "eth0" in node.links("c1")
    node.delete("bridge", bridge(), container="c" * 250, netns="c1")
    assert "eth0" not in node.links("c1")
