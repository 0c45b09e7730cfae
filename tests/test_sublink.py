"""Messages about links on other links: pyroute2 reads what ours writes, and the other way round."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.kernel import link, linkset, route, sublink
from tests.kernel_end import CREATE_NEW, DONE, INDEXES, MAC, MULTI, KernelEnd, asked, attributes, change_flags

if TYPE_CHECKING:
    from cni_plugins.kernel.sublink import Option


OPTIONS = [
    *(("macvlan", sublink.macvlan_mode(mode), {"IFLA_MACVLAN_MODE": mode}) for mode in sublink.MACVLAN_MODES),
    ("ipvlan", sublink.ipvlan_mode("l2"), {"IFLA_IPVLAN_MODE": 0}),
    ("ipvlan", sublink.ipvlan_mode("l3"), {"IFLA_IPVLAN_MODE": 1}),
    ("ipvlan", sublink.ipvlan_mode("l3s"), {"IFLA_IPVLAN_MODE": 2}),
    ("vlan", sublink.vlan_id(0), {"IFLA_VLAN_ID": 0}),
    ("vlan", sublink.vlan_id(4094), {"IFLA_VLAN_ID": 4094}),
]


@pytest.mark.parametrize(("kind", "option", "expected"), OPTIONS)
def test_create(kind: str, option: Option, expected: dict[str, Any], kernel: KernelEnd) -> None:
    how: dict[str, Any] = {"parent": 7, "netns": 9, "mtu": 1400, "mac": link.parse_mac(MAC)}
    request = asked(kernel, sublink.create, kind, "eth0", options=(option,), **how)
    message = request.decoded()
    assert (request.kind, change_flags(request)) == (16, CREATE_NEW)
    assert (message["index"], message["flags"], message["change"]) == (0, 0, 0), "it is down"
    assert attributes(message) == {
        "IFLA_IFNAME": "eth0",
        "IFLA_LINK": 7,
        "IFLA_NET_NS_FD": 9,
        "IFLA_MTU": 1400,
        "IFLA_ADDRESS": MAC,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": kind, "IFLA_INFO_DATA": expected},
    }


def test_create_with_nothing_said(kernel: KernelEnd) -> None:
    found = attributes(asked(kernel, sublink.create, "dummy", "d0").decoded())
    assert found.pop("IFLA_LINKINFO")["IFLA_INFO_KIND"] == "dummy"
    assert found == {"IFLA_IFNAME": "d0"}
    descriptor_0 = attributes(asked(kernel, sublink.create, "dummy", "d0", netns=0).decoded())
    assert descriptor_0["IFLA_NET_NS_FD"] == 0
    kernel.acknowledge(code=errno.EEXIST)
    with pytest.raises(FileExistsError) as caught:
        sublink.create(kernel.netlink, "dummy", "d0")
    assert caught.value.__notes__ == ["failed to create dummy 'd0'"]


@pytest.mark.parametrize(("kind", "option", "expected"), OPTIONS)
def test_a_link_holds_its_options_and_no_others(
    kind: str, option: Option, expected: dict[str, Any], kernel: KernelEnd
) -> None:
    data = {"attrs": list(expected.items())}
    info = {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", data)]}
    attrs = [("IFLA_IFNAME", "eth0"), ("IFLA_LINK", 7), ("IFLA_LINKINFO", info)]
    kernel.acknowledge(kernel.encoded(16, {"index": 3, "attrs": attrs}))
    found = link.get(kernel.netlink, "eth0")
    assert (found.kind, found.peer) == (kind, 7)
    held = [other.label for known, other, _expected in OPTIONS if known == kind and other.holds(found)]
    assert held == [option.label]
    found.data = {}
    assert not option.holds(found)


def test_the_broadcast_queue() -> None:
    """IFLA_MACVLAN_BC_QUEUE_LEN, which pyroute2 does not know."""
    for length in (1, 2**32 - 1):
        assert sublink.macvlan_broadcast_queue(length).attribute == struct.pack("=HHI", 8, 7, length)


@pytest.mark.parametrize("call", [sublink.macvlan_mode, sublink.ipvlan_mode])
def test_unknown_modes(call: Any) -> None:
    with pytest.raises(KeyError):
        call("bridged")


@given(INDEXES)
def test_rename(index: int) -> None:
    with KernelEnd() as kernel:
        request = asked(kernel, linkset.rename, index, "eth0")
    message = request.decoded()
    assert (request.kind, change_flags(request), message["index"]) == (16, 0, index)
    assert attributes(message) == {"IFLA_IFNAME": "eth0"}


def dumped(kernel: KernelEnd, ahead: int, family: int, *routes: dict[str, Any]) -> bytes:
    """Return the kernel's answer to the request that comes after so many others."""
    number = kernel.next + ahead
    value = {"family": family, "type": 1, "table": 254, "scope": 0}
    listed = [kernel.encoded(24, {**value, **each}, flags=MULTI, sequence=number) for each in routes]
    return b"".join((*listed, kernel.message(DONE, bytes(4), MULTI, sequence=number)))


def default(link_: int, metric: int = 0, **more: Any) -> dict[str, Any]:
    attrs = [("RTA_OIF", link_), ("RTA_GATEWAY", "10.0.0.1"), ("RTA_TABLE", 254)]
    return {"attrs": [*attrs, *([("RTA_PRIORITY", metric)] if metric else [])], **more}


def test_default_link(kernel: KernelEnd) -> None:
    others = ({"dst_len": 8, "attrs": [("RTA_DST", "10.0.0.0"), ("RTA_OIF", 3)]}, {"type": 7, "attrs": []})
    kernel.say(dumped(kernel, 0, 2, *others, default(5, 100), default(6, 50), default(7, 50)))
    assert route.default_link(kernel.netlink) == 6
    request = kernel.asked()
    assert (request.kind, request.body[0], request.body[4]) == (26, 2, 254), "only the main table"


def test_default_link_of_several_next_hops(kernel: KernelEnd) -> None:
    hops = [{"oif": 8, "flags": 0, "hops": 0, "attrs": []}, {"oif": 9, "flags": 0, "hops": 0, "attrs": []}]
    kernel.say(dumped(kernel, 0, 2, {"attrs": [("RTA_MULTIPATH", hops)]}))
    assert route.default_link(kernel.netlink) == 8


@given(st.sampled_from([errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP]))
def test_default_link_by_the_other_family(code: int) -> None:
    with KernelEnd() as kernel:
        kernel.acknowledge(code=code)
        attrs = [("RTA_OIF", 4), ("RTA_GATEWAY", "fe80::1"), ("RTA_PRIORITY", 1024)]
        kernel.say(dumped(kernel, 1, 10, {"attrs": attrs}))
        assert route.default_link(kernel.netlink) == 4


def test_no_default_link(kernel: KernelEnd) -> None:
    kernel.say(dumped(kernel, 0, 2))
    kernel.say(dumped(kernel, 1, 10))
    assert route.default_link(kernel.netlink) is None
    kernel.acknowledge(code=errno.EPERM)
    with pytest.raises(PermissionError) as caught:
        route.default_link(kernel.netlink)
    assert caught.value.__notes__ == ["failed to list the routes"]
