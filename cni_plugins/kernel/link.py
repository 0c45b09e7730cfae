"""Links: reading them, bringing them up and down, deleting them (rtnetlink(7), linux/if_link.h).

`newlink` makes them, `linkset` changes what they are.
"""

from __future__ import annotations

import errno
from _struct import Struct

from cni_plugins.kernel.nlattr import attr, attr_str, attr_u32, attribute_map, text, uint, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19

IFF_UP = 0x1
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_TXQLEN = 13
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_DATA = 5
_IF_OPER_UP = 6
IFLA_BR_STP_STATE = 5
IFLA_BR_VLAN_FILTERING = 7
IFLA_BRPORT_MODE = 4
IFLA_BRPORT_ISOLATED = 33
_EXT_SKIP_STATS = 8

_IFINFOMSG = Struct("=BxHiII")
RTMGRP_LINK = 1
MAX_ALIAS = 255
"""IFALIASZ - 1 (linux/if.h)."""
_SKIP_STATS = attr_u32(IFLA_EXT_MASK, _EXT_SKIP_STATS)


def header(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    """Return the head of a message about a link (struct ifinfomsg)."""
    return _IFINFOMSG.pack(family, 0, index, flags, change)


def index_of(message: bytes) -> int:
    """Return the index of the link that a message is about."""
    index: int = unpack(_IFINFOMSG, message)[2]
    return index


class Link:
    """A network interface as the kernel describes it.

    Attributes:
        index: its number in its namespace.
        name: its name there.
        mac: hardware address, as text; empty when it has none.
        mtu: in bytes.
        flags: IFF_….
        kind: the driver's name ("bridge", "veth"); empty for hardware and loopback.
        master: index of the bridge or VRF it belongs to; 0 for none.
        operstate: IF_OPER_… (RFC 2863); loopback and others that have no carrier stay at UNKNOWN. Before
            Linux 6.8 a veth or bridge starts there, too.
        peer: index of the other end of a veth pair, or of the link that this one is on (macvlan, vlan), in
            that one's namespace; 0 for none.
        stp: of a bridge: whether it runs the spanning tree protocol.
        tx_queue_len: packets that its queue holds.
        alias: text that whoever made it left on it; empty for none.
        vlan_filtering: of a bridge: whether it tells VLANs apart.
        data: what only its kind has (IFLA_INFO_DATA), by attribute number.
        port: as a bridge port: its attributes (IFLA_BRPORT_…) by number.
    """

    __slots__ = (
        "alias",
        "data",
        "flags",
        "index",
        "kind",
        "mac",
        "master",
        "mtu",
        "name",
        "operstate",
        "peer",
        "port",
        "stp",
        "tx_queue_len",
        "vlan_filtering",
    )

    def __init__(self, body: bytes) -> None:
        _family, _type, self.index, self.flags, _change = unpack(_IFINFOMSG, body)
        found = attribute_map(body, 16)
        self.name = text(found.get(IFLA_IFNAME, b""))
        self.mac = format_mac(found.get(IFLA_ADDRESS, b""))
        self.mtu = uint(found.get(IFLA_MTU, b""))
        self.master = uint(found.get(IFLA_MASTER, b""))
        self.peer = uint(found.get(IFLA_LINK, b""))
        self.operstate = uint(found.get(IFLA_OPERSTATE, b""))
        self.tx_queue_len = uint(found.get(IFLA_TXQLEN, b""))
        self.alias = text(found.get(IFLA_IFALIAS, b""))
        info = attribute_map(found.get(IFLA_LINKINFO, b""))
        self.kind = text(info.get(IFLA_INFO_KIND, b""))
        self.data = attribute_map(info.get(IFLA_INFO_DATA, b""))
        bridge = self.data if self.kind == "bridge" else {}
        self.stp = bridge.get(IFLA_BR_STP_STATE, bytes(4)) != bytes(4)
        self.vlan_filtering = bridge.get(IFLA_BR_VLAN_FILTERING, b"\0") != b"\0"
        self.port = attribute_map(info.get(IFLA_INFO_SLAVE_DATA, b""))

    @property
    def is_up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def promiscuous(self) -> bool:
        """Whether it was told to take in every frame."""
        return bool(self.flags & IFF_PROMISC)

    @property
    def all_multicast(self) -> bool:
        """Whether it was told to take in every multicast frame."""
        return bool(self.flags & IFF_ALLMULTI)

    @property
    def hairpin(self) -> bool:
        """Of a bridge port: whether frames may leave where they came in."""
        return self.port.get(IFLA_BRPORT_MODE, b"\0") != b"\0"

    @property
    def isolated(self) -> bool:
        """Of a bridge port: whether it is cut off from other isolated ports."""
        return self.port.get(IFLA_BRPORT_ISOLATED, b"\0") != b"\0"

    @property
    def carries(self) -> bool:
        """Of a veth or bridge: whether the kernel has acted on its carrier, so that frames leave."""
        return self.operstate == _IF_OPER_UP


def format_mac(address: bytes) -> str:
    """Return a hardware address as text, lower case with colons."""
    return address.hex(":")


def parse_mac(text_: str) -> bytes:
    """Return the six bytes of a MAC address with colons or hyphens.

    Raises:
        ValueError: it is none.
    """
    parts = text_.replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 for part in parts):
        raise ValueError(f"{text_!r} is not a MAC address")
    address = bytes.fromhex("".join(parts))
    if len(address) != 6:  # fromhex skips white space
        raise ValueError(f"{text_!r} is not a MAC address")
    return address


