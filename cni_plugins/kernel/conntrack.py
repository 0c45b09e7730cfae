"""Forgetting UDP flows (linux/netfilter/nfnetlink_conntrack.h).

A flow keeps the destination that its first packet got, and UDP has no end that the kernel could see: a client
that goes on sending would reach a dead pod for as long as it does.
"""

from __future__ import annotations

from cni_plugins.address import format_address
from cni_plugins.kernel.nlattr import attr, attr_u8, attr_u32, attribute_map, nested, required

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cni_plugins.kernel.netlink import Netlink

_GET = 0x101  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELETE = 0x102
_FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6
_UDP = 17

_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_REPLY = 2
_CTA_ID = 12
_CTA_FILTER = 25
_CTA_TUPLE_IP = 1
_CTA_TUPLE_PROTO = 2
_CTA_IP_SRC = {4: 1, 6: 3}
_CTA_IP_DST = {4: 2, 6: 4}
_CTA_PROTO_NUM = 1
_CTA_PROTO_DST_PORT = 3
_CTA_FILTER_ORIG_FLAGS = 1
_CTA_FILTER_REPLY_FLAGS = 2
_F_PROTO_NUM = 1 << 3  # net/netfilter/nf_internals.h: CTA_FILTER_F_CTA_PROTO_NUM
_F_PROTO_DST_PORT = 1 << 5

_ENOENT = 2
_EINVAL = 22
_EOPNOTSUPP = 95


class Flows:
    """Which UDP flows are meant: those to any of some ports.

    Args:
        family: 4 or 6.
        targets: port, and the address it was sent to or None for any, of the flow's first packet.
        forwarded_to: only flows that were forwarded to this address; None: all.
    """

    __slots__ = ("family", "forwarded_to", "targets")

    def __init__(
        self, family: int, targets: Collection[tuple[int, bytes | None]], forwarded_to: bytes | None = None
    ) -> None:
        self.family = family
        self.targets = targets
        self.forwarded_to = forwarded_to

    def include(self, flow: dict[int, bytes]) -> bool:
        """Tell whether a flow, as the kernel describes it, is one of them."""
        original = attribute_map(flow.get(_CTA_TUPLE_ORIG, b""))
        protocol = attribute_map(original.get(_CTA_TUPLE_PROTO, b""))
        if protocol.get(_CTA_PROTO_NUM) != bytes((_UDP,)):
            return False
        address = attribute_map(original.get(_CTA_TUPLE_IP, b"")).get(_CTA_IP_DST[self.family])
        port = int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")
        if (port, None) not in self.targets and (port, address) not in self.targets:
            return False
        if self.forwarded_to is None:
            return True
        reply = attribute_map(flow.get(_CTA_TUPLE_REPLY, b""))
        return attribute_map(reply.get(_CTA_TUPLE_IP, b"")).get(_CTA_IP_SRC[self.family]) == self.forwarded_to


def forget(netlink: Netlink, flows: Flows) -> int:
    """Delete UDP flows and return how many there were; the next packet of each begins a new one.

    Args:
        netlink: a netfilter socket.
        flows: which.

    Raises:
        OSError: the kernel refused.
    """
    header = bytes((_FAMILIES[flows.family], 0, 0, 0))
    count = 0
    try:
        for reply in _udp(netlink, header, {port for port, _address in flows.targets}):
            described = attribute_map(reply, 4)
            if flows.include(described):
                count += _delete(netlink, header, described)
    except OSError as error:
        error.add_note(f"failed to forget UDP flows to {_describe(flows)}")
        raise
    return count


def _udp(netlink: Netlink, header: bytes, ports: Collection[int]) -> list[bytes]:
    """Dump the UDP flows, or more: kernels before 5.8 know no filter and ignore it."""
    protocol = [attr_u8(_CTA_PROTO_NUM, _UDP)]
    flags = _F_PROTO_NUM
    if len(ports) == 1:
        protocol.append(attr(_CTA_PROTO_DST_PORT, next(iter(ports)).to_bytes(2, "big")))
        flags |= _F_PROTO_DST_PORT
    wanted = nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_PROTO, *protocol)) + nested(
        _CTA_FILTER, attr_u32(_CTA_FILTER_ORIG_FLAGS, flags), attr_u32(_CTA_FILTER_REPLY_FLAGS, 0)
    )
    try:
        replies = netlink.dump(_GET, header + wanted)
    except OSError as error:
        if error.errno not in (_EINVAL, _EOPNOTSUPP):
            raise
        replies = netlink.dump(_GET, header)
    return [reply.body for reply in replies]


def _delete(netlink: Netlink, header: bytes, flow: dict[int, bytes]) -> int:
    # The id makes sure that it is this flow, and not one that took its place since the dump.
    body = nested(_CTA_TUPLE_ORIG, required(flow, _CTA_TUPLE_ORIG)) + attr(_CTA_ID, required(flow, _CTA_ID))
    try:
        netlink.request(_DELETE, 0, header + body)
    except OSError as error:
        if error.errno != _ENOENT:  # it ended meanwhile
            raise
        return 0
    return 1


def _describe(flows: Flows) -> str:
    return ", ".join(
        f"{format_address(address) if address else 'any'} port {port}" for port, address in flows.targets
    )
