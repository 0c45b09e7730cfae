"""Links: reading, making, changing and deleting them (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import errno
from _struct import Struct
from time import monotonic

from cni_plugins.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    attr,
    attr_str,
    attr_u8,
    attr_u16,
    attr_u32,
    attribute_map,
    attributes,
    nested,
    text,
    uint,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19

IFF_UP = 0x1
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200

_AF_BRIDGE = 7
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_TXQLEN = 13
_IFLA_PROTINFO = 12
_IFLA_OPERSTATE = 16
_IFLA_LINKINFO = 18
_IFLA_IFALIAS = 20
_IFLA_AF_SPEC = 26
_IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INFO_SLAVE_DATA = 5
_IF_OPER_UP = 6
_VETH_INFO_PEER = 1
_IFLA_BR_STP_STATE = 5
_IFLA_BR_VLAN_FILTERING = 7
_IFLA_BRPORT_MODE = 4
_IFLA_BRPORT_ISOLATED = 33
_IFLA_BRIDGE_FLAGS = 0
_IFLA_BRIDGE_VLAN_INFO = 2
_BRIDGE_FLAGS_MASTER = 1
_BRIDGE_FLAGS_SELF = 2
_VLAN_PVID = 2
_VLAN_UNTAGGED = 4
_VLAN_RANGE_BEGIN = 8
_VLAN_RANGE_END = 16
_EXT_VLAN_COMPRESSED = 4
_EXT_SKIP_STATS = 8

_IFINFOMSG = Struct("=BxHiII")
_VLAN_INFO = Struct("=HH")
_RTMGRP_LINK = 1
_CARRIER_TIMEOUT = 1.0
_SKIP_STATS = attr_u32(_IFLA_EXT_MASK, _EXT_SKIP_STATS)


def _header(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return _IFINFOMSG.pack(family, 0, index, flags, change)


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
        peer: index of the other end of a veth pair, in that end's namespace; 0 for none.
        stp: of a bridge: whether it runs the spanning tree protocol.
        tx_queue_len: packets that its queue holds.
        alias: text that whoever made it left on it; empty for none.
        vlan_filtering: of a bridge: whether it tells VLANs apart.
        port: as a bridge port: its attributes (IFLA_BRPORT_…) by number.
    """

    __slots__ = (
        "alias",
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
        _family, _type, self.index, self.flags, _change = _IFINFOMSG.unpack_from(body)
        found = attribute_map(body, 16)
        self.name = text(found.get(_IFLA_IFNAME, b""))
        self.mac = format_mac(found.get(_IFLA_ADDRESS, b""))
        self.mtu = uint(found.get(_IFLA_MTU, b""))
        self.master = uint(found.get(_IFLA_MASTER, b""))
        self.peer = uint(found.get(_IFLA_LINK, b""))
        self.operstate = uint(found.get(_IFLA_OPERSTATE, b""))
        self.tx_queue_len = uint(found.get(_IFLA_TXQLEN, b""))
        self.alias = text(found.get(_IFLA_IFALIAS, b""))
        info = attribute_map(found.get(_IFLA_LINKINFO, b""))
        self.kind = text(info.get(_IFLA_INFO_KIND, b""))
        data = (
            attribute_map(info[_IFLA_INFO_DATA]) if self.kind == "bridge" and _IFLA_INFO_DATA in info else {}
        )
        self.stp = data.get(_IFLA_BR_STP_STATE, bytes(4)) != bytes(4)
        self.vlan_filtering = data.get(_IFLA_BR_VLAN_FILTERING, b"\0") != b"\0"
        self.port = attribute_map(info.get(_IFLA_INFO_SLAVE_DATA, b""))

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
        return self.port.get(_IFLA_BRPORT_MODE, b"\0") != b"\0"

    @property
    def isolated(self) -> bool:
        """Of a bridge port: whether it is cut off from other isolated ports."""
        return self.port.get(_IFLA_BRPORT_ISOLATED, b"\0") != b"\0"

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
    body = _header(index) + _SKIP_STATS
    if name:
        body += attr_str(_IFLA_IFNAME, name)
    try:
        return Link(nl.request(RTM_GETLINK, 0, body)[0].body)
    except OSError as error:
        error.add_note(f"failed to look up link {name or index!r}")
        raise


def find(nl: Netlink, name: str) -> Link | None:
    """Return a link by name; None when there is none."""
    try:
        return get(nl, name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def get_carrying(nl: Netlink, name: str) -> Link:
    """Return a veth or bridge once what is sent to it leaves.

    A carrier that appears is acted on by a worker of the kernel (linkwatch), usually within 0.1 ms; until
    then the link drops what it is given. From Linux 6.8 on, being asked for the link makes the kernel act
    first; before, its notification is waited for.

    Raises:
        OSError: ENODEV: there is none; ETIMEDOUT: it had no carrier for a second.
    """
    found = get(nl, name)
    if found.carries:
        return found
    deadline = monotonic() + _CARRIER_TIMEOUT
    with Netlink(groups=_RTMGRP_LINK) as events:
        try:
            while not (found := get(nl, name)).carries:
                events.wait(deadline - monotonic())
        except TimeoutError as error:
            error.add_note(f"link {name!r} has no carrier")
            raise
    return found


def create_bridge(nl: Netlink, name: str, mac: bytes, *, mtu: int = 0, vlan_filtering: bool = False) -> None:
    """Make a bridge that is up.

    Args:
        nl: the namespace to make it in.
        name: its name.
        mac: its own address; without one it would take its lowest port's, and change as ports come and go.
        mtu: in bytes; 0: the kernel's choice.
        vlan_filtering: tell VLANs apart.

    Raises:
        OSError: EEXIST: a link of that name is there already.
    """
    data = nested(_IFLA_INFO_DATA, attr_u8(_IFLA_BR_VLAN_FILTERING, 1)) if vlan_filtering else b""
    body = _header(0, IFF_UP, IFF_UP) + attr_str(_IFLA_IFNAME, name) + attr(_IFLA_ADDRESS, mac)
    if mtu:
        body += attr_u32(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, attr_str(_IFLA_INFO_KIND, "bridge"), data)
    _change(nl, RTM_NEWLINK, body, f"failed to create bridge {name!r}", NLM_F_CREATE | NLM_F_EXCL)


def create_veth(
    nl: Netlink,
    name: str,
    peer: str,
    peer_netns: int | None,
    *,
    master: int = 0,
    mtu: int = 0,
    mac: bytes = b"",
) -> None:
    """Make a veth pair in one request: this end up and in its bridge, the other in its namespace, down.

    Args:
        nl: the namespace of this end.
        name: this end's name.
        peer: the other end's name.
        peer_netns: descriptor of the other end's namespace; None: it stays in this one.
        master: index of this end's bridge; 0 for none.
        mtu: of both ends, in bytes; 0: the kernel's choice.
        mac: the other end's address; empty: the kernel's choice.

    Raises:
        OSError: EEXIST: one of the names is taken.
    """
    common = attr_u32(_IFLA_MTU, mtu) if mtu else b""
    other = _header() + attr_str(_IFLA_IFNAME, peer) + common
    if mac:
        other += attr(_IFLA_ADDRESS, mac)
    if peer_netns is not None:
        other += attr_u32(_IFLA_NET_NS_FD, peer_netns)
    body = _header(0, IFF_UP, IFF_UP) + attr_str(_IFLA_IFNAME, name) + common
    if master:
        body += attr_u32(_IFLA_MASTER, master)
    body += nested(
        _IFLA_LINKINFO,
        attr_str(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, attr(_VETH_INFO_PEER, other)),
    )
    _change(
        nl, RTM_NEWLINK, body, f"failed to create veth pair {name!r}, {peer!r}", NLM_F_CREATE | NLM_F_EXCL
    )


def create(nl: Netlink, kind: str, name: str, *, mtu: int = 0) -> None:
    """Make a link of a kind that needs no parameters (ifb, dummy); it is up.

    Raises:
        OSError: EEXIST: a link of that name is there already; EOPNOTSUPP: the kernel has no such kind.
    """
    body = _header(0, IFF_UP, IFF_UP) + attr_str(_IFLA_IFNAME, name)
    if mtu:
        body += attr_u32(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, attr_str(_IFLA_INFO_KIND, kind))
    _change(nl, RTM_NEWLINK, body, f"failed to create {kind} {name!r}", NLM_F_CREATE | NLM_F_EXCL)


def has_kind(nl: Netlink, kind: str) -> bool:
    """Tell whether the kernel knows a kind of Ethernet link, by a request for one with an impossible address.

    Args:
        nl: any namespace; nothing happens there.
        kind: the driver's name.
    """
    body = _header() + attr(_IFLA_ADDRESS, b"\1") + nested(_IFLA_LINKINFO, attr_str(_IFLA_INFO_KIND, kind))
    try:
        nl.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def set_up(nl: Netlink, index: int) -> None:
    """Bring a link up."""
    _change(nl, RTM_NEWLINK, _header(index, IFF_UP, IFF_UP), f"failed to bring link {index} up")


def set_down(nl: Netlink, index: int) -> None:
    """Take a link down."""
    _change(nl, RTM_NEWLINK, _header(index, 0, IFF_UP), f"failed to take link {index} down")


def set_master(nl: Netlink, index: int, master: int) -> None:
    """Make a link a port of a bridge, or a member of a VRF."""
    body = _header(index) + attr_u32(_IFLA_MASTER, master)
    _change(nl, RTM_NEWLINK, body, f"failed to make link {index} a port of {master}")


def set_promiscuous(nl: Netlink, index: int) -> None:
    """Let a link take in every frame."""
    _change(
        nl, RTM_NEWLINK, _header(index, IFF_PROMISC, IFF_PROMISC), f"failed to make link {index} promiscuous"
    )


def set_mac(nl: Netlink, index: int, mac: bytes) -> None:
    """Give a link its hardware address."""
    _change(
        nl,
        RTM_NEWLINK,
        _header(index) + attr(_IFLA_ADDRESS, mac),
        f"failed to set the address of link {index}",
    )


def configure(
    nl: Netlink,
    index: int,
    *,
    mac: bytes = b"",
    mtu: int = 0,
    promiscuous: bool | None = None,
    all_multicast: bool | None = None,
    tx_queue_len: int | None = None,
) -> None:
    """Change several properties of a link in one request; what is not given stays.

    Raises:
        OSError: the kernel refused one; those before it are changed.
    """
    flags = change = 0
    for wanted, flag in ((promiscuous, IFF_PROMISC), (all_multicast, IFF_ALLMULTI)):
        if wanted is not None:
            change |= flag
            flags |= flag if wanted else 0
    body = _header(index, flags, change)
    if mac:
        body += attr(_IFLA_ADDRESS, mac)
    if mtu:
        body += attr_u32(_IFLA_MTU, mtu)
    if tx_queue_len is not None:
        body += attr_u32(_IFLA_TXQLEN, tx_queue_len)
    _change(nl, RTM_NEWLINK, body, f"failed to change link {index}")


def set_alias(nl: Netlink, index: int, alias: str) -> None:
    """Leave a text on a link, of 255 bytes at most."""
    _change(nl, RTM_NEWLINK, _header(index) + attr_str(_IFLA_IFALIAS, alias), f"failed to name link {index}")


def set_port(nl: Netlink, index: int, *, hairpin: bool = False, isolated: bool = False) -> None:
    """Switch a bridge port's hairpin mode and isolation on, in one request."""
    _set_port(
        nl,
        index,
        (attr_u8(_IFLA_BRPORT_MODE, 1) if hairpin else b"")
        + (attr_u8(_IFLA_BRPORT_ISOLATED, 1) if isolated else b""),
        "failed to set hairpin mode or isolation",
    )


def _set_port(nl: Netlink, index: int, port: bytes, doing: str) -> None:
    body = _header(index, family=_AF_BRIDGE) + nested(_IFLA_PROTINFO, port)
    _change(nl, RTM_SETLINK, body, f"{doing} of bridge port {index}")


def add_vlans(
    nl: Netlink, index: int, first: int, last: int, *, untagged: bool = False, on_bridge: bool = False
) -> None:
    """Let VLANs pass a bridge port, or the bridge itself.

    Args:
        nl: the bridge's namespace.
        index: the port, or the bridge.
        first: lowest VLAN id.
        last: highest VLAN id.
        untagged: the one id is the port's own: untagged in both directions.
        on_bridge: index is the bridge.
    """
    flags = _VLAN_PVID | _VLAN_UNTAGGED if untagged else 0
    _change(
        nl, RTM_SETLINK, _vlans(index, first, last, flags, on_bridge=on_bridge), f"failed to add VLAN {first}"
    )


def delete_vlan(nl: Netlink, index: int, vlan: int) -> None:
    """Take a VLAN from a bridge port."""
    _change(nl, RTM_DELLINK, _vlans(index, vlan, vlan, 0, on_bridge=False), f"failed to delete VLAN {vlan}")


def _vlans(index: int, first: int, last: int, flags: int, *, on_bridge: bool) -> bytes:
    spec = [attr_u16(_IFLA_BRIDGE_FLAGS, _BRIDGE_FLAGS_SELF if on_bridge else _BRIDGE_FLAGS_MASTER)]
    if first == last:
        spec.append(attr(_IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags, first)))
    else:
        spec.append(attr(_IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags | _VLAN_RANGE_BEGIN, first)))
        spec.append(attr(_IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags | _VLAN_RANGE_END, last)))
    return _header(index, family=_AF_BRIDGE) + nested(_IFLA_AF_SPEC, *spec)


