"""firewall in turn with the Go plugin, which knows iptables and firewalld."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.checks import OUTSIDE4, OUTSIDE6, dual_stack, files, ping, pods
from integration.firewalls import (
    blocked,
    choose_iptables,
    conf,
    drop_forwarded,
    iptables,
    reachable_outside,
)
from integration.node import PEER, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.peer


def tables(node: Node) -> list[list[str]]:
    return [iptables(node, family=family) for family in (4, 6)]


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_what_one_made_the_other_checks_and_deletes(node: Node, variant: str) -> None:
    choose_iptables(node, variant)
    reachable_outside(node)
    drop_forwarded(node)
    (result,) = pods(node, dual_stack(cniVersion="1.0.0"), "c1")
    given = conf(result, cniVersion="1.0.0", ingressPolicy="same-bridge")
    # Without a table yet, each makes the same
    made = []
    for folder in (PEER, node.plugins):
        node.add("firewall", given, netns="c1", plugins=folder)
        made.append(tables(node))
        node.delete("firewall", given, netns="c1", plugins=folder)
        for program in ("iptables", "ip6tables"):
            node.run([program, "-F"])
            node.run([program, "-X"])
    assert made[0] == made[1]
    bare: list[list[str]] = []
    for adder, deleter in ((PEER, node.plugins), (node.plugins, PEER)):
        node.add("firewall", given, netns="c1", plugins=adder)
        assert tables(node) == made[0]
        assert ping(node, "c1", OUTSIDE4)
        assert ping(node, "c1", OUTSIDE6)
        for side in (PEER, node.plugins):
            assert node.cni("CHECK", "firewall", given, netns="c1", plugins=side) == (0, None)
        node.delete("firewall", given, netns="c1", plugins=deleter)
        assert blocked(node, "c1")
        bare = bare or tables(node)
        assert tables(node) == bare
    # What ours noted for what theirs deleted is no harm, and goes
    node.delete("firewall", given, netns="c1")
    assert [path for path in files(node) if "/firewall" in path] == []


def test_a_list_that_both_serve_in_turn(node: Node) -> None:
    """Pods of the reference and of ours beside each other, on the same chains."""
    first, second = pods(node, dual_stack(cniVersion="1.0.0"), "c1", "c2")
    confs: Mapping[str, dict[str, object]] = {
        "c1": conf(first, cniVersion="1.0.0"),
        "c2": conf(second, cniVersion="1.0.0"),
    }
    node.add("firewall", confs["c1"], container="c1", netns="c1", plugins=PEER)
    node.add("firewall", confs["c2"], container="c2", netns="c2")  # by iptables, which has rules now
    assert len(iptables(node, "CNI-FORWARD")) == 2 + 2 * 2
    node.delete("firewall", confs["c2"], container="c2", plugins=PEER)
    # A second DEL of a pod whose address is another's by now takes nothing of it
    node.add("firewall", confs["c2"], container="c3", netns="c2")
    node.delete("firewall", confs["c2"], container="c2")
    assert len(iptables(node, "CNI-FORWARD")) == 2 + 2 * 2
    for name, given in (("c1", "c1"), ("c3", "c2")):
        node.delete("firewall", confs[given], container=name)
    assert len(iptables(node, "CNI-FORWARD")) == 2
    assert os.listdir(node.path("/run/cni/firewall")) == ["lock"]
