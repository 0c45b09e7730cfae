"""portmap with real traffic: a node, an outside host and pods on a bridge, all in namespaces of the test."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from integration.portmaps import (
    BACKENDS,
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    SECOND4,
    ask,
    cni_rules,
    conf,
    make_pod,
    mapping,
    nat,
    open_socket,
    pod4,
    pod6,
    refused,
    server,
)

if TYPE_CHECKING:
    from integration.node import Node


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
