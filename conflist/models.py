"""Which model describes which plugin, and what a list's file may hold; from these also the JSON Schema."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema

from cni_plugins.config.bandwidth import BandwidthConf
from cni_plugins.config.bridge import BridgeConf
from cni_plugins.config.devices import HostDeviceConf, TapConf, VrfConf
from cni_plugins.config.dhcp import DhcpIPAM, DhcpRuntime
from cni_plugins.config.firewall import FirewallConf
from cni_plugins.config.flannel import FlannelConf
from cni_plugins.config.host_local import HostLocalIPAM, HostLocalRuntime
from cni_plugins.config.loopback import LoopbackConf
from cni_plugins.config.portmap import PortmapConf
from cni_plugins.config.ptp import PtpConf
from cni_plugins.config.sbr import SbrConf
from cni_plugins.config.static import StaticIPAM, StaticRuntime
from cni_plugins.config.sublink import DummyConf, IpvlanConf, MacvlanConf, VlanConf
from cni_plugins.config.tuning import TuningConf
from cni_plugins.spec.result import VERSIONS

PLUGINS: dict[str, type[BaseModel]] = {
    "bandwidth": BandwidthConf,
    "bridge": BridgeConf,
    "dummy": DummyConf,
    "firewall": FirewallConf,
    "flannel": FlannelConf,
    "host-device": HostDeviceConf,
    "ipvlan": IpvlanConf,
    "loopback": LoopbackConf,
    "macvlan": MacvlanConf,
    "portmap": PortmapConf,
    "ptp": PtpConf,
    "sbr": SbrConf,
    "tap": TapConf,
    "tuning": TuningConf,
    "vlan": VlanConf,
    "vrf": VrfConf,
}
"""Plugins of a list, by type."""

IPAM: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "dhcp": (DhcpIPAM, DhcpRuntime),
    "host-local": (HostLocalIPAM, HostLocalRuntime),
    "static": (StaticIPAM, StaticRuntime),
}
"""IPAM plugins, by type: the model of the `ipam` object and that of their capabilities."""

MAKES_INTERFACE = frozenset(
    ("bridge", "dummy", "flannel", "host-device", "ipvlan", "macvlan", "ptp", "tap", "vlan")
)
"""Plugins that make the container's interface: a list has one of them."""

NEEDS_IPAM = frozenset(("dummy", "ptp", "vlan"))
"""Plugins that refuse to make an interface without an address."""

CHAINED_ONLY = frozenset(("bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf"))
"""Plugins that work on the result of another."""

IPAM_ONLY = frozenset(("dhcp", "host-local", "static"))
"""Plugins that others call for addresses."""

PROTOCOL_KEYS = ("args", "capabilities", "cniVersion", "dns", "ipam", "name", "type")
"""Keys that any plugin object may have."""

RESERVED = ("prevResult", "runtimeConfig")
"""Keys of a plugin object that the runtime writes, besides those that start with cni.dev/."""

CONVENTIONAL = (
    "aliases",
    "bandwidth",
    "cgroupPath",
    "deviceID",
    "dns",
    "infinibandGUID",
    "ipRanges",
    "ips",
    "mac",
    "portMappings",
)
"""Capabilities by convention, for plugins that pass theirs on."""


class ListConf(BaseModel):
    """A network: plugins that run one after another, each with the result of the one before."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", alias_generator=to_camel)

    cni_version: str = Field("", description="The version of the specification that plugins are called with.")
    cni_versions: list[str] = Field([], description="Versions to choose from; the runtime takes the highest.")
    name: str = Field(description="The network's name: unique on the node.")
    disable_check: bool = Field(False, description="Never call CHECK for this network.")
    disable_gc: bool = Field(False, alias="disableGC", description="Never call GC for this network.")
    load_only_inlined_plugins: bool = Field(
        False, description="Do not append the plugin objects in the folder that has the network's name."
    )
    plugins: list[dict[str, Any]] = Field([], description="Plugin objects, in the order of ADD.")


def reserved(key: str) -> bool:
    """Tell whether a plugin object's key is the runtime's to write."""
    return key in RESERVED or key.startswith("cni.dev/")


def keys(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON keys and the types of their values."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type is about: itself, an item of its lists, or the part that is not None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, types.UnionType):
        for part in get_args(annotation):
            found = inner_model(part)
            if found is not None:
                return found
    return None


def capabilities(plugin: str, ipam: str = "") -> set[str] | None:
    """Return what capabilities a plugin knows, with its IPAM plugin's; None when that is not known."""
    model = PLUGINS.get(plugin)
    if model is None or (ipam and ipam not in IPAM):
        return None
    annotation = keys(model).get("runtimeConfig")
    if annotation is None:
        known: set[str] = set()
    else:
        inner = inner_model(annotation)
        known = set(keys(inner)) if inner is not None else set(CONVENTIONAL)
    return known | (set(keys(IPAM[ipam][1])) if ipam else set())


def schema(plugin: str = "") -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a list file, or of one plugin's or IPAM plugin's object.

    Raises:
        KeyError: the plugin is not one of ours.
    """
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if plugin in IPAM:
        return head | IPAM[plugin][0].model_json_schema(by_alias=True)
    if plugin:
        return head | PLUGINS[plugin].model_json_schema(by_alias=True)
    wanted: list[type[BaseModel]] = [*PLUGINS.values(), *(model for model, _run in IPAM.values()), ListConf]
    _names, made = models_json_schema([(model, "validation") for model in wanted], by_alias=True)
    definitions = made["$defs"]
    top: dict[str, Any] = definitions.pop("ListConf")
    top["properties"]["cniVersion"]["examples"] = list(VERSIONS)
    top["properties"]["plugins"]["items"] = {
        "type": "object",
        "required": ["type"],
        "allOf": [
            *(_when({"type": {"const": kind}}, _reference(model)) for kind, model in PLUGINS.items()),
            *(
                _when(
                    {"type": {"not": {"const": "flannel"}}, "ipam": _with_type(kind)},
                    {"properties": {"ipam": _reference(model)}},
                )
                for kind, (model, _runtime) in IPAM.items()
            ),
        ],
    }
    return head | top | {"$defs": definitions}


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{model.__name__}"}


def _with_type(kind: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"type": {"const": kind}}, "required": ["type"]}


def _when(properties: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": properties, "required": list(properties)}, "then": then}
