"""Configuration of the bridge plugin."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import Args, MACArgs, Model, NetConf


class VlanTrunk(Model):
    """One entry of `vlanTrunk`: a single id, or a range."""

    id: int | None = Field(None, ge=0, le=4094, description="One VLAN id.")
    min_id: int | None = Field(None, alias="minID", ge=0, le=4094, description="First VLAN id of a range.")
    max_id: int | None = Field(None, alias="maxID", ge=0, le=4094, description="Last VLAN id of a range.")


class BridgeConf(NetConf):
    """A container's veth pair on a Linux bridge."""

    bridge: str = Field("cni0", description="Name of the bridge; made when it does not exist.")
    is_gateway: bool = Field(False, alias="isGateway", description="Give the bridge the gateway's address.")
    is_default_gateway: bool = Field(
        False, description="As `isGateway`, and route everything of the container through it."
    )
    force_address: bool = Field(
        False, description="Replace another address of the same family on the bridge instead of failing."
    )
    ip_masq: bool = Field(False, description="Masquerade traffic that leaves the network.")
    ip_masq_backend: str | None = Field(None, description='"nftables" (the default) or "iptables".')
    mtu: int = Field(0, ge=0, le=65535, description="MTU of the veth pair, in bytes; 0: the kernel's choice.")
    hairpin_mode: bool = Field(False, description="Let the port send a frame back where it came from.")
    promisc_mode: bool = Field(False, description="Promiscuous mode on the bridge; excludes `hairpinMode`.")
    vlan: int = Field(0, ge=0, le=4094, description="Access VLAN of the port; excludes `vlanTrunk`.")
    vlan_trunk: list[VlanTrunk] = Field([], description="VLANs that the port carries tagged.")
    preserve_default_vlan: bool = Field(
        True, description="Keep the default VLAN 1 on the port beside `vlan` or `vlanTrunk`."
    )
    mac: str = Field("", description="MAC address of the container's interface.")
    macspoofchk: bool = Field(
        False, description="Drop frames whose source is not the container's MAC address."
    )
    enabledad: bool = Field(
        False, description="Duplicate address detection for the container's IPv6 addresses."
    )
    disable_container_interface: bool = Field(
        False, description="Leave the container's interface down; excludes `ipam`."
    )
    port_isolation: bool = Field(False, description="Forbid traffic to other isolated ports of the bridge.")
    args: Args = Field(Args(), description="`args.cni.mac` gives a MAC address.")
    runtime_config: MACArgs = Field(MACArgs(), description="The capability `mac`.")
