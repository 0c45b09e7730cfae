"""What tests of portmap share: a node with pods on a bridge, an outside host, and traffic between them."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.node import Node

NODE4, NODE6 = "192.0.2.1", "2001:db8::1"
SECOND4 = "192.0.2.3"
OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8::2"
TIMEOUT = 60


def pod4(number: int) -> str:
    """Return a pod's address."""
    return f"10.244.1.{number}"


def pod6(number: int) -> str:
    """Return a pod's IPv6 address."""
    return f"fd00:10:244:1::{number:x}"


def build_network(node: Node) -> Node:
    """Make a bridge for pods and a link to the host `out`; return the node."""
    node.netns("out")
    script = f"""
ip link add uplink type veth peer name eth0 netns out
ip addr add {NODE4}/24 dev uplink
ip addr add {SECOND4}/24 dev uplink
ip addr add {NODE6}/64 dev uplink nodad
ip link set uplink up
ip link add cni0 type bridge
ip addr add {pod4(254)}/24 dev cni0
ip addr add {pod6(254)}/64 dev cni0 nodad
ip link set cni0 up
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""
    node.run(["sh", "-ec", script])
    outside = f"""
ip addr add {OUTSIDE4}/24 dev eth0
ip addr add {OUTSIDE6}/64 dev eth0 nodad
ip link set eth0 up
ip link set lo up
"""
    node.run(["sh", "-ec", outside], netns="out")
    return node


def make_pod(node: Node, number: int) -> str:
    """Attach a namespace to the bridge; return its name."""
    name = f"pod{number}"
    node.netns(name)
    script = f"""
ip link add p{number} master cni0 type veth peer name eth0 netns {name}
ip link set p{number} up
bridge link set dev p{number} hairpin on
"""
    # hairpin: with br_netfilter, the bridge itself sends a pod's packet to its own host port back
    node.run(["sh", "-ec", script])
    inside = f"""
ip addr add {pod4(number)}/24 dev eth0
ip addr add {pod6(number)}/64 dev eth0 nodad
ip link set eth0 up
ip link set lo up
ip route add default via {pod4(254)}
ip route add default via {pod6(254)}
"""
    node.run(["sh", "-ec", inside], netns=name)
    return name


def nat(node: Node) -> str:
    """What `iptables` shows of the table nat."""
    return node.run(["iptables", "-t", "nat", "-S"]).stdout.decode()


def conf(number: int, *mappings: dict[str, Any], families: str = "46", **keys: Any) -> dict[str, Any]:
    """Return portmap's configuration for a pod, with the result of what made its interface."""
    ips = []
    if "4" in families:
        ips.append({"address": f"{pod4(number)}/24", "interface": 1, "gateway": pod4(254)})
    if "6" in families:
        ips.append({"address": f"{pod6(number)}/64", "interface": 1})
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": f"/run/netns/pod{number}"}],
        "ips": ips,
    }
    return {
        "cniVersion": "1.0.0",
        "name": "net",
        "prevResult": previous,
        "runtimeConfig": {"portMappings": list(mappings)},
        **keys,
    }


def mapping(host: int, container: int, protocol: str = "tcp", **rest: Any) -> dict[str, Any]:
    """Return one of the capability `portMappings`."""
    return {"hostPort": host, "containerPort": container, "protocol": protocol, **rest}


@contextmanager
def server(node: Node, netns: str, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    """Answer each request at a port, on both families, with "NETNS PEER-ADDRESS"."""
    with node.entered(netns):
        listener = socket.socket(socket.AF_INET6, kind)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_DGRAM:  # answer from the address that was asked
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        listener.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            listener.listen()
    listener.settimeout(0.1)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                if kind == socket.SOCK_STREAM:
                    connection, peer = listener.accept()
                    with connection:
                        connection.sendall(f"{netns} {peer[0].removeprefix('::ffff:')}".encode())
                else:
                    _data, ancillary, _flags, peer = listener.recvmsg(100, 1000)
                    answer = f"{netns} {peer[0].removeprefix('::ffff:')}".encode()
                    listener.sendmsg([answer], ancillary, 0, peer)
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        listener.close()


def open_socket(node: Node, netns: str, to: str, kind: int) -> socket.socket:
    """Return a socket of a namespace, not connected yet."""
    with node.entered(netns):
        made = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind)
    made.settimeout(TIMEOUT)
    return made


def ask(node: Node, netns: str, to: str, port: int, kind: int = socket.SOCK_STREAM) -> str:
    """Send a request from a namespace ("": the node itself); return the answer."""
    with open_socket(node, netns, to, kind) as client:
        client.connect((to, port))
        if kind == socket.SOCK_DGRAM:
            client.send(b"?")
        return client.recv(100).decode()


def refused(node: Node, netns: str, to: str, port: int) -> bool:
    """Tell whether nobody listens at a port."""
    try:
        ask(node, netns, to, port)
    except ConnectionRefusedError:
        return True
    return False


def cni_rules(node: Node) -> str:
    """The rules that name a container, of both backends."""
    return "\n".join(
        line
        for line in node.ruleset().splitlines()
        if ("comment" in line and "CNI portmap" not in line) or "CNI-DN-" in line
    )


BACKENDS = ["nftables", "iptables"]


def nft_rules(node: Node, chain: str) -> list[int]:
    """Return the handles of a chain's rules."""
    listed = node.run(["nft", "--json", "list", "chain", "ip", "cni_hostport", chain]).stdout
    return [item["rule"]["handle"] for item in json.loads(listed)["nftables"] if "rule" in item]
