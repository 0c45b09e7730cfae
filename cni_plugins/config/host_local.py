"""Configuration of the host-local IPAM plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import IPsArgs, IPsConvention, Model, Route


class Range(Model):
    """A stretch of a subnet to give addresses from."""

    subnet: str = Field("", description="The subnet in CIDR notation; host bits are cleared.")
    range_start: str = Field("", description="First address to give; default: the first of the subnet.")
    range_end: str = Field("", description="Last address to give; default: the last of the subnet.")
    gateway: str = Field(
        "", description="The gateway, never given away; default: the subnet's first address."
    )


class HostLocalRuntime(IPsArgs):
    """Capabilities `ips` and `ipRanges`."""

    ip_ranges: list[list[Range]] = Field([], description="Range sets that go before those of `ranges`.")


class HostLocalIPAM(Range):
    """The `ipam` object."""

    type: str = Field("", description='"host-local".')
    ranges: list[list[Range]] = Field([], description="Range sets: one address is given from each.")
    routes: list[Route] = Field([], description="Routes to return.")
    data_dir: str = Field("", description="Where reservations are kept; default: /var/lib/cni/networks.")
    resolv_conf: str = Field("", description="A resolv.conf(5) whose settings are returned as DNS.")


class HostLocalConf(Model):
    """What host-local reads of the network configuration."""

    cni_version: str = Field(
        "", description="The version of the specification the configuration is written in."
    )
    name: str = Field("", description="The network's name: reservations are kept per network.")
    ipam: HostLocalIPAM = Field(HostLocalIPAM(), description="Address management.")
    args: IPsConvention = Field(IPsConvention(), description="`args.cni.ips` asks for addresses.")
    runtime_config: HostLocalRuntime = Field(
        HostLocalRuntime(), description="Capabilities `ips`, `ipRanges`."
    )
