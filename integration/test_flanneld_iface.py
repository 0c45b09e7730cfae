"""Which interface becomes the uplink, on a machine with several."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.iface import UplinkError, choose, is_gone, look
from flanneld.options import Options
from integration.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.uplink import Uplink

# Default routes: IPv4 by `old` and, preferred, by `lan`; IPv6 by `lan`. `off` is down, and has an address.
SETUP = """
n=0
for each in lan old dmz off; do
    n=$((n + 1))
    ip link add $each type veth peer name y$n
    ip link set y$n up
    ip link set $each up
done
ip address add 192.0.2.1/24 dev lan
ip address add 192.0.2.7/24 dev lan
ip address add 2001:db8::1/64 dev lan nodad
ip address add 198.51.100.1/24 dev old
ip address add 203.0.113.1/24 dev dmz
ip address add 2001:db8:d::1/64 dev dmz nodad
ip address add 198.18.0.1/24 dev off
ip link set off down
ip link set dmz mtu 1400
ip route add default via 198.51.100.254 dev old metric 200
ip route add default via 192.0.2.254 dev lan metric 100
ip -6 route add default via 2001:db8::ff dev lan
ip route add 10.9.0.0/16 via 203.0.113.254 dev dmz
"""


@pytest.fixture(scope="module")
def machine(suite_bin: str) -> Iterator[Node]:
    with Node(suite_bin) as node:
        node.run(["sh", "-ec", SETUP])
        yield node


def chosen(machine: Node, families: tuple[int, ...] = (4,), **options: Any) -> Uplink:
    with machine.entered():
        return look(choose(Options(**options), families), families)


@pytest.mark.parametrize(
    ("options", "name", "local"),
    [
        ({}, "lan", "192.0.2.1"),
        ({"iface": ["dmz"]}, "dmz", "203.0.113.1"),
        ({"iface": ["none", "dmz", "lan"]}, "dmz", "203.0.113.1"),
        ({"iface": ["192.0.2.7"]}, "lan", "192.0.2.7"),
        ({"iface": ["none"], "iface_regex": ["^d"]}, "dmz", "203.0.113.1"),
        ({"iface_regex": [r"^192\.0\.2\.7$", "dmz"]}, "lan", "192.0.2.7"),
        ({"iface_regex": ["^x", "^ol"]}, "old", "198.51.100.1"),
        ({"iface_can_reach": "10.9.1.1"}, "dmz", "203.0.113.1"),
        ({"iface_can_reach": "198.51.100.9"}, "old", "198.51.100.1"),
        ({"iface_regex": ["^x"], "iface_can_reach": "10.9.1.1"}, "dmz", "203.0.113.1"),
        ({"public_ip": "203.0.113.1"}, "dmz", "203.0.113.1"),
        ({"public_ip": "192.0.2.7"}, "lan", "192.0.2.7"),
        ({"public_ip": "100.64.0.1"}, "lan", "192.0.2.1"),
        ({"public_ip": "203.0.113.1", "iface": ["old"]}, "old", "198.51.100.1"),
    ],
)
def test_the_uplink_is(machine: Node, options: dict[str, Any], name: str, local: str) -> None:
    uplink = chosen(machine, **options)
    assert (uplink.name, uplink.address) == (name, IPv4Address(local))
    assert uplink.public_ip == IPv4Address(options.get("public_ip", local))
    assert uplink.mtu == (1400 if name == "dmz" else 1500)


def test_both_families(machine: Node) -> None:
    uplink = chosen(machine, (4, 6))
    assert (uplink.name, uplink.address, uplink.ipv6_address) == (
        "lan",
        IPv4Address("192.0.2.1"),
        IPv6Address("2001:db8::1"),
    )
    assert chosen(machine, (4, 6), iface_regex=[r"^2(001:db8:d:|03\.)"]).name == "dmz"
    assert chosen(machine, (6,), iface_can_reach="2001:db8:d::9").name == "dmz"
    assert chosen(machine, (6,), public_ipv6="2001:db8:d::1").public_ipv6 == IPv6Address("2001:db8:d::1")


@pytest.mark.parametrize(
    ("families", "options", "says"),
    [
        ((4,), {"iface": ["none"]}, "no interface fits iface none; there are .*lan .192.0.2.1, 192.0.2.7"),
        ((4,), {"iface": ["off"]}, "no interface fits iface off"),
        ((4,), {"iface": ["100.64.0.1"]}, "no interface fits iface 100.64.0.1"),
        ((4,), {"iface_regex": ["("]}, "no regular expression"),
        ((4,), {"iface_can_reach": "nowhere"}, "nowhere is no address"),
        ((4,), {"public_ip": "nowhere"}, "the public address cannot be read"),
        ((4, 6), {"iface": ["old"]}, "old has no IPv6 address"),
    ],
)
def test_no_uplink(machine: Node, families: tuple[int, ...], options: dict[str, Any], says: str) -> None:
    with pytest.raises(UplinkError, match=says):
        chosen(machine, families, **options)


def test_default_routes_that_part(suite_bin: str) -> None:
    with Node(suite_bin) as node:
        node.run(["sh", "-ec", SETUP])
        node.run(["ip", "-6", "route", "replace", "default", "via", "2001:db8:d::ff", "dev", "dmz"])
        with pytest.raises(UplinkError, match="the default routes of IPv4 and IPv6 leave by lan and dmz"):
            chosen(node, (4, 6))
        assert chosen(node, (4, 6), public_ip="203.0.113.1").name == "dmz"
        with node.entered():
            choice = choose(Options(iface=["dmz"]), (4,))
            node.run(["ip", "link", "set", "dmz", "name", "dmz0"])
            assert look(choice, (4,)).name == "dmz0"
            node.run(["ip", "link", "set", "dmz0", "down"])
            assert not is_gone(choice)
            with pytest.raises(UplinkError, match="is down or gone"):
                look(choice, (4,))
            node.run(["ip", "link", "delete", "dmz0"])
            assert is_gone(choice)
