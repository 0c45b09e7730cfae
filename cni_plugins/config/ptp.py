"""Configuration of the ptp plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import NetConf


class PtpConf(NetConf):
    """A container's veth pair whose other end is a port of the host's router, not of a bridge."""

    ip_masq: bool = Field(False, description="Masquerade traffic that leaves the network.")
    ip_masq_backend: str | None = Field(None, description='"nftables" (the default) or "iptables".')
    mtu: int = Field(0, ge=0, le=65535, description="MTU of the veth pair, in bytes; 0: the kernel's choice.")
    gateway_address: str = Field(
        "",
        description="A link-local address: the container's next hop for everything, in the place of the "
        "gateway that IPAM gives. The other family's is 169.254.1.1 or fe80::1.",
    )
    proxy_arp: bool = Field(
        False,
        alias="proxyARP",
        description="Let the host answer ARP requests of the container for every address it has a route to.",
    )
