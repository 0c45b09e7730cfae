"""Making links, and waiting until they carry: bridges, veth pairs, and what needs no parameters.

rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno

from cni_plugins.kernel.link import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_BR_VLAN_FILTERING,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    RTM_NEWLINK,
    RTMGRP_LINK,
    get,
    header,
)
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink
from cni_plugins.kernel.nlattr import attr, attr_str, attr_u8, attr_u32, nested
from cni_plugins.lazy import Lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import time

    from cni_plugins.kernel.link import Link
else:
    time = Lazy("time")

_VETH_INFO_PEER = 1
_CARRIER_TIMEOUT = 1.0


def create_bridge(nl: Netlink, name: str, mac: bytes, *, mtu: int = 0, vlan_filtering: bool = False) -> None:
    """Make a bridge that is not up yet.

    Args:
        nl: the namespace to make it in.
        name: its name.
        mac: its own address; without one it would take its lowest port's, and change as ports come and go.
        mtu: in bytes; 0: the kernel's choice.
        vlan_filtering: tell VLANs apart.

    Raises:
        OSError: EEXIST: a link of that name is there already.
    """
    data = nested(IFLA_INFO_DATA, attr_u8(IFLA_BR_VLAN_FILTERING, 1)) if vlan_filtering else b""
    body = header() + attr_str(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac)
    if mtu:
        body += attr_u32(IFLA_MTU, mtu)
    body += nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, "bridge"), data)
    nl.tell(RTM_NEWLINK, body, f"failed to create bridge {name!r}", NLM_F_CREATE | NLM_F_EXCL)


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
    common = attr_u32(IFLA_MTU, mtu) if mtu else b""
    other = header() + attr_str(IFLA_IFNAME, peer) + common
    if mac:
        other += attr(IFLA_ADDRESS, mac)
    if peer_netns is not None:
        other += attr_u32(IFLA_NET_NS_FD, peer_netns)
    body = header(0, IFF_UP, IFF_UP) + attr_str(IFLA_IFNAME, name) + common
    if master:
        body += attr_u32(IFLA_MASTER, master)
    body += nested(
        IFLA_LINKINFO,
        attr_str(IFLA_INFO_KIND, "veth"),
        nested(IFLA_INFO_DATA, attr(_VETH_INFO_PEER, other)),
    )
    nl.tell(RTM_NEWLINK, body, f"failed to create veth pair {name!r}, {peer!r}", NLM_F_CREATE | NLM_F_EXCL)


def create(nl: Netlink, kind: str, name: str, *, mtu: int = 0, up: bool = True) -> None:
    """Make a link of a kind that needs no parameters (ifb, dummy, wireguard), up unless told otherwise.

    Raises:
        OSError: EEXIST: a link of that name is there already; EOPNOTSUPP: the kernel has no such kind.
    """
    body = header(0, IFF_UP if up else 0, IFF_UP) + attr_str(IFLA_IFNAME, name)
    if mtu:
        body += attr_u32(IFLA_MTU, mtu)
    body += nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, kind))
    nl.tell(RTM_NEWLINK, body, f"failed to create {kind} {name!r}", NLM_F_CREATE | NLM_F_EXCL)


def has_kind(nl: Netlink, kind: str) -> bool:
    """Tell whether the kernel knows a kind of Ethernet link, by a request for one with an impossible address.

    Args:
        nl: any namespace; nothing happens there.
        kind: the driver's name.

    Raises:
        OSError: the kernel did not come to look: EPERM, ENOMEM, ….
    """
    body = header() + attr(IFLA_ADDRESS, b"\1") + nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, kind))
    try:
        nl.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)
    except OSError as error:
        if error.errno == errno.EINVAL:  # what the driver says of the address
            return True
        if error.errno == errno.EOPNOTSUPP:
            return False
        error.add_note(f"cannot tell whether the kernel has {kind} links")
        raise
    return True


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
    deadline = time.monotonic() + _CARRIER_TIMEOUT
    with Netlink(groups=RTMGRP_LINK) as events:
        try:
            while not (found := get(nl, name)).carries:
                events.wait(deadline - time.monotonic())
        except TimeoutError as error:
            error.add_note(f"link {name!r} has no carrier")
            raise
    return found