def vlans(nl: Netlink) -> dict[int, dict[int, bool]]:
    """Return the VLANs of every bridge port: by index, each id and whether it is untagged."""
    body = _header(family=_AF_BRIDGE) + attr_u32(_IFLA_EXT_MASK, _EXT_VLAN_COMPRESSED)
    ports: dict[int, dict[int, bool]] = {}
    for reply in nl.dump(RTM_GETLINK, body):
        index = _IFINFOMSG.unpack_from(reply.body)[2]
        begin = 0
        found = ports.setdefault(index, {})
        for kind, payload in attributes(attribute_map(reply.body, 16).get(_IFLA_AF_SPEC, b"")):
            if kind != _IFLA_BRIDGE_VLAN_INFO:
                continue
            flags, vlan = _VLAN_INFO.unpack(payload)
            if flags & _VLAN_RANGE_BEGIN:
                begin = vlan
                continue
            first = begin if flags & _VLAN_RANGE_END else vlan
            found.update(dict.fromkeys(range(first, vlan + 1), bool(flags & _VLAN_UNTAGGED)))
    return ports


def delete(nl: Netlink, name: str) -> bool:
    """Delete a link by name; return False when there was none."""
    try:
        _change(nl, RTM_DELLINK, _header() + attr_str(_IFLA_IFNAME, name), f"failed to delete link {name!r}")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def _change(nl: Netlink, kind: int, body: bytes, doing: str, flags: int = 0) -> None:
    try:
        nl.request(kind, flags, body)
    except OSError as error:
        error.add_note(doing)
        raise


def links(nl: Netlink) -> Iterable[Link]:
    """Return every link of the namespace."""
    return [Link(reply.body) for reply in nl.dump(RTM_GETLINK, _header() + _SKIP_STATS)]
