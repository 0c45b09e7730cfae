"""Messages about links: pyroute2 reads what ours writes, and the other way round."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.kernel import bridgeport, link, linkset, newlink
from tests.kernel_end import (
    CREATE_NEW,
    DONE,
    INDEXES,
    MAC,
    MULTI,
    KernelEnd,
    asked,
    attributes,
    change_flags,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_create_bridge(kernel: KernelEnd) -> None:
    request = asked(kernel, newlink.create_bridge, "cni0", link.parse_mac(MAC), mtu=1450, vlan_filtering=True)
    message = request.decoded()
    assert (request.kind, change_flags(request)) == (16, CREATE_NEW)
    assert (message["index"], message["flags"], message["change"]) == (0, 0, 0)
    assert attributes(message) == {
        "IFLA_IFNAME": "cni0",
        "IFLA_ADDRESS": MAC,
        "IFLA_MTU": 1450,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1}},
    }


def test_create_a_plain_bridge(kernel: KernelEnd) -> None:
    message = asked(kernel, newlink.create_bridge, "br", link.parse_mac(MAC)).decoded()
    assert attributes(message) == {
        "IFLA_IFNAME": "br",
        "IFLA_ADDRESS": MAC,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"},
    }


def test_create_veth(kernel: KernelEnd) -> None:
    request = asked(
        kernel, newlink.create_veth, "veth1", "eth0", 9, master=7, mtu=1400, mac=link.parse_mac(MAC)
    )
    message = request.decoded()
    assert (request.kind, change_flags(request)) == (16, CREATE_NEW)
    assert (message["index"], message["flags"], message["change"]) == (0, 1, 1), "this end is up"
    found = attributes(message)
    peer = found["IFLA_LINKINFO"]["IFLA_INFO_DATA"].pop("VETH_INFO_PEER")
    assert found == {
        "IFLA_IFNAME": "veth1",
        "IFLA_MTU": 1400,
        "IFLA_MASTER": 7,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {}},
    }
    assert peer == {"IFLA_IFNAME": "eth0", "IFLA_MTU": 1400, "IFLA_ADDRESS": MAC, "IFLA_NET_NS_FD": 9}


def test_create_a_plain_veth(kernel: KernelEnd) -> None:
    found = attributes(asked(kernel, newlink.create_veth, "a", "b", None).decoded())
    assert found["IFLA_LINKINFO"]["IFLA_INFO_DATA"]["VETH_INFO_PEER"] == {"IFLA_IFNAME": "b"}
    assert set(found) == {"IFLA_IFNAME", "IFLA_LINKINFO"}
    descriptor_0 = attributes(asked(kernel, newlink.create_veth, "a", "b", 0).decoded())
    assert descriptor_0["IFLA_LINKINFO"]["IFLA_INFO_DATA"]["VETH_INFO_PEER"]["IFLA_NET_NS_FD"] == 0


@pytest.mark.parametrize(
    ("call", "flags", "change"),
    [(link.set_up, 1, 1), (link.set_down, 0, 1), (linkset.set_promiscuous, 0x100, 0x100)],
)
def test_flags(call: Callable[..., None], flags: int, change: int, kernel: KernelEnd) -> None:
    request = asked(kernel, call, 5)
    message = request.decoded()
    assert (request.kind, change_flags(request)) == (16, 0), "nothing is made"
    assert (message["index"], message["flags"], message["change"]) == (5, flags, change)
    assert message["attrs"] == []


def test_up_with_a_text_left_on_it(kernel: KernelEnd) -> None:
    for text, expected in (("a:b:c", {"IFLA_IFALIAS": "a:b:c"}), ("é" * 127, {"IFLA_IFALIAS": "é" * 127})):
        message = asked(kernel, link.set_up, 5, text).decoded()
        assert (message["index"], message["flags"], message["change"]) == (5, 1, 1)
        assert attributes(message) == expected
    assert attributes(asked(kernel, link.set_up, 5, "é" * 128).decoded()) == {}, "IFALIASZ"


def test_who_is_gone_has_no_master(kernel: KernelEnd) -> None:
    """A namespace can go while a DEL is in it."""
    port, vrf = link.Link(link.header(5)), link.Link(link.header(7))
    kernel.acknowledge(code=errno.ENODEV)
    linkset.set_master(kernel.netlink, port, None)
    kernel.acknowledge(code=errno.ENODEV)
    with pytest.raises(OSError, match="No such device"):
        linkset.set_master(kernel.netlink, port, vrf)


def test_set_master_and_mac(kernel: KernelEnd) -> None:
    port, bridge = (link.Link(link.header(index)) for index in (5, 7))
    for request, expected in (
        (asked(kernel, linkset.set_master, port, bridge), {"IFLA_MASTER": 7}),
        (asked(kernel, linkset.set_master, port, None), {"IFLA_MASTER": 0}),
        (asked(kernel, link.set_mac, 5, link.parse_mac(MAC)), {"IFLA_ADDRESS": MAC}),
    ):
        message = request.decoded()
        assert (request.kind, change_flags(request), message["index"]) == (16, 0, 5)
        assert (message["flags"], message["change"]) == (0, 0), "up or down stays as it is"
        assert attributes(message) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"hairpin": True}, {"IFLA_BRPORT_MODE": 1}),
        ({"isolated": True}, {"IFLA_BRPORT_ISOLATED": 1}),
        ({"hairpin": True, "isolated": True}, {"IFLA_BRPORT_MODE": 1, "IFLA_BRPORT_ISOLATED": 1}),
    ],
)
def test_set_port(options: dict[str, bool], expected: dict[str, int], kernel: KernelEnd) -> None:
    request = asked(kernel, bridgeport.set_port, 5, **options)
    message = request.decoded()
    assert (request.kind, message["family"], message["index"]) == (19, 7, 5)
    assert attributes(message) == {"IFLA_PROTINFO": expected}


@pytest.mark.parametrize(
    ("call", "kind", "expected"),
    [
        (lambda nl: bridgeport.add_vlans(nl, 5, 100, 100, untagged=True), 19, (1, [(0x6, 100)])),
        (lambda nl: bridgeport.add_vlans(nl, 5, 100, 100), 19, (1, [(0, 100)])),
        (lambda nl: bridgeport.add_vlans(nl, 5, 100, 200), 19, (1, [(0x8, 100), (0x10, 200)])),
        (lambda nl: bridgeport.add_vlans(nl, 5, 1, 4094, on_bridge=True), 19, (2, [(0x8, 1), (0x10, 4094)])),
        (lambda nl: bridgeport.delete_vlan(nl, 5, 1), 17, (1, [(0, 1)])),
    ],
)
def test_vlans_of_a_port(
    call: Callable[..., None], kind: int, expected: tuple[int, list[tuple[int, int]]], kernel: KernelEnd
) -> None:
    """linux/if_bridge.h: 1 is the bridge's own table for the port, 2 the bridge itself."""
    request = asked(kernel, call)
    message = request.decoded()
    assert (request.kind, message["family"], message["index"]) == (kind, 7, 5)
    spec = message.get_attr("IFLA_AF_SPEC")["attrs"]
    assert spec[0][1] in (expected[0], {"value": expected[0]})
    assert [(info["flags"], info["vid"]) for _name, info in spec[1:]] == expected[1]


