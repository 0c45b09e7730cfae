"""The dhcp daemon: what it keeps when it ends, many leases at once, refusals, systemd's socket, GC."""

from __future__ import annotations

import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration.checks import address_of, addresses, check, ping, pods, refusal, routes
from integration.dhcp import (
    BRIDGE,
    DHCPD_LOG,
    FOLDER,
    SERVER,
    SOCKET,
    attach_all,
    daemon,
    dhcpd,
    dnsmasq,
    ended,
    lan,
    leased,
    log,
    network,
)
from integration.waiting import until

if TYPE_CHECKING:
    import subprocess

    from integration.node import Node

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does for a service with a socket (sd_listen_fds(3))."""

TAKEN = (
    "lease %s { starts epoch 1; ends never; binding state active; hardware ethernet 02:00:00:00:00:42; }\n"
)
"""What dhcpd has in its file of another's lease (dhcpd.leases(5))."""


def more(node: Node, before: str, text: str) -> bool:
    """Tell whether dhcpd has said something again."""
    return log(node, DHCPD_LOG).count(text) > before.count(text)


@pytest.mark.parametrize(
    ("kill", "lease", "away"),
    [(False, 4, 0.0), (True, 4, 0.0), (True, 2, 2.5)],
    ids=["SIGTERM", "SIGKILL", "SIGKILL, until the lease is over"],
)
def test_the_next_daemon_renews_the_same_leases(node: Node, kill: bool, lease: int, away: float) -> None:
    lan(node)
    conf = network()
    with dhcpd(node, lease=lease):
        with daemon(node) as process:
            results = pods(node, conf, "c1", "c2")
            ended(process, kill=kill)
        held = [address_of(result) for result in results]
        assert len(set(held)) == 2
        time.sleep(away)
        before = log(node, DHCPD_LOG)
        with daemon(node):
            for number, address in enumerate(held, 1):
                until(partial(more, node, before, f"DHCPACK on {address} to"))
                assert addresses(node.links(f"c{number}")["eth0"]) == {f"{address}/24"}
                own = {"container": f"c{number}", "netns": f"c{number}"}
                assert check(node, "bridge", conf, results[number - 1], **own) == ""
                node.delete("bridge", conf, **own)
                until(partial(more, node, before, f"DHCPRELEASE of {address} "))
            assert log(node, DHCPD_LOG).count("DHCPDISCOVER") == before.count("DHCPDISCOVER")
            assert os.listdir(node.path(FOLDER)) == ["lock"]


def test_killed_while_it_asks(node: Node) -> None:
    """The server has given an address that nobody knows of: the next daemon gives it back."""
    lan(node)
    # Its acknowledgements are lost: the first option of dnsmasq's messages is their type.
    rule = "add rule bridge lost forward udp sport 67 @th,2000,8 5 drop"
    chain = "add chain bridge lost forward { type filter hook forward priority 0; }"
    node.run(["nft", f"add table bridge lost; {chain}; {rule}"])
    # The interface is gone when the lease is released: the host does it.
    node.run(["ip", "address", "add", "10.77.0.2/24", "dev", BRIDGE])
    node.netns("c1")
    with dnsmasq(node):
        with daemon(node) as process, ThreadPoolExecutor(1) as pool:
            adding = pool.submit(refusal, node, "ADD", "bridge", network(), netns="c1")
            until(lambda: leased(node))
            ended(process)
            assert "dhcp daemon" in adding.result()["msg"]
        assert leased(node)
        with daemon(node):
            until(lambda: not leased(node))
            assert os.listdir(node.path(FOLDER)) == ["lock"]


def test_thirty_at_once(node: Node) -> None:
    lan(node)
    conf = network()
    names = [f"c{number}" for number in range(30)]
    with dnsmasq(node), daemon(node) as process:
        results = attach_all(node, conf, *names)
        given = {address_of(result) for result in results}
        assert len(given) == len(names)
        assert set(leased(node)) == given
        assert len(set(leased(node).values())) == len(names)
        for name, result in list(zip(names, results, strict=True))[::10]:
            assert addresses(node.links(name)["eth0"]) == {result["ips"][0]["address"]}
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: node.delete("bridge", conf, container=name, netns=name), names[:-1]))
        until(lambda: set(leased(node)) == {address_of(results[-1])})
        assert len(os.listdir(node.path(FOLDER))) == 2
        node.delete("bridge", conf, container=names[-1], netns=names[-1])
        until(lambda: not leased(node))
        # The kernel closes packet sockets in its own time, but none stays.
        until(lambda: not any("packet" in each for each in descriptors(node, process)))


def descriptors(node: Node, process: subprocess.Popen[bytes]) -> list[str]:
    """Return what a process's descriptors are, as ss names sockets."""
    listed = node.run(["ss", "-0anpH"]).stdout.decode().splitlines()
    return [f"packet {line}" for line in listed if f"pid={process.pid}," in line]


