"""For each remote node a route, a neighbour and an FDB entry: written in this order, removed in reverse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration.fleet import NETWORK, wait
from integration.keeper import Keeper
from integration.monitor import Monitor
from integration.underlay import Underlay, address
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.node import Node

DUAL = {
    "Network": NETWORK,
    "EnableIPv6": True,
    "IPv6Network": "fd00:244::/48",
    "Backend": {"Type": "vxlan"},
}
DEVICES = {4: "flannel.1", 6: "flannel-v6.1"}
WRITTEN = ["route", "neighbour", "fdb"]
REMOVED = ["-fdb", "-neighbour", "-route"]
ECHO = """
import socket
server = socket.create_server(("", 7000))
print("ready", flush=True)
connection, _ = server.accept()
while data := connection.recv(65536):
    connection.sendall(data)
"""
# Counts what was sent more than once: tcpi_total_retrans, linux/tcp.h.
TALK = """
import socket, struct, sys, time
connection = socket.create_connection((sys.argv[1], 7000), timeout=60)
for number in range(300):
    connection.sendall(bytes(1000))
    got = 0
    while got < 1000:
        got += len(connection.recv(1000))
    time.sleep(0.002)
print(struct.unpack_from("=I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0])
"""


@pytest.fixture(scope="module")
def underlay() -> Iterator[Underlay]:
    """A machine in one subnet and two in another."""
    with Underlay() as made:
        for place in ((1, 11), (2, 21), (2, 22)):
            made.join(*place)
        yield made


def gateway(number: int, family: int) -> str:
    return f"10.244.{number}.0" if family == 4 else f"fd00:244:0:{number}::"


def shown(node: Node) -> str:
    show = "; ".join(
        f"ip -{family} route; ip neigh show dev {device} nud permanent; bridge fdb show dev {device}"
        for family, device in DEVICES.items()
    )
    return node.run(["sh", "-c", show]).stdout.decode()


def test_a_node_joins_and_leaves(underlay: Underlay) -> None:
    one, other = underlay.machines[1, 11], underlay.machines[2, 21]
    with Keeper(one, DUAL, 11) as keeper, Keeper(other, DUAL, 21) as far, Monitor(one) as monitor:
        keeper.know(far)
        assert [monitor.take(device) for device in DEVICES.values()] == [WRITTEN, WRITTEN]
        monitor.forget()
        keeper.know()
        assert [monitor.take(device) for device in DEVICES.values()] == [REMOVED, REMOVED]


def test_a_full_pass_keeps_to_the_order(underlay: Underlay) -> None:
    """One that repairs, and one that removes the entries of a node that left while nobody looked."""
    one, other = underlay.machines[1, 11], underlay.machines[2, 21]
    with Keeper(other, DUAL, 21) as far, Monitor(one) as monitor:
        attrs = far.lease.attrs
        with Keeper(one, DUAL, 11) as keeper:
            keeper.know(far)
            before = shown(one)
            for family, device in DEVICES.items():
                data = attrs.backend_data if family == 4 else attrs.backend_v6_data
                there, mac = gateway(21, family), json.loads(data)["VtepMAC"]
                monitor.forget()
                commands = (
                    f"ip -{family} route del {there}/{24 if family == 4 else 64}",
                    f"ip neigh del {there} dev {device}",
                    f"bridge fdb del {mac} dev {device} dst {address(2, 21, family)}",
                )
                one.run(["sh", "-ec", "; ".join(commands)])
                wait(lambda: shown(one) == before)
                assert [entry for entry in monitor.take(device) if entry[0] != "-"] == WRITTEN
        monitor.forget()
        with Keeper(one, DUAL, 11, keeper.lease.attrs):
            assert [monitor.take(device) for device in DEVICES.values()] == [REMOVED, REMOVED]


def test_nothing_is_lost_where_another_node_joins_and_leaves(underlay: Underlay) -> None:
    """Pings and TCP to a node that stays; and the newcomer answers the first ping each time."""
    one, other, third = (underlay.machines[place] for place in ((1, 11), (2, 21), (2, 22)))
    with Keeper(one, DUAL, 11) as keeper, Keeper(other, DUAL, 21) as far, Keeper(third, DUAL, 22) as new:
        keeper.know(far)
        for each in (far, new):
            each.know(keeper)
        server = other.popen([sys.executable, "-ISuc", ECHO], stdout=subprocess.PIPE)
        assert server.stdout is not None
        with server.stdout as output:
            assert output.readline() == b"ready\n"
        talk = [sys.executable, "-ISc", TALK, gateway(21, 4)]
        pings = [["ping", "-q", "-i", "0.002", "-c", "300", gateway(21, family)] for family in DEVICES]
        started = [one.popen(command, stdout=subprocess.PIPE) for command in (talk, *pings)]
        for family in (4, 6) * 3:
            keeper.know(far, new)
            ping = ["ping", "-q", "-i", "0.01", "-c", "3", gateway(22, family)]
            assert lost(one.run(ping).stdout.decode()) == 0
            keeper.know(far)
        said = [process.communicate(timeout=PATIENCE)[0].decode() for process in started]
        assert said[0] == "0\n"
        assert [lost(text) for text in said[1:]] == [0, 0]


def lost(said: str) -> int:
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found is not None, said
    return int(found[1]) - int(found[2])