def test_delete(kernel: KernelEnd) -> None:
    request = asked(kernel, link.delete, "veth1")
    assert (request.kind, attributes(request.decoded())) == (17, {"IFLA_IFNAME": "veth1"})
    kernel.acknowledge()
    assert link.delete(kernel.netlink, "veth1") is True
    kernel.acknowledge(code=errno.ENODEV)
    assert link.delete(kernel.netlink, "veth1") is False
    kernel.acknowledge(code=errno.EBUSY)
    with pytest.raises(OSError, match="busy") as caught:
        link.delete(kernel.netlink, "veth1")
    assert caught.value.__notes__ == ["failed to delete link 'veth1'"]


def test_find(kernel: KernelEnd) -> None:
    kernel.acknowledge(code=errno.ENODEV)
    assert link.find(kernel.netlink, "eth9") is None
    request = kernel.asked()
    assert request.kind == 18
    found = attributes(request.decoded())
    assert found == {"IFLA_EXT_MASK": 8, "IFLA_IFNAME": "eth9"}, "statistics are left out"
    kernel.acknowledge(code=errno.EPERM)
    with pytest.raises(PermissionError) as caught:
        link.find(kernel.netlink, "eth9")
    assert caught.value.__notes__ == ["failed to look up link 'eth9'"]


def test_get_by_index(kernel: KernelEnd) -> None:
    kernel.acknowledge(kernel.encoded(16, {"index": 5, "attrs": [("IFLA_IFNAME", "eth0")]}))
    assert link.get(kernel.netlink, index=5).name == "eth0"
    message = kernel.asked().decoded()
    assert (message["index"], attributes(message)) == (5, {"IFLA_EXT_MASK": 8})


NAMES = st.text(st.characters(codec="utf-8", min_codepoint=33), min_size=1, max_size=5)


