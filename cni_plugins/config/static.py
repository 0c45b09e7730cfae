"""Configuration of the static IPAM plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import DNS, IPsArgs, IPsConvention, Model, Route


class StaticAddress(Model):
    """One address to give."""

    address: str = Field("", description="The address in CIDR notation.")
    gateway: str = Field("", description="The gateway of its subnet.")


class StaticRuntime(IPsArgs):
    """The capability `ips`."""


class StaticIPAM(Model):
    """The `ipam` object."""

    type: str = Field("", description='"static".')
    addresses: list[StaticAddress] = Field([], description="The addresses to give.")
    routes: list[Route] = Field([], description="Routes to return, in this order.")
    dns: DNS = Field(DNS(), description="DNS settings to return.")


class StaticConf(Model):
    """What static reads of the network configuration."""

    cni_version: str = Field(
        "", description="The version of the specification the configuration is written in."
    )
    name: str = Field("", description="The network's name.")
    ipam: StaticIPAM | None = Field(None, description="Address management.")
    args: IPsConvention = Field(
        IPsConvention(), description="`args.cni.ips` goes before `addresses` and CNI_ARGS."
    )
    runtime_config: StaticRuntime = Field(
        StaticRuntime(), description="The capability `ips`, which goes before everything else."
    )
