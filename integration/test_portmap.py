"""portmap with real traffic: a node, an outside host and pods on a bridge, all in namespaces of the test."""

from __future__ import annotations

import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from integration.node import PEER, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE4, NODE6 = "192.0.2.1", "2001:db8::1"
SECOND4 = "192.0.2.3"
OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8::2"
TIMEOUT = 3


def pod4(number: int) -> str:
    return f"10.244.1.{number}"


def pod6(number: int) -> str:
    return f"fd00:10:244:1::{number:x}"


@pytest.fixture
def net(node: Node) -> Node:
    """The node with a bridge for pods and a link to an outside host, which are made by hand here."""
    build_network(node)
    return node


def build_network(node: Node) -> None:
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


def make_pod(node: Node, number: int) -> str:
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_traffic(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(8080, 80), mapping(5300, 53, "udp"), backend=backend)
    answer = net.add("portmap", given, netns=pod)
    assert answer == given["prevResult"]
    with server(net, pod, 80), server(net, pod, 53, socket.SOCK_DGRAM):
        for kind, port in ((socket.SOCK_STREAM, 8080), (socket.SOCK_DGRAM, 5300)):
            assert ask(net, "out", NODE4, port, kind) == f"{pod} {OUTSIDE4}"
            assert ask(net, "out", NODE6, port, kind) == f"{pod} {OUTSIDE6}"
            assert ask(net, "", NODE4, port, kind).startswith(f"{pod} ")
            assert ask(net, "", "127.0.0.1", port, kind) == f"{pod} {pod4(254)}"
            # hairpin: from the pod to its own host port
            assert ask(net, pod, NODE4, port, kind) == f"{pod} {pod4(254)}"
            assert ask(net, pod, NODE6, port, kind) == f"{pod} {pod6(254)}"
        net.cni("CHECK", "portmap", given, netns=pod)
        assert net.cni("CHECK", "portmap", given, netns=pod) == (0, None)
    net.delete("portmap", given, netns=pod)
    assert cni_rules(net) == ""
    assert refused(net, "out", NODE4, 8080)
    net.delete("portmap", given, netns=pod)


@pytest.mark.parametrize("backend", BACKENDS)
def test_host_ip(net: Node, backend: str) -> None:
    first, second, third = (make_pod(net, number) for number in (2, 3, 4))
    net.add("portmap", conf(2, mapping(80, 80, hostIP=NODE4), backend=backend), container="a", netns=first)
    net.add("portmap", conf(3, mapping(80, 80, hostIP=SECOND4), backend=backend), container="b", netns=second)
    net.add(
        "portmap", conf(4, mapping(81, 80, hostIP="0.0.0.0"), backend=backend), container="c", netns=third
    )
    with server(net, first, 80), server(net, second, 80), server(net, third, 80):
        assert ask(net, "out", NODE4, 80).startswith(first)
        assert ask(net, "out", SECOND4, 80).startswith(second)
        assert ask(net, "out", SECOND4, 81).startswith(third)
        assert refused(net, "out", NODE6, 80)
        assert refused(net, "out", NODE6, 81)


