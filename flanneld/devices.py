"""Devices of every kind, made as they are wanted and kept so."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni_plugins.kernel import link, linkset, newlink, sysctl, tunnel
from flanneld import ethtool, tun, wireguard

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.netlink import Netlink
    from flanneld.state import Device

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of device has of its own.

    Attributes:
        fits: tells whether the device that is there has the wanted parameters, as far as those cannot be
            changed on it.
        create: makes it, down.
        adjust: changes what can be changed; returns whether anything had to be.
    """

    fits: Callable[[Netlink, Device], bool]
    create: Callable[[Netlink, Device], None]
    adjust: Callable[[Device], bool] = lambda _wanted: False


def ensure(nl: Netlink, wanted: Device, index: int = 0) -> bool:
    """Make a device, or make it what it has to be.

    One whose parameters cannot be changed is made anew, and what was on it is gone.

    Args:
        nl: the namespace.
        wanted: the device.
        index: its index when it was last seen; 0 for none.

    Returns:
        Whether anything had to be done.

    Raises:
        OSError: the kernel refuses.
    """
    kind = KINDS[wanted.kind]
    there = link.find(nl, wanted.name) or _called_back(nl, wanted, index)
    if there is not None and not kind.fits(nl, wanted):
        log.warning("this device is another than wanted; making it anew", extra={"device": wanted.name})
        link.delete(nl, wanted.name)
        there = None
    changed = there is None
    if there is None:
        kind.create(nl, wanted)
        there = link.get(nl, wanted.name)
    changed |= kind.adjust(wanted)
    if there.mtu != wanted.mtu:
        linkset.configure(nl, there.index, mtu=wanted.mtu)
        changed = True
    if wanted.mac is not None and there.mac != wanted.mac:
        link.set_mac(nl, there.index, link.parse_mac(wanted.mac))
        changed = True
    changed |= ethtool.switch(wanted.name, wanted.offloads)
    if not there.is_up:
        link.set_up(nl, there.index)
        changed = True
    return changed


def _called_back(nl: Netlink, wanted: Device, index: int) -> Link | None:
    """Give a device that somebody renamed its name back: another one could not have its VNI and port."""
    there = link.find(nl, index=index) if index else None
    if there is None or there.kind != wanted.kind:
        return None
    link.set_down(nl, index)  # not every kernel renames one that is up
    linkset.rename(nl, index, wanted.name)
    return link.get(nl, wanted.name)


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


def _create_vxlan(nl: Netlink, wanted: Device) -> None:
    mac = link.parse_mac(wanted.mac or "")
    tunnel.create_vxlan(nl, wanted.name, _vxlan(nl, wanted), mac=mac, mtu=wanted.mtu)
    try:
        # A pod on another node that says it is a router must not become this node's.
        sysctl.write_if_present(f"net/ipv6/conf/{wanted.name}/accept_ra", "0")
    except OSError as error:  # /proc/sys is read-only in a container; where a node forwards, 1 means 0
        log.debug("router advertisements stay as they were", extra={"device": wanted.name, "why": error})


def _ipip(wanted: Device) -> bytes:
    return ip_address(str(dict(wanted.options)["local"])).packed


def is_configured(wanted: Device, found: wireguard.Found) -> bool:
    """Tell whether a WireGuard device has the wanted key and port."""
    options = dict(wanted.options)
    return (found.private_key, found.port) == (options["private-key"], options["listen-port"])


def _adjust_wireguard(wanted: Device) -> bool:
    options = dict(wanted.options)
    key, port = str(options["private-key"]), int(options["listen-port"])
    if is_configured(wanted, wireguard.look(wanted.name)):
        return False
    wireguard.configure(wanted.name, key, port)
    return True


KINDS = {
    "vxlan": Kind(
        lambda nl, wanted: tunnel.vxlan(nl, wanted.name) == _vxlan(nl, wanted),
        _create_vxlan,
    ),
    # To any remote address: the next hop of a route is the other end.
    "ipip": Kind(
        lambda nl, wanted: tunnel.ipip(nl, wanted.name) == (_ipip(wanted), bytes(4)),
        lambda nl, wanted: tunnel.create_ipip(nl, wanted.name, _ipip(wanted), mtu=wanted.mtu),
    ),
    "wireguard": Kind(
        lambda nl, wanted: link.get(nl, wanted.name).kind == "wireguard",
        lambda nl, wanted: newlink.create(nl, "wireguard", wanted.name, mtu=wanted.mtu, up=False),
        _adjust_wireguard,
    ),
    "tun": Kind(
        lambda nl, wanted: tun.is_ours(link.get(nl, wanted.name)),
        lambda _nl, wanted: tun.create(wanted.name),
    ),
}
