"""Configuration of the portmap plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import Model, NetConf


class PortMapping(Model):
    """One entry of the capability `portMappings`."""

    host_port: int = Field(0, ge=0, le=65535, description="Port on the host; 0: the entry is ignored.")
    container_port: int = Field(0, ge=0, le=65535, description="Port in the container.")
    protocol: str = Field("tcp", description='"tcp", "udp" or "sctp".')
    host_ip: str = Field("", alias="hostIP", description="Only traffic to this address of the host.")


class PortmapRuntime(Model):
    """Capabilities of portmap."""

    port_mappings: list[PortMapping] = Field([], description="The mappings.")


class PortmapConf(NetConf):
    """Host ports forwarded to a container; chained after an interface plugin."""

    snat: bool = Field(True, description="Make a container reach its own host port, and localhost any.")
    masq_all: bool = Field(False, description="Masquerade all forwarded traffic.")
    mark_masq_bit: int | None = Field(
        None, ge=0, le=31, description="Bit of the mark that asks for masquerade (iptables); default 13."
    )
    external_set_mark_chain: str | None = Field(
        None, description="An existing chain that sets the mark, as Kubernetes's KUBE-MARK-MASQ (iptables)."
    )
    conditions_v4: list[str] | None = Field(None, description="Extra matches for IPv4 rules.")
    conditions_v6: list[str] | None = Field(None, description="Extra matches for IPv6 rules.")
    backend: str | None = Field(None, description='"nftables" (the default) or "iptables".')
    runtime_config: PortmapRuntime = Field(PortmapRuntime(), description="The capability `portMappings`.")
