"""A host that begins to forward packets keeps the default route that a router advertises (RFC 4861)."""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import V4, V6, bridge, ipam, outside, pods, ptp
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node

ROUTER = "fe80::2"
ADVERTISEMENT = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
"""Router for half an hour; the kernel puts the checksum in."""


def advertised(node: Node) -> list[tuple[str, str]]:
    """Return next hop and link of the default routes that routers advertise."""
    listed = node.run(["ip", "-6", "-json", "route", "show", "default", "proto", "ra"]).stdout
    return [(each["gateway"], each["dev"]) for each in json.loads(listed)]


def advertise(node: Node) -> None:
    """Let the host beyond the uplink say that it is a router, until the node has heard it."""
    outside(node)
    with node.entered("outside"):
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    with sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.bind((ROUTER, 0, 0, index))

        def heard() -> bool:
            sender.sendto(ADVERTISEMENT, ("ff02::1", 0, 0, index))
            return bool(advertised(node))

        until(heard)


def sysctl(node: Node, key: str) -> str:
    return node.run(["sysctl", "-n", key]).stdout.decode().strip()


@pytest.mark.parametrize(
    ("plugin", "conf"), [("bridge", bridge(ipam=ipam(V4, V6))), ("ptp", ptp())], ids=["bridge", "ptp"]
)
def test_a_hosts_own_router(
    node: Node, plugin: str, conf: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    node.run(["ip", "link", "add", "quiet", "type", "veth", "peer", "name", "other"])
    advertise(node)
    assert sysctl(node, "net.ipv6.conf.all.forwarding") == "0"
    capfd.readouterr()
    pods(node, conf, "c1", plugin=plugin)
    assert sysctl(node, "net.ipv6.conf.all.forwarding") == "1"
    assert "accept_ra is 2 now" in capfd.readouterr().err
    assert advertised(node) == [(ROUTER, "uplink")]
    assert sysctl(node, "net.ipv6.conf.uplink.accept_ra") == "2"
    assert sysctl(node, "net.ipv6.conf.quiet.accept_ra") == "1"
    pods(node, conf, "c2", plugin=plugin)
    assert capfd.readouterr().err == ""


def test_a_router_that_is_not_listened_to(node: Node) -> None:
    """An administrator's 0 stays."""
    advertise(node)
    node.run(["sysctl", "-qw", "net.ipv6.conf.uplink.accept_ra=0"])
    pods(node, ptp(), "c1", plugin="ptp")
    assert sysctl(node, "net.ipv6.conf.uplink.accept_ra") == "0"
