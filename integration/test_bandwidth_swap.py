"""bandwidth beside the reference's: the same queues, each removing what the other made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.bandwidths import EGRESS, IFB, INGRESS, LIMITS, bandwidth, qdiscs, untouched
from integration.checks import port_of
from integration.node import PEER
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node


@pytest.mark.peer
@pytest.mark.parametrize(("adder", "deleter"), [("theirs", "ours"), ("ours", "theirs")])
@pytest.mark.parametrize("keys", [LIMITS, INGRESS, EGRESS, {**INGRESS, "ingressRate": 123_456_789}])
def test_what_one_made_the_other_checks_and_deletes(
    node: Node, pod: Any, adder: str, deleter: str, keys: Any
) -> None:
    folders = {"ours": node.plugins, "theirs": PEER}
    conf = bandwidth({**pod, "cniVersion": "1.0.0"}, cniVersion="1.0.0", **keys)
    result = node.add("bandwidth", conf, netns="c1", plugins=folders[adder])
    assert len(result["interfaces"]) == 3 + ("egressRate" in keys)
    given = {**conf, "prevResult": result}
    for side in folders.values():
        assert node.cni("CHECK", "bandwidth", given, netns="c1", plugins=side) == (0, None)
    node.delete("bandwidth", given, netns="c1", plugins=folders[deleter])
    assert IFB not in node.links()
    if deleter == "ours":
        assert untouched(node, pod)


@pytest.mark.peer
def test_both_make_the_same(node: Node, pod: Any) -> None:
    seen = []
    for folder in (node.plugins, PEER):
        conf = bandwidth({**pod, "cniVersion": "1.0.0"}, cniVersion="1.0.0", **LIMITS)
        result = node.add("bandwidth", conf, netns="c1", plugins=folder)
        port = port_of(pod)
        shown = node.run(["tc", "filter", "show", "dev", port, "ingress"]).stdout.decode()
        # Theirs has the same action once more; what the first one has taken never comes to the second.
        filters = shown.partition("action order 2")[0].split()
        seen.append(
            (
                qdiscs(node, port),
                qdiscs(node, IFB),
                filters,
                [each["name"] for each in result["interfaces"]],
            )
        )
        node.delete("bandwidth", {**conf, "prevResult": result}, netns="c1")
        # An action's number is free again when a worker of the kernel's has taken it away.
        until(lambda: not node.run(["tc", "actions", "list", "action", "mirred"]).stdout.strip())
    for ours, theirs in zip(*seen, strict=True):
        assert ours == theirs
