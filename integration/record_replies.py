"""Records what a kernel says to each reader of tests/hostile_replies.py.

`python -m integration.record_replies` writes tests/kernel_replies.txt: a line a reader, the
datagrams in hexadecimal, `,` between those of one answer and `;` between the answers to one request
and the next.
"""

from __future__ import annotations

import shlex
import struct
import sys
from typing import TYPE_CHECKING

from cni_plugins.kernel import link, nlattr
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.nfnetlink import Netfilter
from integration.node import Node
from tests.hostile_replies import FILE, READERS
from tests.kernel_readers import HEADER, INDEX, renumbered

if TYPE_CHECKING:
    import _socket

_REDIRECT = """tc filter add dev eth0 parent ffff: protocol all prio 1
    u32 match u32 0 0 action mirred egress redirect dev veth1"""
_VLANS = ((6, 1), (8, 10), (16, 12))
_VLAN_PORT = (
    link.header(INDEX, family=7)
    + nlattr.attr_str(link.IFLA_IFNAME, "eth0")
    + nlattr.nested(26, *(nlattr.attr(2, struct.pack("=HH", flags, vlan)) for flags, vlan in _VLANS))
)
"""What a bridge says of a port; not every kernel has VLAN filtering."""
_NETFILTER = ("nft", "conntrack")


class Recording:
    """A socket that notes what it receives."""

    def __init__(self, inner: _socket.socket) -> None:
        self._inner = inner
        self._first = 0
        self.exchanges: list[list[bytes]] = []

    def send(self, data: bytes) -> int:
        self._first = HEADER.unpack_from(data)[3]
        self.exchanges.append([])
        return self._inner.send(data)

    def recv_into(self, buffer: bytearray) -> int:
        size = self._inner.recv_into(buffer)
        self.exchanges[-1].append(renumbered(bytes(buffer[:size]), -self._first))
        return size

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def prepare(node: Node) -> None:
    """Make something to read of every kind."""
    for line in (
        "ip link add eth0 index 2 type veth peer name veth1 index 3",
        "ip link set eth0 up alias net:c1",
        "ip link set veth1 up",
        "ip address add 10.1.2.3/24 dev eth0",
        "ip address add fd00::3/64 dev eth0 nodad",
        "ip route add default via 10.1.2.1 dev eth0 mtu lock 1400 advmss 1300",
        "ip route add 10.9.0.0/16 via 10.1.2.1 dev eth0 table 100",
        "ip -6 route add default via fd00::1 dev eth0 metric 5",
        "ip rule add from 10.1.2.3 table 100",
        "ip neighbour add 10.1.2.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
        "ip link add vxlan type vxlan id 1 local 10.1.2.3 dev eth0 dstport 8472 nolearning",
        "tc qdisc add dev eth0 root tbf rate 1mbit burst 10kb limit 20kb",
        "tc qdisc add dev eth0 ingress",
        _REDIRECT,
        "nft add table inet cni",
        "nft add chain inet cni pods '{ type filter hook forward priority 0; policy drop; }'",
        "nft add rule inet cni pods ip saddr 10.1.2.3 tcp dport 80 accept comment c1",
        "nft add set inet cni known '{ type ipv4_addr; }'",
        "nft add element inet cni known '{ 10.1.2.3 comment c1 }'",
        "conntrack -I -p udp -s 10.1.2.9 -d 10.1.2.3 --sport 1 --dport 5353 -t 60",
    ):
        node.run(shlex.split(line))


def record(name: str) -> list[list[bytes]]:
    """Let a reader read; return what it was told."""
    with Netfilter() if name.startswith(_NETFILTER) else Netlink() as nl:
        inner = nl._socket
        recording = Recording(inner)
        nl._socket = recording  # type: ignore[assignment]
        try:
            READERS[name](nl)
        except OSError as error:
            sys.stderr.write(f"{name}: {error}\n")
        nl._socket = inner
    return recording.exchanges


def main() -> None:
    """Record everything."""
    with Node() as node:
        prepare(node)
        with node.entered(), open(FILE, "w", encoding="ascii") as file:
            for name in READERS:
                exchanges = record(name)
                if name == "bridgeport.vlans":
                    message = HEADER.pack(16 + len(_VLAN_PORT), link.RTM_NEWLINK, 2, 0, 0) + _VLAN_PORT
                    exchanges[0].insert(0, message)
                text = ";".join(",".join(datagram.hex() for datagram in each) for each in exchanges)
                file.write(f"{name}\t{text}\n")


if __name__ == "__main__":
    main()
