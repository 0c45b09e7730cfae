"""Many pods come and go at once on one network: no address twice, no error, nothing left."""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.checks import (
    GW4,
    V4,
    V6,
    address_of,
    dual_stack,
    ipam,
    leftovers,
    ping,
    pod_rules,
    reservations,
)

if TYPE_CHECKING:
    from integration.node import Node

AT_ONCE = 200
# Run from its source the suite takes three times as long to start.
PODS = 200 if os.environ.get("SUITE_BIN") else 100
NETWORK = dual_stack(ipMasq=True, macspoofchk=True, ipam=ipam(V4, V6))


class Stay(NamedTuple):
    """An address, and when it was whose: from before the ADD's end to after the DEL's start."""

    address: str
    since: float
    until: float


def ports(number: int, **keys: Any) -> dict[str, Any]:
    mapping = {"hostPort": 20000 + number, "containerPort": 80, "protocol": "tcp"}
    return {"cniVersion": "1.1.0", "name": "net", "runtimeConfig": {"portMappings": [mapping]}, **keys}


class Storm:
    """Attaches and detaches pods by their numbers, each as a runtime would."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since: dict[int, float] = {}
        self.results: dict[int, Any] = {}
        self.stays: list[Stay] = []

    def add(self, number: int) -> None:
        how = {"container": f"pod{number}", "netns": f"pod{number}"}
        result = self._node.add("bridge", NETWORK, **how)
        self._since[number] = time.monotonic()
        self.results[number] = self._node.add("portmap", ports(number, prevResult=result), **how)

    def delete(self, number: int) -> None:
        how = {"container": f"pod{number}", "netns": f"pod{number}"}
        result = self.results.pop(number)
        until = time.monotonic()
        for position in range(len(result["ips"])):
            self.stays.append(Stay(address_of(result, position), self._since[number], until))
        self._node.delete("portmap", ports(number, prevResult=result), **how)
        self._node.delete("bridge", {**NETWORK, "prevResult": result}, **how)

    def come_and_perhaps_go(self, number: int) -> None:
        self.add(number)
        if number % 2:
            self.delete(number)


def twice_given(stays: list[Stay]) -> list[tuple[Stay, Stay]]:
    """Return the pairs of stays at one address that overlap."""
    ordered = sorted(stays)
    return [
        (one, two)
        for one, two in itertools.pairwise(ordered)
        if one.address == two.address and two.since < one.until
    ]


def test_pods_come_and_go_at_once(node: Node) -> None:
    names = [f"pod{number}" for number in range(PODS)]
    for name in names:
        node.netns(name)
    storm = Storm(node)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(storm.come_and_perhaps_go, range(PODS)))
        assert len(storm.results) == PODS // 2
        held = {address_of(result, position) for result in storm.results.values() for position in (0, 1)}
        assert len(held) == PODS
        assert reservations(node) == held
        staying = {name for name, link in node.links().items() if link.get("master") == "br0"}
        assert staying == {result["interfaces"][1]["name"] for result in storm.results.values()}
        rules = "\n".join(pod_rules(node))
        for number, result in storm.results.items():
            assert f"tcp dport {20000 + number} dnat to {address_of(result)}:80" in rules
        assert rules.count(" masquerade comment") >= PODS
        for number in sorted(storm.results)[:: PODS // 8]:
            assert ping(node, f"pod{number}", GW4)
            given = {**NETWORK, "prevResult": storm.results[number]}
            how = {"container": f"pod{number}", "netns": f"pod{number}"}
            assert node.cni("CHECK", "bridge", given, **how) == (0, None)
        list(pool.map(storm.delete, sorted(storm.results)))
    assert len(storm.stays) == 2 * PODS
    assert twice_given(storm.stays) == []
    assert leftovers(node, *names) == []
    assert set(node.links()) == {"lo", "br0"}
