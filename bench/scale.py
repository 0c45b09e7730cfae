"""The node daemon among thousands of nodes, which are leases in a real etcd that a script wrote.

The daemon and its kernel are real, and so is the time that it takes them; the other nodes do not exist.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import median
from typing import TYPE_CHECKING, Any

from flanneld.notices import ALL
from integration.etcd import SUBNETS
from integration.fleet import ETCD, Fleet, wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from integration.fleet import Member

CONFIG = {"Network": "10.0.0.0/8", "Backend": {"Type": "vxlan"}}
_FIRST_SUBNET = IPv4Address("10.128.0.0")
_FIRST_NODE = IPv4Address("198.19.0.0")
_BATCH = 100
"""Operations in one transaction of etcd's, which allows 128."""
_DEVICE = "flannel.1"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Scale:
    """What a cluster's size costs its nodes.

    Attributes:
        nodes: remote leases.
        start: seconds from the daemon's start to paths to all of them.
        burst: seconds from the first of as many leases written to a running daemon to its last path.
        join: milliseconds from one more lease to its last entry in the kernel, and its leaving; a median.
        leave: the same for a lease that is deleted.
        memory: MB of the daemon, resident.
        idle: CPU time per second when nothing happens, in percent.
    """

    nodes: int
    start: float
    burst: float
    join: float
    leave: float
    memory: float
    idle: float


def measure(nodes: int, *, joins: int, idle: float) -> Scale:
    """Measure a daemon in a cluster of some size.

    Args:
        nodes: how many there are besides its own.
        joins: how often one joins and leaves.
        idle: seconds to watch it do nothing.
    """
    with Fleet(config=CONFIG) as fleet:
        member = fleet.join(1, 11)
        leases = [lease(number) for number in range(nodes)]
        with _gateway(fleet) as etcd:
            etcd.put(leases)
            began = time.monotonic()
            fleet.start(member)
            wait(lambda: paths_of(member) == (nodes, nodes), 120)
            start = time.monotonic() - began
            etcd.delete([key for key, _ in leases])
            wait(lambda: paths_of(member) == (0, 0), 120)
            began = time.monotonic()
            etcd.put(leases)
            wait(lambda: paths_of(member) == (nodes, nodes), 120)
            burst = time.monotonic() - began
            newcomer = lease(nodes)
            times = [_turn(etcd, member, newcomer) for _ in range(joins)]
        time.sleep(2)
        before, then = cpu_of(member), time.monotonic()
        time.sleep(idle)
        share = (cpu_of(member) - before) / (time.monotonic() - then)
        return Scale(
            nodes,
            start,
            burst,
            median(joining for joining, _ in times) * 1000,
            median(leaving for _, leaving in times) * 1000,
            memory_of(member),
            share * 100,
        )


class _Gateway:
    """etcd by its JSON gateway: no process is started while the clock runs."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def put(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._batches(
            [{"requestPut": {"key": _base64(key), "value": _base64(value)}} for key, value in pairs]
        )

    def delete(self, keys: Sequence[str]) -> None:
        self._batches([{"requestDeleteRange": {"key": _base64(key)}} for key in keys])

    def _batches(self, operations: Sequence[dict[str, Any]]) -> None:
        for first in range(0, len(operations), _BATCH):
            body = json.dumps({"success": operations[first : first + _BATCH]})
            self._connection.request("POST", "/v3/kv/txn", body)
            answer = self._connection.getresponse()
            said = answer.read()
            assert answer.status == http.client.OK, said


@contextmanager
def _gateway(fleet: Fleet) -> Iterator[_Gateway]:
    connection = http.client.HTTPConnection(ETCD, 2379, timeout=30)
    with fleet.underlay.router.entered():
        connection.connect()
    try:
        yield _Gateway(connection)
    finally:
        connection.close()


def _turn(etcd: _Gateway, member: Member, lease: tuple[str, str]) -> tuple[float, float]:
    """Let a node join and leave; return how long its FDB entry took to come, and its route to go."""
    with member.node.entered():
        notices = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with notices:
        notices.bind((0, ALL))
        notices.settimeout(30)
        began = time.monotonic()
        etcd.put([lease])
        joined = _hear(notices, _NEW_NEIGHBOUR, IPv4Address(json.loads(lease[1])["PublicIP"])) - began
        began = time.monotonic()
        etcd.delete([lease[0]])
        subnet = IPv4Address(lease[0].removeprefix(SUBNETS).partition("-")[0])
        return joined, _hear(notices, _DELETED_ROUTE, subnet) - began


_NEW_NEIGHBOUR = 28
_DELETED_ROUTE = 25
"""RTM_NEWNEIGH, which is also an FDB entry's, and RTM_DELROUTE (linux/rtnetlink.h): the last of a path."""


def _hear(notices: socket.socket, kind: int, address: IPv4Address) -> float:
    """Return the time at which the kernel tells of an entry with this address."""
    while True:
        data = notices.recv(1 << 16)
        heard = time.monotonic()
        if int.from_bytes(data[4:6], "little") == kind and address.packed in data:
            return heard


def lease(number: int) -> tuple[str, str]:
    """Return the key and the value of a node's lease."""
    subnet = _FIRST_SUBNET + (number << 8)
    mac = bytes((2, 0, *number.to_bytes(4, "big"))).hex(":")
    value = {
        "PublicIP": str(_FIRST_NODE + number + 1),
        "PublicIPv6": None,
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": mac},
    }
    return f"{SUBNETS}{subnet}-24", json.dumps(value)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def paths_of(member: Member) -> tuple[int, int]:
    """Count the routes by the tunnel and its FDB entries."""
    node = member.node
    routes = node.run(["ip", "route", "show", "dev", _DEVICE], check=False).stdout.count(b" via ")
    entries = node.run(["bridge", "fdb", "show", "dev", _DEVICE], check=False).stdout.count(b" dst ")
    return routes, entries


def cpu_of(member: Member) -> float:
    """Return the daemon's CPU time in seconds: fields 14 and 15 of /proc/PID/stat, proc(5)."""
    assert member.daemon is not None
    with open(f"/proc/{member.daemon.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_of(member: Member) -> float:
    """Return the daemon's resident memory in MB."""
    assert member.daemon is not None
    with open(f"/proc/{member.daemon.pid}/status", encoding="ascii") as file:
        found = next(line for line in file if line.startswith("VmRSS:"))
    return int(found.split()[1]) / 1024
