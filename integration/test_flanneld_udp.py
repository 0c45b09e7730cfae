"""The udp backend: pods that talk through proxies, the reference's frames, and a device that comes back."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import NETWORK, Fleet, Member, program, wait
from integration.pings import Pings
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = {"Network": NETWORK, "Backend": {"Type": "udp"}}
STRANGER = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
source, target, node = sys.argv[1:]
proxy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
proxy.bind(("", 8285))
proxy.settimeout(60)
echo = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"12345678"
echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
ends = socket.inet_aton(source) + socket.inet_aton(target)
header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 0, 0, 9, 1, 0) + ends
header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
proxy.sendto(header + echo, (node, 8285))
answer, sender = proxy.recvfrom(2000)
assert sender == (node, 8285), sender
assert answer[12:20] == ends[4:] + ends[:4]
assert (answer[8], checksum(answer[:20])) == (62, 0), answer[:20]
print(answer[20])
"""
UNREACHABLE = """
import socket, sys
talk = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
talk.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: tell us of what may pass, too
talk.connect((sys.argv[1], 9))
talk.settimeout(60)
talk.send(b"hello")
try:
    talk.recv(1)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    """Two machines in two subnets, with a pod each."""
    with Fleet(suite_bin, CONFIG) as made:
        made.populate((1, 11), (2, 21))
        yield made


def members(fleet: Fleet) -> tuple[Member, Member]:
    return fleet.members["node-11"], fleet.members["node-21"]


def test_pods_talk_by_the_proxies(fleet: Fleet) -> None:
    one, other = members(fleet)
    wait(
        lambda: (
            "flanneld_leases 1\n" in one.get("/metrics") and "flanneld_leases 1\n" in other.get("/metrics")
        )
    )
    ping = ["ping", "-c1", "-W20", "-Mdo", f"-s{1472 - 28}", other.pods["node-21"]]
    said = one.node.run(ping, netns="node-11").stdout.decode()
    assert "ttl=60" in said  # a hop at each machine, and one at each proxy
    assert one.subnet_env()["FLANNEL_MTU"] == "1472"
    (link,) = one.ip("-details", "-4", "address", "show", "dev", "flannel0")
    data = link["linkinfo"]["info_data"]
    assert (link["mtu"], data["type"], data["pi"], data["persist"]) == (1472, "tun", False, True)
    own = one.subnet_env()["FLANNEL_SUBNET"].replace(".1/24", ".0")
    assert [(info["local"], info["prefixlen"]) for info in link["addr_info"]] == [(own, 32)]
    assert [route["dev"] for route in one.ip("route") if route["dst"] == NETWORK] == ["flannel0"]
    # The reference's says nothing of its type.
    assert all(value.endswith('"PublicIPv6":null}') for value in fleet.etcd.leases().values())


def test_a_node_of_the_references_understands_and_is_understood(fleet: Fleet) -> None:
    one, _other = members(fleet)
    router = fleet.underlay.router
    fleet.etcd.put("/coreos.com/network/subnets/10.244.253.0-24", '{"PublicIP":"198.18.1.1"}')
    wait(lambda: "flanneld_leases 2\n" in one.get("/metrics"))
    command = [sys.executable, "-ISc", STRANGER, "10.244.253.9", one.pods["node-11"], one.address]
    assert router.run(command).stdout == b"0\n"  # an echo reply
    fleet.etcd.ctl("del", "/coreos.com/network/subnets/10.244.253.0-24")
    wait(lambda: "flanneld_leases 1\n" in one.get("/metrics"))
    command = [sys.executable, "-ISc", UNREACHABLE, "10.244.253.9"]
    assert one.node.run(command, netns="node-11").stdout == b"Network is unreachable\n"


BREAKS = {
    "device": "ip link del flannel0",
    "down": "ip link set flannel0 down",
    "mtu": "ip link set flannel0 mtu 1000",
    "address": "ip address flush dev flannel0",
    "route": f"ip route del {NETWORK}",
    "uplink": "ip link set uplink down; ip link set uplink up; ip route add default via 198.18.1.1",
}


def test_what_is_broken_is_put_back(fleet: Fleet, record_property: Any) -> None:
    one, other = members(fleet)

    def shown() -> str:
        said = one.node.run(
            ["sh", "-c", "ip -d link show flannel0; ip address show flannel0 scope global; ip route"]
        ).stdout.decode()
        return re.sub(r"^\d+: | state \w+", "", said, flags=re.MULTILINE)

    before = shown()
    with Pings(one.node, other.pods["node-21"], "node-11") as pings:
        for name, command in BREAKS.items():
            broken = time.time()
            one.node.run(["sh", "-ec", command])
            took = wait(lambda: shown() == before)
            record_property(name, f"back after {took:.2f} s, failed for {pings.failed_since(broken):.2f} s")


def test_a_stop_leaves_the_device_and_a_restart_the_pods(fleet: Fleet) -> None:
    one, other = members(fleet)
    assert one.stop() == 0
    assert one.ip("route", "get", other.pods["node-21"])[0]["dev"] == "flannel0"
    fleet.start(one)
    with Pings(one.node, other.pods["node-21"], "node-11"):
        pass


def test_a_port_that_is_taken_is_named(fleet: Fleet) -> None:
    one, _other = members(fleet)
    flags = [f"--etcd-endpoints={fleet.etcd.url}", "--healthz-port=0", "--subnet-file=/run/second.env"]

    done = one.node.run([*program(), *flags], {"PYTHONPATH": ROOT}, check=False)
    assert done.returncode == 1
    assert b"failed to listen at 198.18.1.11:8285/udp" in done.stderr
