"""The dhcp daemon killed at any moment, while containers come: none of its leases stays at the server."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from integration.dhcp import (
    BRIDGE,
    FOLDER,
    daemon,
    dnsmasq,
    ended,
    lan,
    leased,
    network,
    start_daemon,
)
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node

CONTAINERS = [f"c{number}" for number in range(6)]
KILLS = 4
SEED = 5


def test_killed_while_containers_come(node: Node) -> None:
    """They are deleted while no daemon runs, or by the next one; some have got an address, some have not."""
    lan(node)
    conf = network()
    # The interface of an ADD that failed is gone when its lease is released: the host does it.
    node.run(["ip", "address", "add", "10.77.0.2/24", "dev", BRIDGE])
    for name in CONTAINERS:
        node.netns(name)
    chance = random.Random(SEED)
    with dnsmasq(node), ThreadPoolExecutor(len(CONTAINERS)) as pool:
        for kill in range(KILLS):
            first = start_daemon(node)
            adding = [
                pool.submit(node.cni, "ADD", "bridge", conf, container=name, netns=name)
                for name in CONTAINERS
            ]
            time.sleep(chance.uniform(0.1, 0.6))
            ended(first)
            assert {each.result()[0] for each in adding} <= {0, 1}
            if kill % 2:
                delete_all(node)
            with daemon(node):
                if not kill % 2:
                    delete_all(node)
                until(lambda: not leased(node))
                until(lambda: os.listdir(node.path(FOLDER)) == ["lock"])


def delete_all(node: Node) -> None:
    for name in CONTAINERS:
        node.delete("bridge", network(), container=name, netns=name)