@pytest.mark.parametrize("backend", BACKENDS)
def test_newest_wins(net: Node, backend: str) -> None:
    old, new = make_pod(net, 2), make_pod(net, 3)
    net.add("portmap", conf(2, mapping(80, 80), backend=backend), container="old", netns=old)
    net.add("portmap", conf(3, mapping(80, 80), backend=backend), container="new", netns=new)
    with server(net, old, 80), server(net, new, 80):
        assert ask(net, "out", NODE4, 80).startswith(new)
        net.delete("portmap", conf(3, mapping(80, 80), backend=backend), container="new", netns=new)
        assert ask(net, "out", NODE4, 80).startswith(old)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masquerade_options(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    plain = conf(2, mapping(80, 80), families="4", backend=backend, snat=False)
    net.add("portmap", plain, netns=pod)
    with server(net, pod, 80):
        assert ask(net, "out", NODE4, 80) == f"{pod} {OUTSIDE4}"
        assert net.run(["sysctl", "-n", "net.ipv4.conf.cni0.route_localnet"]).stdout == b"0\n"
        assert "masq" not in cni_rules(net).lower()
        net.delete("portmap", plain, netns=pod)
        everything = conf(2, mapping(80, 80), backend=backend, masqAll=True)
        net.add("portmap", everything, netns=pod)
        assert ask(net, "out", NODE4, 80) == f"{pod} {pod4(254)}"
        assert ask(net, "out", NODE6, 80) == f"{pod} {pod6(254)}"
        assert ask(net, "", "127.0.0.1", 80) == f"{pod} {pod4(254)}"
        assert net.cni("CHECK", "portmap", everything, netns=pod) == (0, None)
    net.delete("portmap", everything, netns=pod)
    assert cni_rules(net) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_sctp(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(9999, 99, "sctp"), families="4", backend=backend)
    net.add("portmap", given, netns=pod)
    rules = nat(net) if backend == "iptables" else net.ruleset()
    assert ("sctp dport 9999 dnat to" in rules) or ("-p sctp -m sctp --dport 9999 -j DNAT" in rules)
    assert net.cni("CHECK", "portmap", given, netns=pod) == (0, None)
    net.delete("portmap", given, netns=pod)


def test_reference_format(net: Node) -> None:
    """What nft shows is, letter for letter, what it shows of the reference's rules."""
    pod = make_pod(net, 2)
    net.add("portmap", conf(2, mapping(8080, 80), mapping(53, 53, "udp", hostIP=NODE4)), netns=pod)
    shown = net.run(["nft", "--stateless", "list", "table", "ip", "cni_hostport"]).stdout.decode()
    assert (
        shown
        == f"""table ip cni_hostport {{
	comment "CNI portmap plugin"
	chain hostports {{
		tcp dport 8080 dnat to {pod4(2)}:80 comment "c1"
		ip daddr {NODE4} udp dport 53 dnat to {pod4(2)}:53 comment "c1"
	}}

	chain hostip_hostports {{
	}}

	chain hostports_all {{
		jump hostip_hostports
		jump hostports
	}}

	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump hostports_all
	}}

	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump hostports_all
	}}

	chain masquerading {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 127.0.0.1 ip daddr {pod4(2)} masquerade comment "c1"
		ip saddr {pod4(2)} ip daddr {pod4(2)} masquerade comment "c1"
	}}
}}
"""
    )
    shown = net.run(
        ["nft", "--stateless", "list", "chain", "ip6", "cni_hostport", "hostports"]
    ).stdout.decode()
    assert f'tcp dport 8080 dnat to [{pod6(2)}]:80 comment "c1"' in shown
    assert "udp" not in shown


def test_udp_flow_goes_to_the_new_pod(net: Node) -> None:
    old, new = make_pod(net, 2), make_pod(net, 3)
    before, after = (conf(number, mapping(53, 53, "udp")) for number in (2, 3))
    with (
        server(net, old, 53, socket.SOCK_DGRAM),
        server(net, new, 53, socket.SOCK_DGRAM),
        open_socket(net, "out", NODE4, socket.SOCK_DGRAM) as client,
        open_socket(net, "out", NODE6, socket.SOCK_DGRAM) as client6,
    ):

        def say(which: socket.socket) -> str:
            which.send(b"?")
            return which.recv(100).decode()

        client.connect((NODE4, 53))
        client6.connect((NODE6, 53))
        # A flow that was there before the port was forwarded
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        net.add("portmap", before, container="old", netns=old)
        assert say(client).startswith(old)
        assert say(client6).startswith(old)
        # The namespace and the previous result are gone, as after a crash
        bare = {key: value for key, value in before.items() if key != "prevResult"}
        net.delete("portmap", bare, container="old")
        flows = (
            net.run(["conntrack", "-L", "-p", "udp"]).stdout
            + net.run(["conntrack", "-L", "-p", "udp", "-f", "ipv6"]).stdout
        )
        assert pod4(2).encode() not in flows
        assert pod6(2).encode() not in flows
        net.add("portmap", after, container="new", netns=new)
        assert say(client).startswith(new)
        assert say(client6).startswith(new)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_mappings_no_work(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, backend=backend)
    for verb in ("ADD", "CHECK", "DEL"):
        assert net.cni(verb, "portmap", given, netns=pod)[0] == 0
    del given["runtimeConfig"]
    for verb in ("ADD", "CHECK", "DEL"):
        assert net.cni(verb, "portmap", given, netns=pod)[0] == 0
    net.add("portmap", conf(2, mapping(0, 80), backend=backend), netns=pod)
    assert net.ruleset() == ""
    assert not os.path.exists(net.path("/run/cni"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_delete_goes_by_the_note(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend=backend)
    net.add("portmap", given, netns=pod)
    assert os.listdir(net.path("/run/cni/portmap")) == ["net:c1:eth0"]
    net.delete("portmap", {"cniVersion": "1.0.0", "name": "net", "backend": backend})
    assert cni_rules(net) == ""
    assert os.listdir(net.path("/run/cni/portmap")) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_delete_without_a_note(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend=backend)
    net.add("portmap", given, netns=pod)
    os.unlink(net.path("/run/cni/portmap/net:c1:eth0"))
    del given["prevResult"], given["backend"]
    net.delete("portmap", given)
    assert cni_rules(net) == ""


def test_stale_note_takes_nothing_of_others(net: Node) -> None:
    """The tables were written anew, as a firewall's restart does: handles now are other rules'."""
    first, second = make_pod(net, 2), make_pod(net, 3)
    net.add("portmap", conf(2, mapping(80, 80)), container="a", netns=first)
    net.add("portmap", conf(3, mapping(81, 80)), container="b", netns=second)
    saved = net.run(["nft", "list", "ruleset"]).stdout
    net.run(["nft", "flush", "ruleset"])
    assert net.cni("CHECK", "portmap", conf(2, mapping(80, 80)), container="a", netns=first)[0] == 1
    net.run(["nft", "-f", "-"], stdin=saved)
    net.delete("portmap", conf(2, mapping(80, 80)), container="a", netns=first)
    assert 'comment "a"' not in net.ruleset()
    assert net.cni("CHECK", "portmap", conf(3, mapping(81, 80)), container="b", netns=second) == (0, None)
    net.run(["nft", "flush", "ruleset"])
    net.delete("portmap", conf(3, mapping(81, 80)), container="b", netns=second)
    net.add("portmap", conf(3, mapping(81, 80)), container="b", netns=second)
    with server(net, second, 80):
        assert ask(net, "out", NODE4, 81).startswith(second)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_attachments_of_a_container(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    one, two = (
        conf(2, mapping(port, 80), name=name, backend=backend) for port, name in ((80, "n1"), (81, "n2"))
    )
    net.add("portmap", one, netns=pod)
    net.add("portmap", two, netns=pod)
    net.delete("portmap", one, netns=pod)
    net.delete("portmap", one, netns=pod)
    assert net.cni("CHECK", "portmap", two, netns=pod) == (0, None)
    net.delete("portmap", two, netns=pod)
    assert cni_rules(net) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_add(net: Node, backend: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend=backend)
    net.add("portmap", given, netns=pod)
    once = sorted(net.ruleset().splitlines())
    net.add("portmap", given, netns=pod)
    assert sorted(net.ruleset().splitlines()) == once
    net.delete("portmap", given, netns=pod)
    assert cni_rules(net) == ""


def nft_rules(node: Node, chain: str) -> list[int]:
    listed = node.run(["nft", "--json", "list", "chain", "ip", "cni_hostport", chain]).stdout
    return [item["rule"]["handle"] for item in json.loads(listed)["nftables"] if "rule" in item]


@pytest.mark.parametrize("chain", ["hostports", "masquerading", "prerouting", "hostports_all"])
def test_check_finds_what_is_missing(net: Node, chain: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80))
    net.add("portmap", given, netns=pod)
    handle = nft_rules(net, chain)[0]
    net.run(["nft", "delete", "rule", "ip", "cni_hostport", chain, "handle", str(handle)])
    status, error = net.cni("CHECK", "portmap", given, netns=pod)
    assert (status, error["code"]) == (1, 101)
    assert "missing" in error["msg"] or "not as portmap makes them" in error["msg"]
    if chain == "hostports":
        assert "tcp port 80" in error["msg"]


def test_check_compares_the_target(net: Node) -> None:
    pod = make_pod(net, 2)
    net.add("portmap", conf(2, mapping(80, 80), mapping(81, 81)), netns=pod)
    status, error = net.cni("CHECK", "portmap", conf(2, mapping(80, 80), mapping(81, 82)), netns=pod)
    assert status == 1
    assert "tcp port 81" in error["msg"]


@pytest.mark.parametrize("rule", ["CNI-HOSTPORT-DNAT 1", "OUTPUT 1", "POSTROUTING 1", "{own} 3"])
def test_iptables_check(net: Node, rule: str) -> None:
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), backend="iptables")
    net.add("portmap", given, netns=pod)
    own = next(line.split()[1] for line in nat(net).splitlines() if line.startswith("-N CNI-DN-"))
    net.run(["iptables", "-t", "nat", "-D", *rule.format(own=own).split()])
    status, error = net.cni("CHECK", "portmap", given, netns=pod)
    assert (status, error["code"]) == (1, 101)


def test_conditions(net: Node) -> None:
    pod = make_pod(net, 2)
    other = make_pod(net, 3)
    given = conf(
        2, mapping(80, 80), conditionsV4=["ip", "saddr", "!=", OUTSIDE4], conditionsV6=["iifname", '"cni0"']
    )
    net.add("portmap", given, netns=pod)
    with server(net, pod, 80):
        assert refused(net, "out", NODE4, 80)
        assert refused(net, "out", NODE6, 80)
        assert ask(net, "", NODE4, 80).startswith(pod)
        assert ask(net, other, NODE6, 80).startswith(pod)
    assert net.cni("CHECK", "portmap", given, netns=pod) == (0, None)
    net.delete("portmap", given, netns=pod)
    assert cni_rules(net) == ""
    bad = conf(2, mapping(80, 80), conditionsV4=["no", "such", "thing"])
    status, error = net.cni("ADD", "portmap", bad, netns=pod)
    assert (status, error["code"]) == (1, 106)
    assert cni_rules(net) == ""


def test_iptables_conditions_and_external_chain(net: Node) -> None:
    pod = make_pod(net, 2)
    net.run(["iptables", "-t", "nat", "-N", "OUR-MARK"])
    given = conf(
        2, mapping(80, 80), families="4", conditionsV4=["!", "-s", OUTSIDE4], externalSetMarkChain="OUR-MARK"
    )
    net.add("portmap", given, netns=pod)
    with server(net, pod, 80):
        assert ask(net, "", NODE4, 80).startswith(pod)
        assert refused(net, "out", NODE4, 80)
    shown = nat(net)
    assert "-j OUR-MARK" in shown
    assert "CNI-HOSTPORT-SETMARK" not in shown
    net.delete("portmap", given, netns=pod)
    missing = {**given, "externalSetMarkChain": "NO-SUCH-CHAIN"}
    status, error = net.cni("ADD", "portmap", missing, netns=pod)
    assert (status, error["code"]) == (1, 106)
    assert "iptables-restore failed" in error["msg"]
    assert cni_rules(net) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_once(net: Node, backend: str) -> None:
    def attach(number: int) -> None:
        given = conf(number, mapping(8000 + number, 80), backend=backend)
        name = f"c{number}"
        net.add("portmap", given, container=name, netns="out")
        assert net.cni("CHECK", "portmap", given, container=name, netns="out") == (0, None)
        if number % 2:
            net.delete("portmap", given, container=name, netns="out")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(attach, range(10)))
    if backend == "nftables":
        assert len(nft_rules(net, "hostports")) == 5
        assert len(nft_rules(net, "masquerading")) == 10
        assert len(nft_rules(net, "prerouting")) == 1
        assert len(nft_rules(net, "hostports_all")) == 2
    else:
        shown = nat(net).splitlines()
        assert sum(line.startswith("-A CNI-HOSTPORT-DNAT") for line in shown) == 5
        assert sum(line.startswith(("-A PREROUTING", "-A OUTPUT", "-A POSTROUTING")) for line in shown) == 3
        assert sum(line.startswith("-N CNI-DN-") for line in shown) == 5
    for number in range(0, 10, 2):
        net.delete("portmap", conf(number, mapping(1, 1)), container=f"c{number}")
    assert cni_rules(net) == ""


