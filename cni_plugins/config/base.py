"""What every plugin's configuration shares (CNI 1.1.0, section 1), and how JSON keys map to attributes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

_U32 = 0xFFFFFFFF  # the kernel's attributes have no more bits


def is_text(value: str) -> bool:
    """Tell whether a string can be a name or a path: no NUL, nothing that UTF-8 cannot say."""
    return "\0" not in value and not any(0xD800 <= ord(char) <= 0xDFFF for char in value)


class Model(BaseModel):
    """A JSON object as Go's decoder reads it.

    Keys are matched without regard to case when no exact match exists, null counts as absent, unknown keys
    are let through, and a value of another type is an error (no "1" for 1).
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=False,
        arbitrary_types_allowed=False,
    )

    @model_validator(mode="before")
    @classmethod
    def as_go_decodes(cls, data: Any) -> Any:
        """Drop nulls and fold the case of keys."""
        if not isinstance(data, dict):
            return data
        known = {
            (field.alias or name).lower(): field.alias or name for name, field in cls.model_fields.items()
        }
        folded: dict[str, Any] = {}
        for key, value in data.items():
            alias = known.get(key.lower())
            if alias is not None and value is not None and (key == alias or alias not in data):
                folded[alias] = value
        for alias, value in folded.items():
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, str) and not is_text(item):
                    raise ValueError(f"{alias} has a character that no name can have")
        return folded


class DNS(Model):
    """DNS settings of a container."""

    nameservers: list[str] = Field([], description="Addresses of name servers, in order of priority.")
    domain: str = Field("", description="The local domain for short host names.")
    search: list[str] = Field([], description="Search domains.")
    options: list[str] = Field([], description="Options for the resolver.")


class Route(Model):
    """A route that an IPAM plugin hands to the interface plugin."""

    dst: str = Field("", description="Destination in CIDR notation.")
    gw: str = Field("", description="Next hop; when absent, the gateway of the address.")
    mtu: int = Field(0, ge=0, le=_U32, description="MTU along the route, in bytes.")
    advmss: int = Field(0, ge=0, le=_U32, description="TCP maximum segment size to advertise, in bytes.")
    priority: int = Field(0, ge=0, le=_U32, description="Metric; lower is preferred.")
    table: int | None = Field(None, ge=0, le=_U32, description="Routing table; when absent, main.")
    scope: int | None = Field(None, ge=0, le=255, description="Scope (rtnetlink(7)).")


class IPsArgs(Model):
    """Addresses asked for, in `args.cni` or in `runtimeConfig`."""

    ips: list[str] = Field(
        [], description="Addresses to give; host-local takes them with or without a prefix length."
    )


class IPsConvention(Model):
    """`args` of the configuration, for IPAM plugins."""

    cni: IPsArgs = Field(IPsArgs(), description="Arguments by convention.")


class IPAMRef(Model):
    """The part of `ipam` that the interface plugin itself reads; the rest is the IPAM plugin's."""

    type: str = Field("", description="The IPAM plugin to delegate to; when absent, layer 2 only.")


class NetConf(Model):
    """The keys every plugin object has."""

    cni_version: str = Field(
        "", description="The version of the specification the configuration is written in."
    )
    name: str = Field("", description="The network's name.")
    type: str = Field("", description="The plugin's name.")
    ipam: IPAMRef = Field(IPAMRef(), description="Address management.")
    dns: DNS = Field(DNS(), description="DNS settings to return.")


class MACArgs(Model):
    """Something that may carry a MAC address: `args.cni` or `runtimeConfig`."""

    mac: str = Field("", description="The MAC address to give the container's interface.")


class Args(Model):
    """`args` of the configuration, for plugins that take a MAC address there."""

    cni: MACArgs = Field(MACArgs(), description="Arguments by convention.")
