"""The bridge plugin announces a pod's addresses, so that whoever remembers another owner learns at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.kernel import newlink
from cni_plugins.kernel.netlink import Netlink
from integration.checks import Wire, bridge, dual_stack, ipam, mac_bytes, ping, pods
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from integration.node import Node

ARP, IPV6 = 0x0806, 0x86DD
POD4, POD6 = bytes.fromhex("0a4d0003"), bytes.fromhex("fd000077000000000000000000000003")
OLD_MAC = "02:00:00:00:00:99"

pytestmark = pytest.mark.kernel  # who announces, and when, is for each kernel to show


def test_gratuitous_arp(node: Node) -> None:
    pods(node, bridge(), "c1")
    with Wire(node, "c1", ethertype=ARP) as wire:
        result = pods(node, bridge(), "c2")[0]
        mac = mac_bytes(result["interfaces"][2]["mac"])
        for frame in wire.frames():
            sender, said, target = frame[22:28], frame[28:32], frame[38:42]
            if (frame[:6], sender, said, target) == (b"\xff" * 6, mac, POD4, POD4):
                return
        pytest.fail("no frame from the pod announces its address (RFC 5227, 3)")


def test_unsolicited_neighbour_advertisement(node: Node) -> None:
    pods(node, dual_stack(), "c1")
    with Wire(node, "c1", ethertype=IPV6) as wire:
        result = pods(node, dual_stack(), "c2")[0]
        option = b"\x02\x01" + mac_bytes(result["interfaces"][2]["mac"])
        for frame in wire.frames():
            kind, flags, target = frame[54], frame[58], frame[62:78]
            if (kind, target) == (136, POD6):
                assert not flags & 0x40  # not solicited
                assert flags & 0x20  # overrides what is remembered
                assert frame[78:86] == option
                return
        pytest.fail("no neighbour advertisement (RFC 4861, 7.2.6) from the pod names its address")


def test_a_carrier_is_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.8 the kernel may not have noted it yet when the other end has come up."""
    script = "ip link add br0 up type bridge; ip link add port up master br0 type veth peer name other"
    node.run(["sh", "-ec", script])
    with node.entered(), Netlink() as host:
        with pytest.raises(TimeoutError) as caught:
            newlink.get_carrying(host, "port")
        assert caught.value.__notes__ == ["link 'port' has no carrier"]
        monkeypatch.setattr(newlink, "_CARRIER_TIMEOUT", PATIENCE)
        later = node.popen(["sh", "-c", "sleep 0.2; ip link set other up"])
        assert newlink.get_carrying(host, "port").carries
        assert newlink.get_carrying(host, "br0").carries
        assert later.wait() == 0


def neighbour(node: Node, address: str) -> str:
    listed: list[Any] = json.loads(node.exec("c1", "ip", "-json", "neighbour", "show", "to", address))
    return str(listed[0]["lladdr"])


@pytest.mark.parametrize("address", ["10.77.0.3", "fd00:77::3"])
def test_a_peer_that_remembers_the_addresss_former_owner_is_corrected(node: Node, address: str) -> None:
    conf = bridge(ipam=ipam("10.77.0.0/24", "fd00:77::/64"))
    pods(node, conf, "c1")
    node.exec("c1", "ip", "neighbour", "replace", address, "lladdr", OLD_MAC, "nud", "stale", "dev", "eth0")
    assert neighbour(node, address) == OLD_MAC
    result = pods(node, conf, "c2")[0]
    assert neighbour(node, address) == result["interfaces"][2]["mac"]
    assert ping(node, "c1", address)
