"""What makes a plugin's configuration fail or misbehave though each value by itself is right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni_plugins.address import Prefix, parse_address
from cni_plugins.config.sublink import IpvlanConf, MacvlanConf, VlanConf
from cni_plugins.kernel.sublink import IPVLAN_MODES, MACVLAN_MODES
from cni_plugins.spec.request import ifname_problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni_plugins.config.base import DNS, Route
    from cni_plugins.config.bridge import BridgeConf
    from cni_plugins.config.portmap import PortmapConf
    from cni_plugins.config.sublink import SublinkConf
    from conflist.findings import Spot

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_BACKENDS = ("nftables", "iptables")
_LINK_LOCAL = Prefix.parse("fe80::/10")
_MIN_MTU = 68
"""The least that IPv4 can work with (RFC 791)."""
_MAX_VLAN = 4094


def bridge(spot: Spot, conf: BridgeConf, *, ipam: bool) -> None:
    """Check a bridge's options against each other.

    Args:
        spot: where its object is.
        conf: its configuration.
        ipam: whether it gives addresses.
    """
    problem = ifname_problem(conf.bridge)
    if problem:
        spot.at("bridge").error(f"the bridge's name {conf.bridge!r} {problem}")
    if conf.hairpin_mode and conf.promisc_mode:
        spot.at("promiscMode").error(
            "hairpinMode and promiscMode exclude each other", "keep one of them", key=True
        )
    _vlans(spot, conf)
    if conf.disable_container_interface and ipam:
        spot.at("disableContainerInterface").error(
            "an interface that stays down cannot have addresses", "remove ipam, or this key", key=True
        )
    if not ipam:
        for key, wanted in (
            ("isGateway", conf.is_gateway),
            ("isDefaultGateway", conf.is_default_gateway),
            ("ipMasq", conf.ip_masq),
        ):
            if wanted:
                spot.at(key).warning(f"{key} does nothing without ipam", "add ipam, or remove it", key=True)
    _mac(spot.at("mac"), conf.mac)
    _mtu(spot.at("mtu"), conf.mtu)
    _backend(spot.at("ipMasqBackend"), conf.ip_masq_backend)


def _vlans(spot: Spot, conf: BridgeConf) -> None:
    if conf.vlan and conf.vlan_trunk:
        spot.at("vlanTrunk").error("vlan and vlanTrunk exclude each other", "keep one of them", key=True)
    for index, trunk in enumerate(conf.vlan_trunk):
        here = spot.at("vlanTrunk", index)
        if (trunk.min_id is None) != (trunk.max_id is None):
            here.error("a range of VLANs has minID and maxID", "give both, or id for a single one")
        elif trunk.min_id is not None and trunk.max_id is not None and trunk.min_id > trunk.max_id:
            here.error(f"minID {trunk.min_id} is greater than maxID {trunk.max_id}")
        elif trunk.min_id is None and trunk.id is None:
            here.error("an entry of vlanTrunk has id, or minID and maxID")


def sublink(spot: Spot, conf: SublinkConf) -> None:
    """Check the options of macvlan, ipvlan or vlan."""
    problem = ifname_problem(conf.master) if conf.master else ""
    if problem:
        spot.at("master").error(f"the master's name {conf.master!r} {problem}")
    _mtu(spot.at("mtu"), conf.mtu)
    if isinstance(conf, MacvlanConf):
        _mode(spot.at("mode"), conf.mode, MACVLAN_MODES)
        _mac(spot.at("mac"), conf.mac)
    elif isinstance(conf, IpvlanConf):
        _mode(spot.at("mode"), conf.mode, IPVLAN_MODES)
    elif isinstance(conf, VlanConf) and not 0 <= conf.vlan_id <= _MAX_VLAN:
        spot.at("vlanId").error(f"{conf.vlan_id} is no VLAN id", f"they are 0 to {_MAX_VLAN}")


def portmap(spot: Spot, conf: PortmapConf) -> None:
    """Check portmap's options against each other."""
    _backend(spot.at("backend"), conf.backend)
    if conf.mark_masq_bit is not None and conf.external_set_mark_chain is not None:
        spot.at("markMasqBit").error(
            "markMasqBit and externalSetMarkChain exclude each other",
            "the chain decides which bit it sets",
            key=True,
        )


def dns(spot: Spot, conf: DNS) -> None:
    """Check that name servers are addresses."""
    for index, server in enumerate(conf.nameservers):
        _address(spot.at("nameservers", index), server)


def routes(spot: Spot, given: list[Route], subnets: list[Prefix]) -> list[Prefix]:
    """Check routes; return the destinations that are valid.

    Args:
        spot: where the list of routes is.
        given: the routes.
        subnets: the network's own: next hops are in one of them.
    """
    valid = []
    for index, route in enumerate(given):
        here = spot.at(index)
        try:
            destination = Prefix.parse(route.dst)
        except ValueError as error:
            here.at("dst").error(f"the destination {error}", "as in 10.0.0.0/8; for all: 0.0.0.0/0 or ::/0")
            continue
        valid.append(destination)
        if destination.network() != destination:
            here.at("dst").warning(
                f"{route.dst} has host bits", f"the destination is {destination.network()}"
            )
        if not route.gw:
            continue
        hop = _address(here.at("gw"), route.gw)
        if hop is None:
            continue
        if len(hop) != len(destination.address):
            here.at("gw").error(f"the next hop {route.gw} is of another family than {route.dst}")
        elif subnets and not any(hop in subnet for subnet in (*subnets, _LINK_LOCAL)):
            here.at("gw").warning(
                f"the next hop {route.gw} is in none of the network's subnets",
                "the kernel refuses a route by a next hop that it cannot reach directly",
            )
    return valid


def default_route(spot: Spot, conf: BridgeConf, destinations: list[Prefix]) -> None:
    """Check that isDefaultGateway does not meet a default route from IPAM.

    Args:
        spot: where the list of routes is.
        conf: the bridge's configuration.
        destinations: of those routes.
    """
    if not conf.is_default_gateway:
        return
    for index, destination in enumerate(destinations):
        if destination.length == 0:
            spot.at(index).error(
                "isDefaultGateway already makes a default route; a second one fails",
                "remove this route, or isDefaultGateway",
            )


def _mac(spot: Spot, text: str) -> None:
    if text and not _MAC.fullmatch(text):
        spot.error(f"{text!r} is not a MAC address", "as in 0a:58:0a:01:02:03")


def _mtu(spot: Spot, mtu: int) -> None:
    if mtu < 0:
        spot.error(f"mtu must be 0 or more, not {mtu}")
    elif 0 < mtu < _MIN_MTU:
        spot.error(f"an MTU of {mtu} is too small for IPv4", f"the least is {_MIN_MTU}")


def _mode(spot: Spot, mode: str, known: Collection[str]) -> None:
    if mode and mode not in known:
        spot.error(f"{mode!r} is no mode", f"known are: {', '.join(known)}")


def _backend(spot: Spot, backend: str | None) -> None:
    if backend is not None and backend not in _BACKENDS:
        spot.error(f"{backend!r} is no backend", f"known are: {', '.join(_BACKENDS)}")


def _address(spot: Spot, text: str) -> bytes | None:
    try:
        return parse_address(text)
    except ValueError as error:
        spot.error(str(error))
        return None