@given(st.data())
def test_a_link_as_the_kernel_describes_it(data: st.DataObject) -> None:
    index, master, peer = data.draw(INDEXES), data.draw(INDEXES), data.draw(INDEXES)
    flags, mtu = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 2**32 - 1))
    name, mac = data.draw(NAMES), data.draw(st.binary(min_size=6, max_size=6))
    hairpin, isolated, state = (
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        data.draw(st.integers(0, 4)),
    )
    port = [("IFLA_BRPORT_STATE", state), ("IFLA_BRPORT_MODE", hairpin), ("IFLA_BRPORT_ISOLATED", isolated)]
    with KernelEnd() as kernel:
        message = kernel.encoded(
            16,
            {
                "index": index,
                "flags": flags,
                "attrs": [
                    ("IFLA_IFNAME", name),
                    ("IFLA_ADDRESS", mac.hex(":")),
                    ("IFLA_MTU", mtu),
                    ("IFLA_MASTER", master),
                    ("IFLA_LINK", peer),
                    (
                        "IFLA_LINKINFO",
                        {
                            "attrs": [
                                ("IFLA_INFO_KIND", "veth"),
                                ("IFLA_INFO_SLAVE_KIND", "bridge"),
                                ("IFLA_INFO_SLAVE_DATA", {"attrs": port}),
                            ]
                        },
                    ),
                ],
            },
        )
    found = link.Link(message[16:])
    assert (found.index, found.flags, found.name, found.mac, found.mtu) == (
        index,
        flags,
        name,
        mac.hex(":"),
        mtu,
    )
    assert (found.master, found.peer, found.kind) == (master, peer, "veth")
    assert (found.hairpin, found.isolated) == (hairpin, isolated)
    assert found.is_up is bool(flags & 1)
    assert found.vlan_filtering is False


@pytest.mark.parametrize("filtering", [0, 1])
def test_a_bridge_as_the_kernel_describes_it(filtering: int, kernel: KernelEnd) -> None:
    data = {"attrs": [("IFLA_BR_VLAN_FILTERING", filtering)]}
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}
    kernel.acknowledge(kernel.encoded(16, {"index": 3, "attrs": [("IFLA_LINKINFO", info)]}))
    found = link.get(kernel.netlink, "cni0")
    assert (found.kind, found.vlan_filtering) == ("bridge", bool(filtering))
    assert (found.name, found.mac, found.mtu, found.master, found.peer) == ("", "", 0, 0, 0)
    assert (found.hairpin, found.isolated, found.carries, found.is_up) == (False, False, False, False)


def test_links(kernel: KernelEnd) -> None:
    each = [
        kernel.encoded(16, {"index": n, "attrs": [("IFLA_IFNAME", f"eth{n}")]}, flags=MULTI) for n in (1, 2)
    ]
    kernel.say(*each, kernel.message(DONE, bytes(4), MULTI))
    assert [found.name for found in link.links(kernel.netlink)] == ["eth1", "eth2"]
    assert kernel.asked().kind == 18


def test_vlans(kernel: KernelEnd) -> None:
    def port(index: int, *infos: tuple[int, int]) -> bytes:
        spec = [("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vid}) for flags, vid in infos]
        mode = ("IFLA_BRIDGE_MODE", 0)
        attrs = [("IFLA_AF_SPEC", {"attrs": [mode, *spec]})] if infos else []
        return kernel.encoded(16, {"family": 7, "index": index, "attrs": attrs}, flags=MULTI)

    kernel.say(port(3, (0x6, 1), (0x8, 10), (0x10, 12), (0, 20)), port(4, (0x8 | 0x4, 5), (0x10 | 0x4, 6)))
    kernel.say(port(5), kernel.message(DONE, bytes(4), MULTI))
    assert bridgeport.vlans(kernel.netlink) == {
        3: {1: True, 10: False, 11: False, 12: False, 20: False},
        4: {5: True, 6: True},
        5: {},
    }
    request = kernel.asked()
    assert request.decoded().get_attr("IFLA_EXT_MASK") == 4
    assert (request.kind, request.body[:16]) == (18, bytes([7]) + bytes(15))


@given(st.binary(min_size=6, max_size=6))
def test_hardware_addresses(mac: bytes) -> None:
    assert link.parse_mac(link.format_mac(mac)) == mac
    assert link.parse_mac(mac.hex("-").upper()) == mac


@given(st.text("0123456789abcdefg:- \t\n\u0661", max_size=20))
def test_no_hardware_addresses(text: str) -> None:
    try:
        mac = link.parse_mac(text)
    except ValueError:
        return
    assert len(mac) == 6
    assert link.format_mac(mac) == text.lower().replace("-", ":")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:0",
        "2:0:0:0:0:1",
        "0200.0000.0001",
        "  :02:00:00:00:01",
        "02:00:00:00:0102:",
        "0g:00:00:00:00:01",
    ],
)
def test_what_is_no_hardware_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"MAC address|fromhex"):
        link.parse_mac(text)
