"""Neighbours and forwarding entries (rtnetlink(7), linux/neighbour.h).

A neighbour says which link-layer address an IP address has on a link (`ip neigh`). A forwarding entry (FDB)
says behind which remote machine a VXLAN device reaches a link-layer address (`bridge fdb`).
"""

from __future__ import annotations

import errno
from _struct import Struct

from cni_plugins.kernel.addr import received
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE
from cni_plugins.kernel.nlattr import attr, attr_u32, attribute_map, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink, Reply

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30

AF_BRIDGE = 7
_AF_INET = 2
_AF_INET6 = 10
NUD_PERMANENT = 0x80
_NUD_NOARP = 0x40
NTF_SELF = 0x02
_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_PORT = 6
_NDA_VNI = 7
_NDA_IFINDEX = 8

_NDMSG = Struct("=BxxxiHBB")


class Neighbour:
    """A permanent neighbour, or a permanent forwarding entry of a VXLAN device.

    Attributes:
        link: index of the device.
        dst: of a neighbour its IP address, of a forwarding entry the remote machine's.
        mac: the link-layer address.
        forwarding: it is a forwarding entry.
        permanent: nothing but a request removes it.
        plain: a forwarding entry by the device's own port, VNI and link.
    """

    __slots__ = ("dst", "forwarding", "link", "mac", "permanent", "plain")

    def __init__(
        self,
        link: int,
        dst: bytes,
        mac: bytes,
        *,
        forwarding: bool = False,
        permanent: bool = True,
        plain: bool = True,
    ) -> None:
        self.link = link
        self.dst = dst
        self.mac = mac
        self.forwarding = forwarding
        self.permanent = permanent
        self.plain = plain


def _message(entry: Neighbour) -> bytes:
    if entry.forwarding:
        family, state, flags = AF_BRIDGE, NUD_PERMANENT | _NUD_NOARP, NTF_SELF
    else:
        family, state, flags = _AF_INET if len(entry.dst) == 4 else _AF_INET6, NUD_PERMANENT, 0
    return (
        _NDMSG.pack(family, entry.link, state, flags, 0)
        + attr(_NDA_DST, entry.dst)
        + attr(_NDA_LLADDR, entry.mac)
    )


def put(nl: Netlink, entry: Neighbour) -> None:
    """Add an entry, in the place of the one for the same address if there is one.

    Raises:
        OSError: ENODEV: there is no such link.
    """
    nl.tell(RTM_NEWNEIGH, _message(entry), f"failed to add {_name(entry)}", NLM_F_CREATE | NLM_F_REPLACE)


def delete(nl: Netlink, entry: Neighbour) -> None:
    """Delete an entry; one that is gone already, with or without its link, is no error."""
    nl.tell(
        RTM_DELNEIGH, _message(entry), f"failed to delete {_name(entry)}", gone=(errno.ENOENT, errno.ENODEV)
    )


def neighbours(nl: Netlink, link: int, version: int) -> list[Neighbour]:
    """Return a link's neighbours of one IP version that have a link-layer address."""
    family = _AF_INET if version == 4 else _AF_INET6
    return _dump(nl, _NDMSG.pack(family, 0, 0, 0, 0) + attr_u32(_NDA_IFINDEX, link), link)


def forwarding(nl: Netlink, link: int) -> list[Neighbour]:
    """Return the forwarding entries of a VXLAN device that lead to a machine."""
    return _dump(nl, _NDMSG.pack(AF_BRIDGE, link, 0, 0, 0), link)


def _dump(nl: Netlink, body: bytes, link: int) -> list[Neighbour]:
    found = [parse(reply) for reply in nl.dump(RTM_GETNEIGH, body, f"the neighbours of link {link}")]
    return [each for each in found if each.link == link and each.dst and each.mac]


def parse(reply: Reply) -> Neighbour:
    """Return the entry that a message of the kernel's describes; without a dst or MAC when it names none."""
    family, link, state, _flags, _type = unpack(_NDMSG, reply.body)
    given = attribute_map(reply.body, 12)
    dst = given.get(_NDA_DST, b"")
    return Neighbour(
        link,
        received(dst, 0).address if dst else dst,
        given.get(_NDA_LLADDR, b""),
        forwarding=family == AF_BRIDGE,
        permanent=bool(state & NUD_PERMANENT),
        plain=not given.keys() & {_NDA_PORT, _NDA_VNI, _NDA_IFINDEX} or family != AF_BRIDGE,
    )


def _name(entry: Neighbour) -> str:
    what = "forwarding entry" if entry.forwarding else "neighbour"
    return f"{what} {entry.mac.hex(':')} of link {entry.link}"