@pytest.mark.parametrize("rebooting", [False, True], ids=["on renewal", "to a new daemon"])
def test_dhcpd_refuses(node: Node, rebooting: bool) -> None:
    """What it gave belongs to another by now; or it has another range, and the lease was over meanwhile."""
    lan(node)
    conf = network()
    with daemon(node) as process:
        with dhcpd(node, lease=2, pool="10.77.0.150 10.77.0.199"):
            (result,) = pods(node, conf, "c1")
            node.run(["ip", "address", "add", "192.0.2.5/24", "dev", "eth0"], netns="c1")
            if rebooting:
                ended(process)
        lost = address_of(result)
        if rebooting:
            time.sleep(2.5)
        else:
            with open(node.path(f"{os.path.dirname(DHCPD_LOG)}/leases"), "a", encoding="ascii") as file:
                file.write(TAKEN % lost)
        with ExitStack() as stack:
            other = {"mask": "255.255.255.128"} if rebooting else {"pool": "10.77.0.150 10.77.0.199"}
            stack.enter_context(dhcpd(node, lease=4, **other))
            if rebooting:
                stack.enter_context(daemon(node))
            until(lambda: "has again" in log(node))
            assert f"DHCPNAK on {lost} to" in log(node, DHCPD_LOG)
            (address,) = addresses(node.links("c1")["eth0"]) - {"192.0.2.5/24"}
            given, _slash, length = address.partition("/")
            assert (given != lost, length) == (True, "25" if rebooting else "24")
            assert f"DHCPACK on {given} to" in log(node, DHCPD_LOG)
            subnets = {(f"10.77.0.0/{length}", ""), ("192.0.2.0/24", "")}
            assert routes(node, "c1") == {("default", SERVER), *subnets}
            assert ping(node, "c1", SERVER)
            found = check(node, "bridge", conf, result)
            assert f"for {address}, not for {result['ips'][0]['address']}" in found
            node.delete("bridge", conf, netns="c1")
            until(lambda: f"DHCPRELEASE of {given} " in log(node, DHCPD_LOG))


def activated(node: Node, listener: socket.socket) -> subprocess.Popen[bytes]:
    """Start the daemon as systemd does when somebody calls."""
    wrapped = [sys.executable, "-IS", "-c", ACTIVATE, str(listener.fileno())]
    with open(node.path("/run/said"), "ab") as said:
        return node.popen(
            [*wrapped, f"{node.plugins}/dhcp", "daemon"],
            env={"PATH": "/usr/bin", "LISTEN_FDS": "1"},
            pass_fds=(listener.fileno(),),
            stderr=said,
        )


def test_the_socket_of_systemd(node: Node) -> None:
    """The plugin's call waits in the socket until the daemon is there; between two daemons, as well."""
    lan(node)
    conf = network()
    node.netns("c1")
    with node.entered():  # in the node's network, as in its files
        listener = socket.socket(socket.AF_UNIX)
        os.makedirs(os.path.dirname(SOCKET))
        listener.bind(SOCKET)
        listener.listen()
    with dnsmasq(node), listener, ThreadPoolExecutor(1) as pool:
        adding = pool.submit(node.add, "bridge", conf, netns="c1")
        until(lambda: node.run(["ss", "-lxH", "src", SOCKET]).stdout.split()[2] == b"1")
        process = activated(node, listener)
        address = address_of(adding.result())
        assert set(leased(node)) == {address}
        ended(process, kill=False)
        assert process.returncode == 0
        assert os.path.exists(node.path(SOCKET))
        process = activated(node, listener)
        node.delete("bridge", conf, netns="c1")
        until(lambda: not leased(node))
        ended(process, kill=False)


@pytest.mark.parametrize("running", [True, False], ids=["with a daemon", "without"])
def test_gc_releases_exactly_the_others(
    node: Node, running: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    lan(node)
    conf = {**network(), "cniVersion": "1.1.0"}
    other = {**conf, "name": "other"}
    # Interfaces go with GC; the daemon that comes later releases from the host.
    node.run(["ip", "address", "add", "10.77.0.2/24", "dev", BRIDGE])
    with dnsmasq(node), daemon(node) as process:
        results = pods(node, conf, "c1", "c2", "c3")
        results.append(node.add("bridge", conf, container="c1", netns="c1", ifname="eth1"))
        results += pods(node, other, "c4")
        assert set(leased(node)) == {address_of(result) for result in results}
        valid = [{"containerID": "c1", "ifname": "eth1"}, {"containerID": "c3", "ifname": "eth0"}]
        gc = {**conf, "cni.dev/valid-attachments": valid}
        kept = {address_of(results[number]) for number in (2, 3, 4)}
        if not running:
            ended(process)
        capsys.readouterr()
        assert node.cni("GC", "bridge", gc) == (0, None)
        later = "" if running else ", once a daemon runs"
        said = [line for line in capsys.readouterr().err.splitlines() if "the lease of" in line]
        # In the order of their names in the daemon's folder, without a daemon.
        assert {line.partition("GC of network net: removed ")[2] for line in said} == {
            f"the lease of {container} eth0{later}" for container in ("c1", "c2")
        }
        assert len(said) == 2
        if not running:
            assert len(leased(node)) == 5
            with daemon(node):
                until(lambda: set(leased(node)) == kept)
        until(lambda: set(leased(node)) == kept)
        if running:
            assert check(node, "bridge", other, results[4], container="c4", netns="c4") == ""
            assert node.cni("GC", "bridge", gc) == (0, None)
            assert "the lease of" not in capsys.readouterr().err