def test_gc(net: Node) -> None:
    for backend, container in (("nftables", "a"), ("nftables", "b"), ("iptables", "c"), ("iptables", "d")):
        net.add("portmap", conf(2, mapping(80, 80), backend=backend), container=container, netns="out")
    net.add("portmap", conf(2, mapping(80, 80), name="else"), container="e", netns="out")
    given = {
        "cniVersion": "1.1.0",
        "name": "net",
        "cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in ("a", "c")],
    }
    assert net.cni("GC", "portmap", given) == (0, None)
    rules = net.ruleset()
    assert 'comment "a"' in rules
    assert 'comment "b"' not in rules
    assert 'comment "e"' in rules
    shown = nat(net)
    assert r"id: \"c\"" in shown
    assert r"id: \"d\"" not in shown
    given["cni.dev/valid-attachments"] = []
    assert net.cni("GC", "portmap", given) == (0, None)
    assert sorted(os.listdir(net.path("/run/cni/portmap"))) == ["else:e:eth0"]
    assert "CNI-DN-" not in nat(net)


def test_status(net: Node) -> None:
    for backend in (None, "nftables", "iptables"):
        given = {"cniVersion": "1.1.0", "name": "net", "backend": backend}
        assert net.cni("STATUS", "portmap", given) == (0, None)
    assert net.run(["nft", "list", "tables"]).stdout.decode().count("cni_hostport") == 0


