"""Checks of networks against each other."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conflist.findings import Spot
    from conflist.objects import Entry


class Network:
    """A list file's network.

    Attributes:
        spot: the top of its file.
        name: its name; empty when it has no valid one.
        version: the version of the specification it is run with.
        entries: its plugins, in the order of ADD.
    """

    def __init__(self, spot: Spot, name: str, version: str) -> None:
        self.spot = spot
        self.name = name
        self.version = version
        self.entries: list[Entry] = []


def compare(networks: Sequence[Network]) -> None:
    """Note what networks take from each other: names, subnets, bridges. The later file gets the finding."""
    for first, second in combinations(networks, 2):
        if first.name and first.name == second.name:
            second.spot.at("name").warning(
                f"{first.spot.file} has a network of this name too",
                "a runtime takes the first file in the order of names, lists before single plugins",
            )
            continue
        for mine in second.entries:
            for other in first.entries:
                _compare_subnets(mine, other, first.name)
                _compare_bridges(mine, other, first.name)


def _compare_subnets(mine: Entry, other: Entry, name: str) -> None:
    for stretch in mine.stretches:
        for taken in other.stretches:
            if stretch.subnet.overlaps(taken.subnet):
                stretch.spot.warning(
                    f"the subnet {stretch.subnet} overlaps {taken.subnet} of the network {name}",
                    f"give each network its own addresses; the other is at {taken.spot}",
                )


def _compare_bridges(mine: Entry, other: Entry, name: str) -> None:
    """Note two gateways on one bridge: the second one's address is refused."""
    if mine.bridge is None or other.bridge is None:
        return
    if (mine.bridge.bridge, mine.bridge.vlan) != (other.bridge.bridge, other.bridge.vlan):
        return
    if not (_is_gateway(mine) and _is_gateway(other)) or mine.bridge.force_address:
        return
    if {str(item.subnet) for item in mine.stretches} != {str(item.subnet) for item in other.stretches}:
        mine.spot.at("bridge").warning(
            f"the network {name} is the gateway of another subnet on the same bridge {mine.bridge.bridge!r}",
            f'give one of them another "bridge"; the other is at {other.spot}',
        )


def _is_gateway(entry: Entry) -> bool:
    assert entry.bridge is not None
    # flannel makes its delegate a gateway
    return entry.kind == "flannel" or entry.bridge.is_gateway or entry.bridge.is_default_gateway
