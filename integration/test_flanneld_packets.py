"""What the masquerade and forward rules make of packets, seen by those who receive them."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import ping
from integration.fleet import VXLAN, Fleet, Member
from integration.underlay import address
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from integration.node import Node

OUTSIDE = {4: "198.18.0.1", 6: "2001:db8:2::1"}
GROUP = {4: "239.1.2.3", 6: "ff05::1:3"}
SERVER = """
import socket
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(peer[0].removeprefix("::ffff:").encode())
    connection.close()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=60) as connection:
    print(connection.recv(100).decode())
"""
RECEIVER = """
import socket, struct, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
receiver = socket.socket(family, socket.SOCK_DGRAM)
receiver.bind(("", 7001))
receiver.settimeout(60)
group, index = socket.inet_pton(family, sys.argv[1]), struct.pack("=i", socket.if_nametoindex("lan1"))
if family == socket.AF_INET:
    receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + bytes(4) + index)
else:
    receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)
print("ready", flush=True)
for _ in range(2):
    data, peer = receiver.recvfrom(100)
    print(data.decode(), peer[0], flush=True)
"""
SENDER = """
import socket, struct, sys
source, group, alone = sys.argv[1:]
family = socket.AF_INET6 if ":" in source else socket.AF_INET
index = struct.pack("=i", socket.if_nametoindex("uplink"))
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.bind((source, 0))
    if family == socket.AF_INET:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + index)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sender.sendto(b"group", (group, 7001))
    sender.sendto(b"alone", (alone, 7001))
"""
MARKS = """
table inet marks
delete table inet marks
table inet marks {{
    chain prerouting {{
        type filter hook prerouting priority mangle
        tcp dport 7000 meta mark set {mark}
    }}
}}
"""


@pytest.fixture(params=["nftables", "iptables"], scope="module")
def fleet(request: pytest.FixtureRequest, suite_bin: str) -> Iterator[Fleet]:
    """Two machines with a pod each, and servers that tell who they see; the router knows the first's pods."""
    nftables = request.param == "nftables"
    config = {**VXLAN, "EnableIPv6": True, "IPv6Network": "fd00:244::/48", "EnableNFTables": nftables}
    with Fleet(suite_bin, config) as made:
        one, other, router = made.join(1, 11), made.join(2, 21), made.underlay.router
        made.start()
        for name, member in made.members.items():
            member.add_pod(name)
            serve(member.node, name)
        serve(router, "")
        for family in (4, 6):
            for target in (str(first(one, family).network), pod(other, family)):
                router.run(["ip", "route", "add", target, "via", address(1, 11, family)])
        yield made


family = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


def serve(node: Node, netns: str) -> None:
    """Start a server, and wait until it listens."""
    server = listen([sys.executable, "-ISuc", SERVER], node, netns)
    assert server.stdout is not None
    server.stdout.close()


def listen(command: Sequence[str], node: Node, netns: str = "") -> subprocess.Popen[bytes]:
    """Start a program, and wait until it is ready."""
    server = node.popen(command, netns, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return server


def seen(node: Node, target: str, netns: str = "") -> str:
    """Return which address a server sees a client at."""
    return node.run([sys.executable, "-ISc", CLIENT, target], netns=netns).stdout.decode().strip()


def first(member: Member, family: int) -> Any:
    """Return the address of a machine's bridge, with its length: the first of its subnet."""
    env = member.subnet_env()
    return ip_interface(env["FLANNEL_SUBNET" if family == 4 else "FLANNEL_IPV6_SUBNET"])


def gateway(member: Member, family: int) -> str:
    """Return the address of a machine's tunnel device."""
    return str(first(member, family).network.network_address)


def pod(member: Member, family: int) -> str:
    """Return the address of a machine's pod."""
    ((name, ipv4),) = member.pods.items()
    infos = member.node.links(name)["eth0"]["addr_info"]
    found = [info["local"] for info in infos if info["family"] == "inet6" and info["scope"] == "global"]
    return ipv4 if family == 4 else found[0]


@family
def test_pods_keep_their_address_in_the_cluster_and_get_the_nodes_outside(fleet: Fleet, family: int) -> None:
    one, other, router = fleet.members["node-11"], fleet.members["node-21"], fleet.underlay.router
    remote = pod(other, family)
    assert seen(one.node, OUTSIDE[family], "node-11") == address(1, 11, family)
    assert seen(one.node, remote, "node-11") == pod(one, family)
    # From the node itself: the device's address is in the cluster's network already.
    assert seen(one.node, remote) == gateway(one, family)
    # From outside to a pod of another machine by way of ours: masqueraded, so that answers come back here.
    assert seen(router, remote) == gateway(one, family)
    assert seen(router, pod(one, family)) == address(1, 1, family)


@family
def test_what_kube_proxy_has_marked_is_left_to_it(fleet: Fleet, family: int) -> None:
    one = fleet.members["node-11"]
    sources = {"0x4000": pod(one, family), "0xc001": pod(one, family), "0x8000": address(1, 11, family)}
    for mark, source in sources.items():
        one.node.run(["nft", "-f", "-"], stdin=MARKS.format(mark=mark).encode())
        assert seen(one.node, OUTSIDE[family], "node-11") == source
    one.node.run(["nft", "delete", "table", "inet", "marks"])


@family
def test_multicast_keeps_its_address(fleet: Fleet, family: int) -> None:
    """What an address of the cluster's sends from the node to a group and, by comparison, to one machine."""
    one, router = fleet.members["node-11"], fleet.underlay.router
    receiver = listen([sys.executable, "-ISuc", RECEIVER, GROUP[family]], router)
    source = str(first(one, family).ip)
    one.node.run([sys.executable, "-ISc", SENDER, source, GROUP[family], address(1, 1, family)])
    said = receiver.communicate(timeout=PATIENCE)[0].decode().splitlines()
    assert sorted(said) == [f"alone {address(1, 11, family)}", f"group {source}"]


def test_forward_rules_let_pass_what_others_would_drop(fleet: Fleet) -> None:
    """In iptables, where ours come before the policy; in nftables, what one table drops no other saves."""
    one, other = fleet.members["node-11"], fleet.members["node-21"]
    targets = [pod(other, family) for family in (4, 6)]
    iptables = "FLANNEL-FWD" in one.node.ruleset()
    assert "FLANNEL-FWD" in one.node.ruleset() or "chain forward" in one.node.ruleset()
    policy(one, "DROP")
    assert [ping(one.node, "node-11", target, wait=20 if iptables else 0.5) for target in targets] == [
        iptables
    ] * 2
    policy(one, "ACCEPT")
    one.stop()
    one.start([f"--etcd-endpoints={fleet.etcd.url}", *fleet.flags, "--iptables-forward-rules=false"])
    assert "FLANNEL-FWD" not in one.node.ruleset()
    assert "chain forward" not in one.node.ruleset()
    assert all(ping(one.node, "node-11", target) for target in targets)
    policy(one, "DROP")
    assert not any(ping(one.node, "node-11", target, wait=0.5) for target in targets)
    policy(one, "ACCEPT")


def policy(member: Member, verdict: str) -> None:
    """Say what becomes of forwarded packets that no rule of iptables matches."""
    for tool in ("iptables", "ip6tables"):
        member.node.run([tool, "-P", "FORWARD", verdict])
