"""Configuration of the firewall plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import NetConf


class FirewallConf(NetConf):
    """A container's traffic let through the host's firewall; chained after an interface plugin."""

    backend: str | None = Field(
        None,
        description='"firewalld", "iptables" or "nftables"; when absent, firewalld where it runs, iptables'
        " where it has rules for forwarded packets or drops them, nftables else.",
    )
    iptables_admin_chain_name: str | None = Field(
        None, description='A chain of the administrator\'s that goes first (iptables); default "CNI-ADMIN".'
    )
    firewalld_zone: str | None = Field(
        None,
        description='The zone that the container\'s addresses are put in (firewalld); default "trusted".',
    )
    ingress_policy: str | None = Field(
        None,
        description='"open" (the default); "same-bridge": nothing from other such bridges;'
        ' "isolated": neither from those nor from the same bridge.',
    )