def get(nl: Netlink, name: str = "", *, index: int = 0) -> Link:
    """Return a link by name or index.

    Raises:
        OSError: ENODEV: there is none.
    """
    body = header(index) + _SKIP_STATS
    if name:
        body += attr_str(IFLA_IFNAME, name)
    try:
        return Link(nl.get(RTM_GETLINK, body).body)
    except OSError as error:
        error.add_note(f"failed to look up link {name or index!r}")
        raise


def find(nl: Netlink, name: str = "", *, index: int = 0) -> Link | None:
    """Return a link by name or index; None when there is none."""
    try:
        return get(nl, name, index=index)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def set_up(nl: Netlink, index: int, owner: str = "") -> None:
    """Bring a link up; leave a text on it, if one is given, as `mark` does."""
    body = header(index, IFF_UP, IFF_UP) + _alias(owner)
    nl.tell(RTM_NEWLINK, body, f"failed to bring link {index} up")


def set_down(nl: Netlink, index: int) -> None:
    """Take a link down."""
    nl.tell(RTM_NEWLINK, header(index, 0, IFF_UP), f"failed to take link {index} down")


def set_mac(nl: Netlink, index: int, mac: bytes) -> None:
    """Give a link its hardware address."""
    nl.tell(
        RTM_NEWLINK,
        header(index) + attr(IFLA_ADDRESS, mac),
        f"failed to set the address of link {index}",
    )


def mark(nl: Netlink, name: str, owner: str) -> bool:
    """Leave a text on a link that says whose it is; return False when an alias is too short for it."""
    alias = _alias(owner)
    if alias:
        body = header() + attr_str(IFLA_IFNAME, name) + alias
        nl.tell(RTM_NEWLINK, body, f"failed to set the alias of link {name!r}")
    return bool(alias)


def delete(nl: Netlink, name: str) -> bool:
    """Delete a link by name; return False when there was none."""
    body = header() + attr_str(IFLA_IFNAME, name)
    return nl.tell(RTM_DELLINK, body, f"failed to delete link {name!r}", gone=(errno.ENODEV,))


def links(nl: Netlink) -> list[Link]:
    """Return every link of the namespace."""
    return [Link(reply.body) for reply in nl.dump(RTM_GETLINK, header() + _SKIP_STATS, "the links")]


def _alias(owner: str) -> bytes:
    if not owner or len(owner.encode("utf-8", "surrogateescape")) > MAX_ALIAS:
        return b""
    return attr_str(IFLA_IFALIAS, owner)
