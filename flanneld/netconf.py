"""net-conf.json: the cluster's network, as flannel describes it. Keys are matched without regard to case."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class NetconfError(ValueError):
    """The network's configuration cannot be used; the message names the key."""


class FoldedModel(BaseModel):
    """A JSON object as Go's decoder reads it: keys in any case, null as absent, unknown keys let through.

    Backends describe their options with it, too; attributes are the keys in lower case unless an alias says
    otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=lambda name: name.replace("_", ""))

    @model_validator(mode="before")
    @classmethod
    def fold(cls, data: Any) -> Any:
        """Drop nulls and put keys in lower case; of two that differ in case only, the later counts."""
        if not isinstance(data, dict):
            return data
        return {str(key).lower(): value for key, value in data.items() if value is not None}


class BackendConf(FoldedModel):
    """`Backend`: its type, and options that the backend of that type reads from `options`."""

    type: str = Field("udp", description="vxlan, host-gw, ipip, wireguard, udp, alloc or extension.")
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def keep(cls, data: Any) -> Any:
        """Keep every key for the backend."""
        return {**data, "options": data} if isinstance(data, dict) else data


class NetworkConfig(FoldedModel):
    """The cluster's network.

    Attributes beside the keys: `subnet_min` to `ipv6_subnet_max` are filled in when they are absent.
    """

    network: IPv4Network | None = Field(None, description="The pods' IPv4 network.")
    ipv6_network: IPv6Network | None = Field(None, description="The pods' IPv6 network.")
    enable_ipv4: bool = Field(True, description="Use IPv4.")
    enable_ipv6: bool = Field(False, description="Use IPv6.")
    enable_nftables: bool = Field(True, description="Write traffic rules with nftables, else iptables.")
    subnet_len: int = Field(0, ge=0, le=32, description="Length of a node's subnet; default 24.")
    subnet_min: IPv4Address = Field(IPv4Address(0), description="First subnet to lease (etcd).")
    subnet_max: IPv4Address = Field(IPv4Address(0), description="Last subnet to lease (etcd).")
    ipv6_subnet_len: int = Field(0, ge=0, le=128, description="Length of a node's IPv6 subnet; default 64.")
    ipv6_subnet_min: IPv6Address = Field(IPv6Address(0), description="First IPv6 subnet to lease (etcd).")
    ipv6_subnet_max: IPv6Address = Field(IPv6Address(0), description="Last IPv6 subnet to lease (etcd).")
    backend: BackendConf = Field(BackendConf(), description="How nodes reach each other.")

    @property
    def families(self) -> tuple[int, ...]:
        """The address families in use, of 4 and 6."""
        return (4,) * self.enable_ipv4 + (6,) * self.enable_ipv6

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read the JSON text.

        Raises:
            NetconfError: it is none, or describes no usable network.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise NetconfError(
                "; ".join(
                    ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))
                    for detail in error.errors()
                )
            ) from None
