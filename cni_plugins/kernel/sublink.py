"""Links on top of another link: macvlan, ipvlan and vlan (linux/if_link.h, linux/if_vlan.h)."""

from __future__ import annotations

from cni_plugins.kernel.link import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    RTM_NEWLINK,
    header,
)
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink
from cni_plugins.kernel.nlattr import attr, attr_str, attr_u16, attr_u32, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_plugins.kernel.link import Link

_IFLA_MACVLAN_MODE = 1
_IFLA_MACVLAN_BC_QUEUE_LEN = 7
_IFLA_IPVLAN_MODE = 1
_IFLA_VLAN_ID = 1

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
"""MACVLAN_MODE_…: how links on the same parent reach each other."""

IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
"""IPVLAN_MODE_…: on which layer packets between links and parent are handled."""


class Option:
    """One property that a kind of link has besides those of every link.

    Attributes:
        label: what it is, for messages.
        number: its attribute's type in IFLA_INFO_DATA.
        attribute: the whole attribute.
    """

    __slots__ = ("attribute", "label", "number")

    def __init__(self, label: str, number: int, attribute: bytes) -> None:
        self.label = label
        self.number = number
        self.attribute = attribute

    def holds(self, found: Link) -> bool:
        """Tell whether a link has it."""
        held = found.data.get(self.number)
        return held is not None and attr(self.number, held) == self.attribute


def macvlan_mode(mode: str) -> Option:
    """Return a macvlan's mode by name.

    Raises:
        KeyError: there is none of that name.
    """
    number = _IFLA_MACVLAN_MODE
    return Option(f"mode {mode!r}", number, attr_u32(number, MACVLAN_MODES[mode]))


def macvlan_broadcast_queue(length: int) -> Option:
    """Return how many broadcasts the parent keeps for its macvlans at least; Linux 5.11 and later."""
    number = _IFLA_MACVLAN_BC_QUEUE_LEN
    return Option(f"broadcast queue length {length}", number, attr_u32(number, length))


def ipvlan_mode(mode: str) -> Option:
    """Return an ipvlan's mode by name; the kernel has one for all ipvlans of a parent.

    Raises:
        KeyError: there is none of that name.
    """
    number = _IFLA_IPVLAN_MODE
    return Option(f"mode {mode!r}", number, attr_u16(number, IPVLAN_MODES[mode]))


def vlan_id(number: int) -> Option:
    """Return a VLAN's number, 0 to 4094 (IEEE 802.1Q)."""
    return Option(f"VLAN id {number}", _IFLA_VLAN_ID, attr_u16(_IFLA_VLAN_ID, number))


def create(
    nl: Netlink,
    kind: str,
    name: str,
    *,
    options: Iterable[Option] = (),
    parent: int = 0,
    netns: int | None = None,
    mtu: int = 0,
    mac: bytes = b"",
) -> None:
    """Make a link, which is down.

    Args:
        nl: the namespace of its parent.
        kind: the driver's name.
        name: its name.
        options: properties of its kind.
        parent: index of the link it is on; 0 for none.
        netns: descriptor of the namespace to make it in; None: the parent's.
        mtu: in bytes; 0: the parent's.
        mac: its address; empty: the kernel's choice.

    Raises:
        OSError: EEXIST: the name is taken where the link shall be, or, before Linux 6.15, where its parent
            is; or the parent has a VLAN of that number.
    """
    body = header() + attr_str(IFLA_IFNAME, name)
    if parent:
        body += attr_u32(IFLA_LINK, parent)
    if netns is not None:
        body += attr_u32(IFLA_NET_NS_FD, netns)
    if mtu:
        body += attr_u32(IFLA_MTU, mtu)
    if mac:
        body += attr(IFLA_ADDRESS, mac)
    data = nested(IFLA_INFO_DATA, *(option.attribute for option in options))
    body += nested(IFLA_LINKINFO, attr_str(IFLA_INFO_KIND, kind), data)
    nl.tell(RTM_NEWLINK, body, f"failed to create {kind} {name!r}", NLM_F_CREATE | NLM_F_EXCL)
