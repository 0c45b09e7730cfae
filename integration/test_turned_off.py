"""Rules of an option that was turned off after the ADD: DEL finds them by their note, GC by their network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import address_of, bridge, check, files, leftovers, pod_rules, pods, ptp

if TYPE_CHECKING:
    from integration.node import Node

VALID = "cni.dev/valid-attachments"
SPARED = [{"containerID": "c1", "ifname": "eth0"}]
CASES = pytest.mark.parametrize(
    ("plugin", "conf", "asked"),
    [
        ("bridge", bridge(), {"ipMasq": True, "macspoofchk": True}),
        ("bridge", bridge(), {"ipMasq": True, "ipMasqBackend": "iptables"}),
        ("ptp", ptp(), {"ipMasq": True}),
    ],
    ids=["bridge", "bridge with iptables", "ptp"],
)


def rules_of(node: Node, result: Any, container: str) -> list[str]:
    """Return the lines of the ruleset that name a container or its address."""
    address = address_of(result)
    named = (f"{address} ", f"{address}/", f"-{container}-eth0", f"id: {container}")
    return [line for line in pod_rules(node) if any(each in line for each in named)]


@CASES
def test_del(node: Node, plugin: str, conf: dict[str, Any], asked: dict[str, Any]) -> None:
    (result,) = pods(node, {**conf, **asked}, "c1", plugin=plugin)
    assert rules_of(node, result, "c1")
    node.delete(plugin, {**conf, "prevResult": result}, netns="c1")
    assert leftovers(node, "c1") == []


@CASES
def test_gc(node: Node, plugin: str, conf: dict[str, Any], asked: dict[str, Any]) -> None:
    kept, gone = pods(node, {**conf, **asked}, "c1", "c2", plugin=plugin)
    assert rules_of(node, gone, "c2")
    assert node.cni("GC", plugin, {**conf, VALID: SPARED}) == (0, None)
    assert rules_of(node, gone, "c2") == []
    assert [path for path in files(node) if ":c2:" in path] == []
    assert not check(node, plugin, {**conf, **asked}, kept)


def test_gc_finds_masquerade_without_a_note(node: Node) -> None:
    asked = ptp(ipMasq=True)
    kept, gone = pods(node, asked, "c1", "c2", plugin="ptp")
    node.run(["rm", "-r", "/run/cni/masquerade"])
    assert node.cni("GC", "ptp", {**ptp(), VALID: SPARED}) == (0, None)
    assert rules_of(node, gone, "c2") == []
    assert not check(node, "ptp", asked, kept)
