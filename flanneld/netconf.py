"""net-conf.json: the cluster's network, as flannel describes it. Keys are matched without regard to case."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from flanneld.subnets import SubnetRange


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


# As Go reads a network: its host bits do not count.
V4Network = Annotated[IPv4Network, BeforeValidator(lambda text: IPv4Network(text, strict=False))]
V6Network = Annotated[IPv6Network, BeforeValidator(lambda text: IPv6Network(text, strict=False))]


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
    """The cluster's network."""

    network: V4Network | None = Field(None, description="The pods' IPv4 network.")
    ipv6_network: V6Network | None = Field(None, description="The pods' IPv6 network.")
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

    @model_validator(mode="after")
    def check(self) -> Self:
        """Demand a network for each family."""
        if not self.families:
            raise ValueError("EnableIPv4 and EnableIPv6 are both false")
        if self.enable_ipv4 and self.network is None:
            raise ValueError("Network is missing; without IPv4, EnableIPv4 has to be false")
        if self.enable_ipv6 and self.ipv6_network is None:
            raise ValueError("EnableIPv6 is true, but IPv6Network is missing")
        return self

    def cluster(self, family: int) -> IPv4Network | IPv6Network | None:
        """Return the pods' network of family 4 or 6, or None where the family is not in use."""
        return (self.network if family == 4 else self.ipv6_network) if family in self.families else None

    def subnet_range(self, family: int) -> SubnetRange:
        """Return which subnets can be leased; asked for by the etcd manager alone, as only it leases them.

        Raises:
            NetconfError: the keys do not fit each other.
        """
        try:
            if family == 4:
                assert self.network is not None
                return SubnetRange.within(self.network, self.subnet_len, self.subnet_min, self.subnet_max)
            assert self.ipv6_network is not None
            return SubnetRange.within(
                self.ipv6_network, self.ipv6_subnet_len, self.ipv6_subnet_min, self.ipv6_subnet_max
            )
        except ValueError as error:
            raise NetconfError(str(error)) from None

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
                    ": ".join(
                        filter(
                            None,
                            (".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, ")),
                        )
                    )
                    for detail in error.errors()
                )
            ) from None