def test_needs_a_previous_result(net: Node) -> None:
    given = {"cniVersion": "1.0.0", "name": "net", "runtimeConfig": {"portMappings": [mapping(80, 80)]}}
    status, error = net.cni("ADD", "portmap", given, netns="out")
    assert status == 1
    assert error["msg"] == "must be called as chained plugin"
    net.delete("portmap", given, netns="out")


@pytest.mark.peer
def test_swapped_with_the_reference(net: Node) -> None:
    """Debian's portmap 1.1.1 knows only iptables."""
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), mapping(53, 53, "udp"))
    net.add("portmap", given, netns=pod, plugins=PEER)
    assert net.cni("CHECK", "portmap", given, netns=pod) == (0, None)
    net.delete("portmap", given, netns=pod)
    assert cni_rules(net) == ""

    # Its CHECK looks for the rules of each family in both, and so can pass only where one is hidden from it
    single = conf(2, mapping(80, 80), mapping(53, 53, "udp"), families="4")
    net.add("portmap", {**single, "backend": "iptables"}, netns=pod)
    net.run(["sh", "-ec", "mkdir /run/only; ln -s /usr/sbin/iptables /run/only/iptables"])
    env = {
        "CNI_COMMAND": "CHECK",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/pod2",
        "CNI_PATH": PEER,
        "PATH": "/run/only",
    }
    net.run([f"{PEER}/portmap"], env, json.dumps({**single, "type": "portmap"}).encode())
    net.delete("portmap", single, netns=pod, plugins=PEER)
    assert cni_rules(net) == ""

    ours = {**given, "backend": "iptables"}
    net.add("portmap", ours, netns=pod)
    net.delete("portmap", given, netns=pod, plugins=PEER)
    assert cni_rules(net) == ""
    net.delete("portmap", ours, netns=pod)

    # One of each on the same base chains
    net.add("portmap", given, netns=pod, plugins=PEER, container="go")
    net.add("portmap", ours, netns=pod, container="py")
    shown = nat(net).splitlines()
    assert sum(line.startswith(("-A PREROUTING", "-A OUTPUT", "-A POSTROUTING")) for line in shown) == 3
    collect = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": []}
    assert net.cni("GC", "portmap", collect) == (0, None)
    assert cni_rules(net) == ""


def test_speed(net: Node) -> None:
    """No process is started for nftables, by ADD or by DEL."""
    given = conf(2, mapping(80, 80), mapping(53, 53, "udp"))
    for verb in ("ADD", "DEL"):
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/out",
            "CNI_PATH": net.plugins,
        }  # fmt: skip
        trace = net.run(
            ["strace", "-f", "-e", "trace=execve,clone,vfork,fork,clone3", f"{net.plugins}/portmap"],
            env,
            json.dumps({**given, "type": "portmap"}).encode(),
        ).stderr.decode()
        assert trace.count("execve(") == 1, trace
        assert "clone" not in trace
        assert "fork" not in trace
