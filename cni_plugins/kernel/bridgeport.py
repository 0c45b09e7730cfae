"""Bridge ports: hairpin mode, isolation and VLANs (linux/if_bridge.h)."""

from __future__ import annotations

from _struct import Struct

from cni_plugins.kernel import link
from cni_plugins.kernel.nlattr import (
    attr,
    attr_u8,
    attr_u16,
    attr_u32,
    attribute_map,
    attributes,
    nested,
    unpack,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink

_AF_BRIDGE = 7
_IFLA_PROTINFO = 12
_IFLA_AF_SPEC = 26
_IFLA_BRIDGE_FLAGS = 0
_IFLA_BRIDGE_VLAN_INFO = 2
_BRIDGE_FLAGS_MASTER = 1
_BRIDGE_FLAGS_SELF = 2
_VLAN_PVID = 2
_VLAN_UNTAGGED = 4
_VLAN_RANGE_BEGIN = 8
_VLAN_RANGE_END = 16
_EXT_VLAN_COMPRESSED = 4
_VLAN_INFO = Struct("=HH")


def set_port(nl: Netlink, index: int, *, hairpin: bool = False, isolated: bool = False) -> None:
    """Switch a bridge port's hairpin mode and isolation on, in one request."""
    _set_port(
        nl,
        index,
        (attr_u8(link.IFLA_BRPORT_MODE, 1) if hairpin else b"")
        + (attr_u8(link.IFLA_BRPORT_ISOLATED, 1) if isolated else b""),
        "failed to set hairpin mode or isolation",
    )


def _set_port(nl: Netlink, index: int, port: bytes, doing: str) -> None:
    body = link.header(index, family=_AF_BRIDGE) + nested(_IFLA_PROTINFO, port)
    nl.tell(link.RTM_SETLINK, body, f"{doing} of bridge port {index}")


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
    nl.tell(
        link.RTM_SETLINK,
        _vlans(index, first, last, flags, on_bridge=on_bridge),
        f"failed to add VLAN {first}",
    )


def delete_vlan(nl: Netlink, index: int, vlan: int) -> None:
    """Take a VLAN from a bridge port."""
    nl.tell(link.RTM_DELLINK, _vlans(index, vlan, vlan, 0, on_bridge=False), f"failed to delete VLAN {vlan}")


def _vlans(index: int, first: int, last: int, flags: int, *, on_bridge: bool) -> bytes:
    spec = [attr_u16(_IFLA_BRIDGE_FLAGS, _BRIDGE_FLAGS_SELF if on_bridge else _BRIDGE_FLAGS_MASTER)]
    if first == last:
        spec.append(attr(_IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags, first)))
    else:
        spec.append(attr(_IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags | _VLAN_RANGE_BEGIN, first)))
        spec.append(attr(_IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags | _VLAN_RANGE_END, last)))
    return link.header(index, family=_AF_BRIDGE) + nested(_IFLA_AF_SPEC, *spec)


def vlans(nl: Netlink) -> dict[int, dict[int, bool]]:
    """Return the VLANs of every bridge port: by index, each id and whether it is untagged."""
    body = link.header(family=_AF_BRIDGE) + attr_u32(link.IFLA_EXT_MASK, _EXT_VLAN_COMPRESSED)
    ports: dict[int, dict[int, bool]] = {}
    for reply in nl.dump(link.RTM_GETLINK, body, "the VLANs of bridges' ports"):
        index = link.index_of(reply.body)
        begin = 0
        found = ports.setdefault(index, {})
        for kind, payload in attributes(attribute_map(reply.body, 16).get(_IFLA_AF_SPEC, b"")):
            if kind != _IFLA_BRIDGE_VLAN_INFO:
                continue
            flags, vlan = unpack(_VLAN_INFO, payload)
            if flags & _VLAN_RANGE_BEGIN:
                begin = vlan
                continue
            first = begin if flags & _VLAN_RANGE_END else vlan
            found.update(dict.fromkeys(range(first, vlan + 1), bool(flags & _VLAN_UNTAGGED)))
    return ports
