"""What neigh and tunnel pack, as pyroute2 reads it, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.address import format_address
from cni_plugins.kernel import neigh, tunnel
from cni_plugins.kernel.neigh import Neighbour
from cni_plugins.kernel.tunnel import Vxlan
from tests.kernel_end import DONE, MULTI, KernelEnd

MAC = bytes.fromhex("02aabbccddee")
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
MACS = st.binary(min_size=6, max_size=6)


@given(dst=ADDRESSES, mac=MACS, index=st.integers(1, 2**31 - 1), forwarding=st.booleans())
def test_an_entry(dst: bytes, mac: bytes, index: int, forwarding: bool) -> None:
    with KernelEnd() as kernel:
        for call, kind, flags in ((neigh.put, 28, 0x505), (neigh.delete, 29, 0x5)):
            kernel.acknowledge()
            call(kernel.netlink, Neighbour(index, dst, mac, forwarding=forwarding))
            asked = kernel.asked()
            assert (asked.kind, asked.flags) == (kind, flags)
            message = asked.decoded()
            family = 7 if forwarding else 2 if len(dst) == 4 else 10
            assert (message["family"], message["ifindex"]) == (family, index)
            assert (message["state"], message["flags"]) == ((0xC0, 2) if forwarding else (0x80, 0))
            assert message.get_attr("NDA_DST") == format_address(dst)
            assert message.get_attr("NDA_LLADDR") == mac.hex(":")


def test_neighbours_of_a_link(kernel: KernelEnd) -> None:
    entries = [
        {
            "family": 2,
            "ifindex": 5,
            "state": 0x80,
            "attrs": [("NDA_DST", "10.0.0.1"), ("NDA_LLADDR", MAC.hex(":"))],
        },
        {
            "family": 2,
            "ifindex": 5,
            "state": 0x02,
            "attrs": [("NDA_DST", "10.0.0.2"), ("NDA_LLADDR", MAC.hex(":"))],
        },
        {
            "family": 2,
            "ifindex": 6,
            "state": 0x80,
            "attrs": [("NDA_DST", "10.0.0.3"), ("NDA_LLADDR", MAC.hex(":"))],
        },
        {"family": 2, "ifindex": 5, "state": 0x20, "attrs": [("NDA_DST", "10.0.0.4")]},
    ]
    kernel.say(*(kernel.encoded(28, each, MULTI) for each in entries), kernel.message(DONE, bytes(4), MULTI))
    found = neigh.neighbours(kernel.netlink, 5, 4)
    assert [(each.dst, each.mac, each.permanent) for each in found] == [
        (b"\x0a\0\0\1", MAC, True),
        (b"\x0a\0\0\2", MAC, False),
    ]
    assert kernel.asked().decoded().get_attr("NDA_IFINDEX") == 5


@pytest.mark.parametrize("code", [2, 19])
def test_deleting_what_is_gone(code: int, kernel: KernelEnd) -> None:
    kernel.acknowledge(code=code)
    neigh.delete(kernel.netlink, Neighbour(5, b"\x0a\0\0\1", MAC))


def test_a_refused_entry_is_named(kernel: KernelEnd) -> None:
    kernel.acknowledge(code=1)
    with pytest.raises(PermissionError) as caught:
        neigh.put(kernel.netlink, Neighbour(5, b"\x0a\0\0\1", MAC, forwarding=True))
    assert caught.value.__notes__ == [f"failed to add forwarding entry {MAC.hex(':')} of link 5"]


@given(
    local=ADDRESSES,
    vni=st.integers(1, 2**24 - 1),
    port=st.integers(1, 65535),
    learning=st.booleans(),
    gbp=st.booleans(),
)
def test_a_vxlan_device(local: bytes, vni: int, port: int, learning: bool, gbp: bool) -> None:
    parameters = Vxlan(vni, local, port, 3, learning=learning, gbp=gbp)
    with KernelEnd() as kernel:
        kernel.acknowledge()
        tunnel.create_vxlan(kernel.netlink, "flannel.1", parameters, mac=MAC, mtu=1450)
        asked = kernel.asked()
        assert (asked.kind, asked.flags) == (16, 0x605)
        message = asked.decoded()
        assert (message["index"], message["flags"]) == (0, 0)
        assert (message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_MTU")) == ("flannel.1", 1450)
        assert message.get_attr("IFLA_ADDRESS") == MAC.hex(":")
        info = message.get_attr("IFLA_LINKINFO")
        assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
        data = info.get_attr("IFLA_INFO_DATA")
        assert (data.get_attr("IFLA_VXLAN_ID"), data.get_attr("IFLA_VXLAN_LINK")) == (vni, 3)
        assert data.get_attr("IFLA_VXLAN_LOCAL" + "6" * (len(local) == 16)) == format_address(local)
        assert data.get_attr("IFLA_VXLAN_LEARNING") == learning
        assert data.get_attr("IFLA_VXLAN_PORT") == port
        assert (data.get_attr("IFLA_VXLAN_GBP") is not None) == gbp

        # What was asked for is what the kernel will describe.
        kernel.acknowledge(kernel.message(16, asked.body))
        assert tunnel.vxlan(kernel.netlink, "flannel.1") == parameters
        kernel.acknowledge(
            kernel.message(16, asked.body),
        )
        assert tunnel.ipip(kernel.netlink, "flannel.1") is None


def test_an_ipip_device(kernel: KernelEnd) -> None:
    kernel.acknowledge()
    tunnel.create_ipip(kernel.netlink, "flannel.ipip", b"\xc6\x12\1\2", mtu=1480)
    asked = kernel.asked()
    message = asked.decoded()
    info = message.get_attr("IFLA_LINKINFO")
    assert (info.get_attr("IFLA_INFO_KIND"), message.get_attr("IFLA_MTU")) == ("ipip", 1480)
    assert info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_IPIP_LOCAL") == "198.18.1.2"
    kernel.acknowledge(kernel.message(16, asked.body))
    assert tunnel.ipip(kernel.netlink, "flannel.ipip") == (b"\xc6\x12\1\2", bytes(4))


def test_a_device_that_is_gone(kernel: KernelEnd) -> None:
    kernel.acknowledge(code=19)
    assert tunnel.vxlan(kernel.netlink, "flannel.1") is None
    kernel.acknowledge(code=1)
    with pytest.raises(PermissionError):
        tunnel.vxlan(kernel.netlink, "flannel.1")
