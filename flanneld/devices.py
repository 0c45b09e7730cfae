"""Tunnel devices, made as they are wanted and kept so."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni_plugins.kernel import link, tunnel

if TYPE_CHECKING:
    from cni_plugins.kernel.netlink import Netlink
    from flanneld.state import Device

log = logging.getLogger(__name__)


def ensure(nl: Netlink, wanted: Device) -> bool:
    """Make a device, or make it what it has to be.

    One whose parameters cannot be changed is made anew, and what was on it is gone.

    Returns:
        Whether anything had to be done.

    Raises:
        OSError: the kernel refuses.
    """
    parameters = _vxlan(nl, wanted)
    there = link.find(nl, wanted.name)
    if there is not None and tunnel.vxlan(nl, wanted.name) != parameters:
        log.warning("this device is another than wanted; making it anew", extra={"device": wanted.name})
        link.delete(nl, wanted.name)
        there = None
    mac = link.parse_mac(wanted.mac or "")
    changed = there is None
    if there is None:
        tunnel.create_vxlan(nl, wanted.name, parameters, mac=mac, mtu=wanted.mtu)
        there = link.get(nl, wanted.name)
    if not there.is_up:
        link.set_up(nl, there.index)
        changed = True
    if there.mac != wanted.mac:
        link.set_mac(nl, there.index, mac)
        changed = True
    if there.mtu != wanted.mtu:
        link.configure(nl, there.index, mtu=wanted.mtu)
        changed = True
    return changed


def _vxlan(nl: Netlink, wanted: Device) -> tunnel.Vxlan:
    options = dict(wanted.options)
    return tunnel.Vxlan(
        int(options["id"]),
        ip_address(str(options["local"])).packed,
        int(options["dstport"]),
        link.get(nl, str(options["dev"])).index,
        learning=bool(options["learning"]),
        gbp=bool(options["gbp"]),
    )
