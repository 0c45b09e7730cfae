"""The messages about bridge VLANs against pyroute2: few kernels of test machines have the feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cni_plugins.kernel import bridgeport, link, newlink
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

AF_BRIDGE = 7
PORT = 17
MASTER, SELF = 1, 2
PVID, UNTAGGED, BEGIN, END = 2, 4, 8, 16


class Capture(Netlink):
    """In the place of a socket to a kernel with the feature: keeps requests, gives prepared replies."""

    def __init__(self, replies: list[Reply] | None = None) -> None:
        self.requests: list[tuple[int, int, bytes]] = []
        self._answers = replies or []

    def request(self, kind: int, flags: int, body: bytes) -> list[Reply]:
        self.requests.append((kind, flags, body))
        return []

    def dump(self, kind: int, body: bytes, what: str = "") -> list[Reply]:  # noqa: ARG002
        self.requests.append((kind, 0, body))
        return self._answers


def sent(call: Callable[[Any], None]) -> tuple[int, int, ifinfmsg]:
    """Return the kind, flags and decoded body of the one request that a function sends."""
    capture = Capture()
    call(capture)
    ((kind, flags, body),) = capture.requests
    data = bytearray(16) + body
    data[:4] = len(data).to_bytes(4, "little")
    message = ifinfmsg(bytes(data))
    message.decode()
    return kind, flags, message


def vlan_infos(message: ifinfmsg) -> list[tuple[int, int]]:
    spec = message.get_attr("IFLA_AF_SPEC")
    return [(info["vid"], info["flags"]) for info in spec.get_attrs("IFLA_BRIDGE_VLAN_INFO")]


@pytest.mark.parametrize(
    ("call", "kind", "to", "infos"),
    [
        (lambda nl: bridgeport.add_vlans(nl, PORT, 10, 10), link.RTM_SETLINK, MASTER, [(10, 0)]),
        (
            lambda nl: bridgeport.add_vlans(nl, PORT, 10, 10, untagged=True),
            link.RTM_SETLINK,
            MASTER,
            [(10, PVID | UNTAGGED)],
        ),
        (
            lambda nl: bridgeport.add_vlans(nl, PORT, 100, 4094),
            link.RTM_SETLINK,
            MASTER,
            [(100, BEGIN), (4094, END)],
        ),
        (
            lambda nl: bridgeport.add_vlans(nl, PORT, 5, 6, on_bridge=True),
            link.RTM_SETLINK,
            SELF,
            [(5, BEGIN), (6, END)],
        ),
        (lambda nl: bridgeport.delete_vlan(nl, PORT, 1), link.RTM_DELLINK, MASTER, [(1, 0)]),
    ],
)
def test_vlans_of_a_port(
    call: Callable[[Netlink], None], kind: int, to: int, infos: list[tuple[int, int]]
) -> None:
    sent_kind, _flags, message = sent(call)
    assert sent_kind == kind
    assert (message["family"], message["index"]) == (AF_BRIDGE, PORT)
    assert message.get_attr("IFLA_AF_SPEC").get_attr("IFLA_BRIDGE_VLAN_FLAGS") == to
    assert vlan_infos(message) == infos


@pytest.mark.parametrize("filtering", [False, True])
def test_a_bridge_that_filters_vlans(filtering: bool) -> None:
    kind, flags, message = sent(
        lambda nl: newlink.create_bridge(nl, "br0", b"\2\0\0\0\0\1", mtu=1400, vlan_filtering=filtering)
    )
    assert (kind, flags) == (link.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
    assert message.get_attr("IFLA_IFNAME") == "br0"
    assert message.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    assert message.get_attr("IFLA_MTU") == 1400
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "bridge"
    data = info.get_attr("IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_BR_VLAN_FILTERING") if data else None) == (1 if filtering else None)


def port(index: int, *infos: tuple[int, int]) -> Reply:
    """Return the kernel's description of a port, as pyroute2 writes it."""
    message = ifinfmsg()
    message["family"], message["index"] = AF_BRIDGE, index
    attrs = [["IFLA_BRIDGE_VLAN_INFO", {"vid": vid, "flags": flags}] for vid, flags in infos]
    message["attrs"] = [["IFLA_IFNAME", f"veth{index}"]]
    if attrs:
        message["attrs"].append(["IFLA_AF_SPEC", {"attrs": attrs}])
    message.encode()
    return Reply(link.RTM_NEWLINK, 0, bytes(message.data)[16:])


def test_vlans_of_all_ports_are_read() -> None:
    capture = Capture(
        [
            port(3, (1, PVID | UNTAGGED)),
            port(4, (1, 0), (10, BEGIN), (13, END), (20, BEGIN | UNTAGGED), (21, END | UNTAGGED)),
            port(5),
        ]
    )
    found = bridgeport.vlans(capture)
    assert found == {
        3: {1: True},
        4: {1: False, 10: False, 11: False, 12: False, 13: False, 20: True, 21: True},
        5: {},
    }
    ((kind, _flags, body),) = capture.requests
    compressed = 4
    assert kind == link.RTM_GETLINK
    assert (body[0], body[-4:]) == (AF_BRIDGE, compressed.to_bytes(4, "little"))
