"""vxlan: a tunnel device per family; for each remote node a neighbour, an FDB entry and a route.

Device `flannel.<VNI>` and `flannel-v6.<VNI>`, without learning and without broadcast: every node's entries
are written. Its address is the subnet's first, which other nodes use as their next hop.
"""

from __future__ import annotations

import logging
import os
from ipaddress import ip_interface
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from cni_plugins.kernel import link, netlink
from flanneld.backend.common import Complaints, read_options
from flanneld.lease import NO_DATA, LeaseAttrs, encode_data
from flanneld.netconf import FoldedModel
from flanneld.state import Address, Device, Forwarding, Neighbour, Route, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.state import Thing
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

_OVERHEAD = {4: 50, 6: 70}
"""Bytes of the outer Ethernet, IP, UDP and VXLAN headers; the kernel refuses a device that leaves less room.

subnet.env says uplink less 50 in every case, as the reference's does: an IPv6 packet that is too large for
its device is answered with Packet Too Big by the node.
"""
_CHECKSUM_OFF = (("tx-checksum-ip-generic", False),)
"""Drivers and kernels that get the inner checksum of a packet wrong, most of all behind a NAT, are many. What
is on by default is never switched on: an administrator may have switched it off by other means."""
_NAMES = {4: "flannel.{}", 6: "flannel-v6.{}"}


class VxlanOptions(FoldedModel):
    """Options of `Backend` with Type vxlan."""

    vni: int = Field(1, ge=1, lt=1 << 24, description="VXLAN network identifier.")
    port: int = Field(8472, ge=0, le=65535, description="UDP port; 0 means 8472.")
    mtu: int = Field(0, ge=0, le=65535, description="MTU of the uplink, if not what its link says.")
    gbp: bool = Field(False, description="Carry group policy ids.")
    learning: bool = Field(False, description="Note where MAC addresses are heard from.")
    direct_routing: bool = Field(False, description="No tunnel to nodes in our own subnet.")
    tx_checksum: bool = Field(
        True, description="False: count checksums before packets enter the tunnel, where they arrive broken."
    )


class Vxlan:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "vxlan"

    def __init__(self, config: NetworkConfig) -> None:
        self._options = read_options(VxlanOptions, config)
        self._families = config.families
        self._macs: dict[int, str] = {}
        self._complaints = Complaints(log)

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Take the MAC addresses that were published before, or new ones."""
        _remove_former(published, self._options.vni)
        for family in self._families:
            if family not in self._macs:
                self._macs[family] = _stored_mac(published, family) or _new_mac()
        data = {
            family: encode_data({"VNI": self._options.vni, "VtepMAC": self._macs[family]})
            for family in self._families
        }
        return LeaseAttrs(
            uplink.public_ip, uplink.public_ipv6, self.type, data.get(4, NO_DATA), data.get(6, NO_DATA)
        )

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's, or what is configured, less the tunnel's headers."""
        return (self._options.mtu or uplink.mtu) - _OVERHEAD[4]

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Return the devices, and for each remote node the three entries, or a direct route."""
        things: list[Thing] = []
        for family in self._families:
            things += self._device(uplink, own, family)
        for lease in others:
            if lease.attrs.backend_type == self.type:
                try:
                    things += [
                        thing for family in self._families for thing in self._remote(uplink, lease, family)
                    ]
                except ValueError as error:
                    self._complaints.about(lease, repr(error))
        return State(things)

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Do nothing: the kernel does all."""

    async def close(self) -> None:
        """Do nothing: the devices stay."""

    def _name(self, family: int) -> str:
        return _NAMES[family].format(self._options.vni)

    def _device(self, uplink: Uplink, own: Lease, family: int) -> Iterator[Thing]:
        subnet, options = own.network(family), self._options
        assert subnet is not None
        yield Device(
            self._name(family),
            "vxlan",
            (self._options.mtu or uplink.mtu) - _OVERHEAD[family],
            self._macs[family],
            (
                ("id", options.vni),
                ("local", str(uplink.local(family))),
                ("dstport", options.port or 8472),
                ("dev", uplink.name),
                ("learning", options.learning),
                ("gbp", options.gbp),
            ),
            () if options.tx_checksum else _CHECKSUM_OFF,
        )
        yield Address(self._name(family), ip_interface(subnet.network_address))

    def _remote(self, uplink: Uplink, lease: Lease, family: int) -> Iterator[Thing]:
        subnet, node = lease.network(family), lease.attrs.public(family)
        if subnet is None or node is None:
            return
        if self._options.direct_routing and uplink.is_direct(node):
            yield Route(subnet, uplink.name, node)
            return
        device, gateway = self._name(family), subnet.network_address
        mac = _checked_mac(lease.attrs.text(family, "VtepMAC"))
        yield Neighbour(device, gateway, mac)
        yield Forwarding(device, mac, node)
        yield Route(subnet, device, gateway, onlink=True)


def _remove_former(published: LeaseAttrs | None, vni: int) -> None:
    """Remove devices of a run with another VNI: they hold the UDP port, maybe with other options."""
    for family, name in _NAMES.items():
        mac = _stored_mac(published, family)
        former = published.data(family).get("VNI", vni) if published and mac else vni
        if former == vni:
            continue
        try:
            with netlink.Netlink() as nl:
                there = link.find(nl, name.format(former))
                if there is not None and (there.kind, there.mac) == ("vxlan", mac):
                    link.delete(nl, there.name)
                    log.info("removed the device of another VNI", extra={"device": there.name})
        except OSError as error:
            log.warning("a former device stays", extra={"vni": former, "why": error})


def _new_mac() -> str:
    """Return a random address that is locally administered and no group's."""
    first, *rest = os.urandom(6)
    return bytes((first & 0xFC | 0x02, *rest)).hex(":")


def _checked_mac(text: str) -> str:
    mac = bytes.fromhex(text.replace(":", ""))
    if len(mac) != 6 or mac[0] & 1 or not any(mac):  # a group's, or none: the kernel refuses both
        raise ValueError(f"{text} is no MAC address of a device")
    return mac.hex(":")


def _stored_mac(published: LeaseAttrs | None, family: int) -> str:
    if published is None or published.backend_type != Vxlan.type:
        return ""
    try:
        return _checked_mac(published.text(family, "VtepMAC"))
    except ValueError:
        return ""
