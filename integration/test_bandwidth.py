"""bandwidth: how it paces packets, and its place in a list of plugins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from integration.bandwidths import (
    IFB,
    LIMITS,
    MBIT,
    bandwidth,
)
from integration.checks import address_of, bridge, check, leftovers, pods, ptp
from integration.shaping import Limit, Paced, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.node import Node


def holds(node: Node, limit: Limit, pod: Any, direction: str, size: int = 1400) -> Paced:
    """Assert that a limit lets its burst pass, and the rest at its rate; return how a burst was paced."""
    paced = send(node, limit, *WAYS[direction](pod), size)
    assert paced.excess(limit) < limit.burst / 10 + 2 * paced.size
    assert paced.rate == pytest.approx(limit.rate, rel=0.1)
    return paced


WAYS: dict[str, Callable[[Any], tuple[str, str, str]]] = {
    "ingress": lambda pod: (address_of(pod), "", "c1"),
    "egress": lambda pod: (pod["ips"][0]["gateway"], "c1", ""),
}
"""The target's address, the sender and the receiver of each direction."""


@pytest.mark.parametrize("direction", WAYS)
def test_a_rate_holds(node: Node, pod: Any, direction: str) -> None:
    limit = Limit(10 * MBIT, 2 * MBIT)
    assert send(node, limit, *WAYS[direction](pod)).rate > 10 * limit.rate
    keys = {f"{direction}Rate": limit.rate, f"{direction}Burst": limit.burst}
    node.add("bandwidth", bandwidth(pod, **keys), netns="c1")
    holds(node, limit, pod, direction)
    (other,) = {*WAYS} - {direction}
    assert send(node, limit, *WAYS[other](pod)).rate > 10 * limit.rate


@pytest.mark.parametrize("direction", WAYS)
def test_a_rate_of_a_gigabit_holds(node: Node, pod: Any, direction: str, record_property: Any) -> None:
    """Where the machine sends slower than that nothing waits, and more than the limit must not pass."""
    limit = Limit(1000 * MBIT, 10 * MBIT)
    keys = {f"{direction}Rate": limit.rate, f"{direction}Burst": limit.burst}
    node.add("bandwidth", bandwidth(pod, **keys), netns="c1")
    paced = send(node, limit, *WAYS[direction](pod), 60_000)
    assert paced.excess(limit) < limit.burst / 10 + 2 * paced.size
    assert paced.rate == math.inf or paced.rate == pytest.approx(limit.rate, rel=0.1)
    record_property("rate", f"{paced.rate / MBIT:.0f} Mbit/s of {len(paced.queued)} that waited")


def test_both_directions_over_ptp(node: Node) -> None:
    result = pods(node, ptp(), "c1", plugin="ptp")[0]
    node.add("bandwidth", bandwidth(result, **LIMITS), netns="c1")
    for direction in WAYS:
        holds(node, Limit(LIMITS[f"{direction}Rate"], LIMITS[f"{direction}Burst"]), result, direction)


def test_a_list_of_several_plugins(node: Node, pod: Any) -> None:
    """Each plugin's CHECK is given the result of the last one."""
    changes = {"mac": "c2:11:22:33:44:55", "mtu": 1400, "txQLen": 200}
    result = node.add("tuning", bandwidth(pod, **changes), netns="c1")
    result = node.add("bandwidth", bandwidth(result, **LIMITS), netns="c1")
    result = node.add("sbr", bandwidth(result), netns="c1")
    for plugin, conf in (
        ("bridge", bridge()),
        ("tuning", bandwidth(None, **changes)),
        ("bandwidth", bandwidth(None, **LIMITS)),
        ("sbr", bandwidth(None)),
    ):
        assert check(node, plugin, conf, result) == ""
    for plugin, keys in (("sbr", {}), ("bandwidth", LIMITS), ("tuning", changes)):
        node.delete(plugin, bandwidth(result, **keys), netns="c1")
    node.delete("bridge", {**bridge(), "prevResult": result}, netns="c1")
    assert leftovers(node, "c1") == []
    assert IFB not in node.links()
