"""The linter's look at one plugin object, and at the objects of the plugins it delegates to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_plugins.config.base import NetConf
from cni_plugins.config.bridge import BridgeConf
from cni_plugins.config.flannel import FlannelConf
from cni_plugins.config.host_local import HostLocalIPAM
from cni_plugins.config.portmap import PortmapConf
from cni_plugins.config.sublink import SublinkConf
from cni_plugins.spec.errors import InvalidConfigError
from conflist import models, ranges, rules, shape
from conflist.invoke import PluginNotFoundError, find_plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conflist.findings import Spot
    from conflist.overlap import Network

_NOT_INTO = ("args", "ipam", "runtimeConfig")
"""Objects with keys for others than the plugin itself."""


class Entry:
    """A plugin object of a list.

    Attributes:
        spot: where it is.
        data: the object.
        kind: its type.
        bridge: the configuration of the bridge that it makes, itself or through a delegate.
    """

    def __init__(self, spot: Spot, data: dict[str, Any], kind: str) -> None:
        self.spot = spot
        self.data = data
        self.kind = kind
        self.bridge: BridgeConf | None = None
        self.stretches: list[ranges.Stretch] = []

    @property
    def ipam_kind(self) -> str:
        """The type of its IPAM plugin; empty when it has none."""
        ipam = self.data.get("ipam")
        kind = ipam.get("type") if isinstance(ipam, dict) else None
        return kind if isinstance(kind, str) else ""

    def declares(self, capability: str) -> bool:
        """Tell whether the plugin asks for a capability."""
        declared = self.data.get("capabilities")
        return isinstance(declared, dict) and declared.get(capability) is True


def check_entry(network: Network, entry: Entry, path: Sequence[str]) -> None:
    """Check one plugin object by itself.

    Args:
        network: the network it is part of.
        entry: the plugin.
        path: the folders in which plugins have to be.
    """
    spot, data = entry.spot, entry.data
    _check_exists(spot.at("type"), entry.kind, path, (*models.PLUGINS, *models.MAKES_INTERFACE))
    if entry.ipam_kind and entry.kind != "flannel":
        _check_exists(spot.at("ipam", "type"), entry.ipam_kind, path, models.IPAM_ONLY)
    _check_capabilities(entry)
    model = models.PLUGINS.get(entry.kind)
    conf = shape.check(spot, model or NetConf, data, partial=True)
    if model is not None:
        shape.check_keys(spot, model, data, also=_also(spot, data), skip=_NOT_INTO)
    if isinstance(conf, NetConf):
        rules.dns(spot.at("dns"), conf.dns)
    if entry.kind in models.NEEDS_IPAM and not entry.ipam_kind:
        spot.error(f"{entry.kind} needs an IPAM plugin", 'add "ipam": {"type": "host-local", …}')
    _check_ipam(network, entry)
    if isinstance(conf, BridgeConf):
        entry.bridge = conf
        rules.bridge(spot, conf, ipam=bool(entry.ipam_kind))
    elif isinstance(conf, SublinkConf):
        rules.sublink(spot, conf)
    elif isinstance(conf, PortmapConf):
        rules.portmap(spot, conf)
    elif isinstance(conf, FlannelConf):
        _check_flannel(entry, path)


def _also(spot: Spot, data: dict[str, Any]) -> tuple[str, ...]:
    """Return keys that a plugin object may have besides its model's, and those that are errors already."""
    single = () if spot.path else ("cniVersions", "disableCheck", "disableGC")
    return (*models.PROTOCOL_KEYS, *single, *filter(models.reserved, data))


def _check_exists(spot: Spot, kind: str, path: Sequence[str], known: Sequence[str] | frozenset[str]) -> None:
    try:
        find_plugin(kind, path)
    except InvalidConfigError as error:
        spot.error(error.msg, error.details)
    except PluginNotFoundError as error:
        question = "" if kind in known else shape.suggest(kind, sorted(known))
        spot.error(
            f"no plugin {kind!r} in {':'.join(path) or 'CNI_PATH, which is empty'}",
            question or f"install it, or correct the type ({error.details})",
        )


def _check_capabilities(entry: Entry) -> None:
    given = entry.data.get("capabilities")
    spot = entry.spot.at("capabilities")
    if given is None:
        return
    if not isinstance(given, dict):
        spot.error("capabilities must be an object", 'as in {"portMappings": true}')
        return
    known = models.capabilities(entry.kind, entry.ipam_kind)
    for name, wanted in given.items():
        if not isinstance(wanted, bool):
            spot.at(name).error(f"the capability {name} must be true or false")
        elif wanted and known is not None and name not in known:
            advice = shape.suggest(name, known) or (
                f"it knows: {', '.join(sorted(known))}" if known else "it knows none"
            )
            if name != "portMappings":  # which the list as a whole has a say on
                spot.at(name).warning(f"{entry.kind} does not know the capability {name}", advice, key=True)


def _check_ipam(network: Network, entry: Entry) -> None:
    """Check the `ipam` object, where its plugin is one of ours."""
    spot, data = entry.spot.at("ipam"), entry.data.get("ipam")
    if not isinstance(data, dict):
        return
    if entry.kind == "flannel":
        shape.check(spot, HostLocalIPAM, data)
        shape.check_keys(spot, HostLocalIPAM, data)
        return
    if not entry.ipam_kind:
        if data:
            spot.warning(
                "ipam has no type: the container gets no address", 'add "type": "host-local", or remove ipam'
            )
        return
    if entry.ipam_kind not in models.IPAM:
        return
    model, _runtime = models.IPAM[entry.ipam_kind]
    conf = shape.check(spot, model, data)
    shape.check_keys(spot, model, data)
    if not isinstance(conf, HostLocalIPAM):
        return
    at_run_time = entry.declares("ipRanges")
    entry.stretches = ranges.host_local(spot, conf, network.version, given_at_run_time=at_run_time)
    subnets = [stretch.subnet for stretch in entry.stretches]
    valid = rules.routes(spot.at("routes"), conf.routes, [] if at_run_time else subnets)
    bridge = shape.quiet(BridgeConf, entry.data) if entry.kind == "bridge" else None
    if bridge is not None and len(valid) == len(conf.routes):
        rules.default_route(spot.at("routes"), bridge, valid)


def _check_flannel(entry: Entry, path: Sequence[str]) -> None:
    """Check what flannel hands to its delegate."""
    spot = entry.spot.at("delegate")
    delegate = entry.data.get("delegate") or {}
    for key in ("name", "ipam"):
        if delegate.get(key) is not None:
            spot.at(key).error(f"flannel makes the delegate's {key} itself", "remove it", key=True)
    kind = delegate.get("type", "bridge")
    if not isinstance(kind, str):
        spot.at("type").error("type must be a string")
        return
    _check_exists(spot.at("type"), kind, path, (*models.PLUGINS, *models.MAKES_INTERFACE))
    _check_exists(entry.spot.at("type"), entry.ipam_kind or "host-local", path, models.IPAM_ONLY)
    model = models.PLUGINS.get(kind)
    if model is None:
        return
    conf = shape.check(spot, model, delegate, partial=True)
    shape.check_keys(spot, model, delegate, also=models.PROTOCOL_KEYS, skip=_NOT_INTO)
    if isinstance(conf, BridgeConf):
        entry.bridge = conf
        rules.bridge(spot, conf, ipam=True)
