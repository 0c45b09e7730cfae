"""Tunnel devices: VXLAN and IPIP (linux/if_link.h, linux/if_tunnel.h, RFC 7348, RFC 2003)."""

from __future__ import annotations

import errno

from cni_plugins.kernel import link
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL
from cni_plugins.kernel.nlattr import attr, attr_str, attr_u8, attr_u32, attribute_map, nested, text, uint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink

_IFLA_VXLAN_ID = 1
_IFLA_VXLAN_LINK = 3
_IFLA_VXLAN_LOCAL = 4
_IFLA_VXLAN_LEARNING = 7
_IFLA_VXLAN_PORT = 15
_IFLA_VXLAN_LOCAL6 = 17
_IFLA_VXLAN_GBP = 23
_IFLA_IPTUN_LOCAL = 2
_IFLA_IPTUN_REMOTE = 3


class Vxlan:
    """The parameters of a VXLAN device that cannot be changed once it is there.

    Attributes:
        vni: VXLAN network identifier.
        local: source address of the outer packets.
        port: UDP port of the outer packets.
        parent: index of the link they leave by.
        learning: note from which machine a link-layer address was heard.
        gbp: carry group policy ids (the GBP extension).
    """

    __slots__ = ("gbp", "learning", "local", "parent", "port", "vni")

    def __init__(
        self, vni: int, local: bytes, port: int, parent: int, *, learning: bool = False, gbp: bool = False
    ) -> None:
        self.vni = vni
        self.local = local
        self.port = port
        self.parent = parent
        self.learning = learning
        self.gbp = gbp

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vxlan) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.vni, self.local, self.port))


def create_vxlan(nl: Netlink, name: str, parameters: Vxlan, *, mac: bytes, mtu: int) -> None:
    """Make a VXLAN device, down.

    Args:
        nl: its namespace.
        name: its name.
        parameters: see `Vxlan`.
        mac: its own link-layer address.
        mtu: in bytes.

    Raises:
        OSError: EEXIST: the name is taken, or VNI and port are in use; EOPNOTSUPP: the kernel
            has no VXLAN.
    """
    local = _IFLA_VXLAN_LOCAL if len(parameters.local) == 4 else _IFLA_VXLAN_LOCAL6
    data = (
        attr_u32(_IFLA_VXLAN_ID, parameters.vni),
        attr_u32(_IFLA_VXLAN_LINK, parameters.parent),
        attr(local, parameters.local),
        attr_u8(_IFLA_VXLAN_LEARNING, parameters.learning),
        attr(_IFLA_VXLAN_PORT, parameters.port.to_bytes(2, "big")),
        attr(_IFLA_VXLAN_GBP, b"") if parameters.gbp else b"",
    )
    _create(nl, "vxlan", name, data, attr(link.IFLA_ADDRESS, mac), mtu)


def create_ipip(nl: Netlink, name: str, local: bytes, *, mtu: int) -> None:
    """Make an IPIP device, down, whose packets go to the next hop of the route that leads to it.

    Raises:
        OSError: EEXIST: the name is taken; EOPNOTSUPP: the kernel has no IPIP.
    """
    _create(nl, "ipip", name, (attr(_IFLA_IPTUN_LOCAL, local),), b"", mtu)


def _create(nl: Netlink, kind: str, name: str, data: tuple[bytes, ...], common: bytes, mtu: int) -> None:
    body = link.header() + attr_str(link.IFLA_IFNAME, name) + attr_u32(link.IFLA_MTU, mtu) + common
    body += nested(
        link.IFLA_LINKINFO, attr_str(link.IFLA_INFO_KIND, kind), nested(link.IFLA_INFO_DATA, *data)
    )
    nl.tell(link.RTM_NEWLINK, body, f"failed to create {kind} {name!r}", NLM_F_CREATE | NLM_F_EXCL)


def vxlan(nl: Netlink, name: str) -> Vxlan | None:
    """Return the parameters of a VXLAN device; None when there is no link of that name, or another kind."""
    data = _data(nl, name, "vxlan")
    if data is None:
        return None
    return Vxlan(
        uint(data.get(_IFLA_VXLAN_ID, b"")),
        data.get(_IFLA_VXLAN_LOCAL6) or data.get(_IFLA_VXLAN_LOCAL, b""),
        int.from_bytes(data.get(_IFLA_VXLAN_PORT, b""), "big"),
        uint(data.get(_IFLA_VXLAN_LINK, b"")),
        learning=data.get(_IFLA_VXLAN_LEARNING, b"\0") != b"\0",
        gbp=_IFLA_VXLAN_GBP in data,
    )


def ipip(nl: Netlink, name: str) -> tuple[bytes, bytes] | None:
    """Return the local and remote address of an IPIP device; None when there is no such device."""
    data = _data(nl, name, "ipip")
    if data is None:
        return None
    return data.get(_IFLA_IPTUN_LOCAL, bytes(4)), data.get(_IFLA_IPTUN_REMOTE, bytes(4))


def _data(nl: Netlink, name: str, kind: str) -> dict[int, bytes] | None:
    try:
        reply = nl.get(link.RTM_GETLINK, link.header() + attr_str(link.IFLA_IFNAME, name))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        error.add_note(f"failed to look up link {name!r}")
        raise
    info = attribute_map(attribute_map(reply.body, 16).get(link.IFLA_LINKINFO, b""))
    if text(info.get(link.IFLA_INFO_KIND, b"")) != kind:
        return None
    return attribute_map(info.get(link.IFLA_INFO_DATA, b""))
