"""dhcp with Debian's dnsmasq and isc-dhcp-server: leases, options, what becomes of them."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import address_of, addresses, check, ping, pods, refusal, routes
from integration.dhcp import (
    FOLDER,
    SERVER,
    SOCKET,
    answers,
    daemon,
    dhcpd,
    dnsmasq,
    ended,
    lan,
    leased,
    log,
    network,
)
from integration.waiting import PATIENCE, until

if TYPE_CHECKING:
    from integration.node import Node

DEFAULT = ("default", SERVER)
SUBNET = ("10.77.0.0/24", "")


def identifier(text: str) -> str:
    """Return a client identifier as dnsmasq writes it."""
    return (b"\0" + text.encode()).hex(":")


def own(node: Node, container: str = "c1") -> set[str]:
    return addresses(node.links(container)["eth0"])


def test_a_lease_from_dnsmasq(node: Node) -> None:
    lan(node)
    conf = network()
    with dnsmasq(node), daemon(node):
        assert node.cni("STATUS", "bridge", {**conf, "cniVersion": "1.1.0"}) == (0, None)
        first, second = pods(node, conf, "c1", "c2")
        for name, result in (("c1", first), ("c2", second)):
            assert leased(node)[address_of(result)] == identifier(f"{name}/net/eth0")
            assert result["ips"][0]["gateway"] == SERVER
            assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": SERVER}]
            assert own(node, name) == {result["ips"][0]["address"]}
            assert routes(node, name) == {DEFAULT, SUBNET}
            assert ping(node, name, SERVER)
            assert check(node, "bridge", conf, result, container=name, netns=name) == ""
        assert "dns" not in first
        folder = node.path(FOLDER)
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert {os.stat(f"{folder}/{name}").st_mode & 0o777 for name in os.listdir(folder)} == {0o600}
        assert os.stat(node.path(SOCKET)).st_mode & 0o777 == 0o600
        node.delete("bridge", conf, netns="c1")
        until(lambda: set(leased(node)) == {address_of(second)})
        node.delete("bridge", conf, netns="c1")
        gc = {**conf, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
        assert node.cni("GC", "bridge", gc) == (0, None)
        assert os.listdir(folder) == ["lock"]


def test_options(node: Node) -> None:
    lan(node)
    asked = [{"option": each} for each in ("6", "domain-name", "119", "121", "26")]
    provided = [{"option": "host-name", "fromArg": "K8S_POD_NAME"}, {"option": "60", "value": "us"}]
    conf = {**network(request=asked, provide=provided, priority=77), "cniVersion": "1.1.0"}
    routes_given = "192.168.9.0/24,10.77.0.7,0.0.0.0/0,10.77.0.1,10.78.0.0/16,0.0.0.0"
    options = (
        "--dhcp-option=6,10.77.0.1,10.77.0.2",
        "--dhcp-option=15,pods.test",
        "--dhcp-option=119,a.test,b.test",
        f"--dhcp-option=121,{routes_given}",
        "--dhcp-vendorclass=set:us,us",
        "--dhcp-option=tag:us,3,10.77.0.9",
    )
    with dnsmasq(node, *options), daemon(node, "-broadcast"):
        args = "IgnoreUnknown=1;K8S_POD_NAME=web-0"
        (result,) = pods(node, conf, "c1", args=args)
        assert result["dns"] == {
            "nameservers": ["10.77.0.1", "10.77.0.2"],
            "domain": "pods.test",
            "search": ["a.test", "b.test"],
        }
        assert result["ips"][0]["gateway"] == "10.77.0.9"
        assert [(route["dst"], route["gw"]) for route in result["routes"]] == [
            ("192.168.9.0/24", "10.77.0.7"),
            ("0.0.0.0/0", SERVER),
            ("10.78.0.0/16", "0.0.0.0"),
        ]
        expected = {SUBNET, DEFAULT, ("192.168.9.0/24", "10.77.0.7"), ("10.78.0.0/16", "")}
        assert routes(node, "c1") == expected
        listed = node.exec("c1", "ip", "-4", "route", "show", "metric", "77")
        assert len(listed.splitlines()) == 3
        assert check(node, "bridge", conf, result, args=args) == ""
        with open(node.path("/run/dnsmasq/leases"), encoding="ascii") as file:
            assert file.read().split()[3] == "web-0"
        said = log(node, "/run/dnsmasq/log")
        assert "broadcast response" in said
        assert "requested options: 6:dns-server, 15:domain-name" in said


def test_skip_default_and_another_identifier(node: Node) -> None:
    lan(node)
    conf = network(
        request=[{"skipDefault": True}, {"option": "subnet-mask"}],
        provide=[{"option": "dhcp-client-identifier", "value": "\x01mine"}],
    )
    with dnsmasq(node), daemon(node):
        (result,) = pods(node, conf, "c1")
        assert "routes" not in result
        assert leased(node) == {address_of(result): b"\x01mine".hex(":")}
        node.delete("bridge", conf, netns="c1")
        until(lambda: not leased(node))


def test_short_leases_of_dhcpd_are_renewed_also_when_it_comes_back(node: Node) -> None:
    lan(node)
    conf = network()
    with daemon(node):
        with dhcpd(node, lease=4) as server:
            (result,) = pods(node, conf, "c1")
            until(lambda: log(node).count("renewed") >= 2)
            ended(server)
        assert own(node) == {result["ips"][0]["address"]}
        with dhcpd(node, lease=4):
            count = log(node).count("renewed")
            until(lambda: log(node).count("renewed") > count)
            assert own(node) == {result["ips"][0]["address"]}
            assert check(node, "bridge", conf, result) == ""
            node.delete("bridge", conf, netns="c1")
            until(lambda: "DHCPRELEASE of" in log(node, "/run/dhcpd/log"))


def test_a_server_that_is_gone_for_good_and_another_that_comes(node: Node) -> None:
    lan(node)
    conf = network()
    with daemon(node, "-resendmax=1s"):
        with dhcpd(node, lease=3):
            (result,) = pods(node, conf, "c1")
            node.run(["ip", "address", "add", "fd00:77::5/64", "dev", "eth0", "nodad"], netns="c1")
        until(lambda: own(node) == {"fd00:77::5/64"})
        assert "UP" in node.links("c1")["eth0"]["flags"]
        assert (
            "was lost" in refusal(node, "CHECK", "bridge", {**conf, "prevResult": result}, netns="c1")["msg"]
        )
        with dnsmasq(node):
            until(lambda: len(own(node)) == 2)
            assert routes(node, "c1") == {DEFAULT, SUBNET}
            assert ping(node, "c1", SERVER)
            (address,) = leased(node)
            assert address != address_of(result)
            assert f"not for {result['ips'][0]['address']}" in check(node, "bridge", conf, result)


def test_a_server_that_refuses(node: Node) -> None:
    """It was given another range: authoritative, it refuses what it does not know."""
    lan(node)
    conf = network()
    with daemon(node):
        with dhcpd(node, lease=4):
            (result,) = pods(node, conf, "c1")
        with dnsmasq(node, pool="10.77.0.200,10.77.0.210"):
            until(lambda: own(node) & {f"10.77.0.{last}/24" for last in range(200, 211)})
            assert address_of(result) not in str(own(node))
            assert ping(node, "c1", SERVER)
        assert "takes" in log(node)


def test_no_server(node: Node) -> None:
    lan(node)
    with daemon(node, "-resendtimeout=500ms", "-timeout", "300ms"):
        node.netns("c1")
        answer = refusal(node, "ADD", "bridge", network(), netns="c1")
        assert (answer["code"], "no DHCP server gave c1/net/eth0 a lease" in answer["msg"]) == (102, True)
        assert "look whether" in answer["details"]
        assert set(node.links("c1")) == {"lo"}
        assert os.listdir(node.path(FOLDER)) == ["lock"]
        refused = refusal(node, "ADD", "dhcp", network(), netns="c1")
        assert "no interface 'eth0'" in refused["msg"]
        refused = refusal(node, "ADD", "dhcp", network(), netns="/none")
        assert "No such file" in refused["msg"]


def test_a_container_that_ends_is_not_kept_alive(node: Node) -> None:
    lan(node)
    conf = network()
    with dnsmasq(node), daemon(node) as process:
        (result,) = pods(node, conf, "c1")
        veth = result["interfaces"][1]["name"]
        node.remove_netns("c1")
        until(lambda: veth not in node.links())
        # The host has a way to the server: it says good-bye in the container's place.
        node.run(["ip", "address", "add", "10.77.0.2/24", "dev", "br0"])
        node.delete("bridge", conf, netns="/run/netns/c1")
        until(lambda: not leased(node))
        with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        assert int(status["Threads"]) <= 2


class Hostile:
    """Sends what no server should, to whoever asks."""

    def __init__(self, node: Node) -> None:
        with node.entered("server"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.bind(("eth0", 0x0800))
        self._socket.settimeout(60)

    def answer(self, *payloads: Any) -> None:
        """Wait for a DISCOVER and send what each function makes of it, whole and cut off."""
        while True:
            frame = self._socket.recv(2048)
            if frame[:6] == b"\xff" * 6 and frame[34:38] == b"\0\x44\0\x43":
                break
        request = frame[42:]
        for payload in payloads:
            whole = payload(request)
            for length in (len(whole), 243, 240, 100, 3):
                self._send(whole[:length])

    def _send(self, payload: bytes) -> None:
        udp = b"\0\x43\0\x44" + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
        ip = (
            b"\x45\0"
            + (20 + len(udp)).to_bytes(2, "big")
            + bytes(4)
            + b"\x40\x11\0\0"
            + bytes(4)
            + b"\xff" * 4
        )
        self._socket.send(b"\xff" * 6 + b"\2\0\0\0\0\x63" + b"\x08\0" + ip + udp)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("flood", [False, True])
def test_hostile_answers(node: Node, flood: bool) -> None:
    lan(node)
    cookie, end = b"\x63\x82\x53\x63", b"\xff"
    offer = b"\x35\1\2\x36\4\x0a\x4d\0\x63\x33\4\0\0\x0e\x10"

    def reply(request: bytes, options: bytes, xid: bytes = b"", mac: bytes = b"", file: bytes = b"") -> bytes:
        head = b"\2\1\6\0" + (xid or request[4:8]) + bytes(8) + b"\x0a\x4d\0\x62" + bytes(8)
        return (
            (head + (mac or request[28:34]).ljust(16, b"\0")).ljust(108, b"\0")
            + file.ljust(128, b"\0")
            + options
        )

    payloads = (
        lambda request: reply(request, cookie + offer + end, xid=b"none"),
        lambda request: reply(request, cookie + offer + end, mac=b"nobody"),
        lambda request: reply(request, cookie + offer + b"\x34\1\7" + end),
        lambda request: reply(request, cookie + b"\x34\1\1", file=b"\x35\xff"),
        lambda request: reply(request, cookie + b"\x35\1\6\x36\4\x0a\x4d\0\x63" + end),
        lambda request: reply(request, cookie + b"\xff" * 900),
        lambda request: reply(request, cookie + b"\x33\0" * 300),
    )
    hostile = Hostile(node)
    try:
        with daemon(node):
            node.netns("c1")
            got: list[Any] = []
            adding = threading.Thread(target=lambda: got.append(node.add("bridge", network(), netns="c1")))
            adding.start()
            for _time in range(3 if flood else 1):
                hostile.answer(*payloads * (20 if flood else 1))
            with dnsmasq(node):
                adding.join(PATIENCE)
                assert list(leased(node)) == [address_of(got[0])]
                assert "Traceback" not in log(node)
                assert answers(node)
    finally:
        hostile.close()


def test_flags(node: Node) -> None:
    lan(node)
    path = "/run/other/d.sock"
    with (
        dnsmasq(node),
        daemon(node, f"--socketpath={path}", "-pidfile", "/run/pid", socket=path) as process,
    ):
        with open(node.path("/run/pid"), encoding="ascii") as file:
            assert int(file.read()) == process.pid
        assert refusal(node, "ADD", "dhcp", network(), netns="/none")["code"] == 11
        conf = network(daemonSocketPath=path)
        (result,) = pods(node, conf, "c1")
        assert os.listdir(node.path("/run/other/d")) != ["lock"]
        again = node.run([f"{node.plugins}/dhcp", "daemon", "-socketpath", path], check=False)
        assert again.returncode == 1
        ended(process, kill=False)
        assert process.returncode == 0
        assert not os.path.exists(node.path("/run/pid"))
        assert not os.path.exists(node.path(path))
        assert leased(node)
        assert own(node) == {result["ips"][0]["address"]}


def test_hostprefix(node: Node) -> None:
    lan(node)
    os.makedirs(node.path("/run/host"))
    os.symlink("/run", node.path("/run/host/run"))
    with dnsmasq(node), daemon(node, "-hostprefix=/run/host", socket=f"/run/host{SOCKET}"):
        pods(node, network(), "c1")
        assert leased(node)


def test_a_lease_is_not_asked_for_twice(node: Node) -> None:
    """CHECK, a repeated ADD of the IPAM plugin, another interface, another namespace."""
    lan(node)
    conf = network()
    with dnsmasq(node), daemon(node):
        (result,) = pods(node, conf, "c1")
        before = log(node, "/run/dnsmasq/log").count("DHCPACK")
        again = node.add("dhcp", conf, netns="c1")
        assert again["ips"][0]["address"] == result["ips"][0]["address"]
        assert check(node, "bridge", conf, result) == ""
        assert log(node, "/run/dnsmasq/log").count("DHCPACK") == before
        other = node.add("bridge", conf, netns="c1", ifname="eth1")
        assert address_of(other) != address_of(result)
        node.remove_netns("c1")
        time.sleep(0.05)
        node.netns("c1")
        moved = node.add("bridge", conf, netns="c1")
        assert len(leased(node)) == 2
        assert leased(node)[address_of(moved)] == identifier("c1/net/eth0")
