"""Configuration of the plugins whose interface is on top of another: macvlan, ipvlan, vlan; and dummy."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import Args, MACArgs, NetConf

_U32 = 0xFFFFFFFF


class SublinkConf(NetConf):
    """What macvlan, ipvlan and vlan share."""

    master: str = Field(
        "", description="Name of the interface to build on; when absent, that of the default route."
    )
    link_in_container: bool = Field(
        False, description="The master is in the container's namespace, not in the host's."
    )
    # Bounded by the master's MTU, which the plugin names when it refuses one.
    mtu: int = Field(
        0,
        description="MTU in bytes, of the master's at most; 0: the master's.",
        json_schema_extra={"minimum": 0},
    )


class MacvlanConf(SublinkConf):
    """A container's own MAC address on an interface of the host."""

    mode: str = Field(
        "", description='"bridge" (the default), "private", "vepa" or "passthru": who reaches whom.'
    )
    bcqueuelen: int = Field(
        0,
        alias="bcqueuelen",
        ge=0,
        le=_U32,
        description="Length of the master's queue of broadcasts, in packets; 0: the kernel's choice.",
    )
    mac: str = Field("", description="MAC address of the container's interface.")
    args: Args = Field(Args(), description="`args.cni.mac` gives a MAC address.")
    runtime_config: MACArgs = Field(MACArgs(), description="The capability `mac`.")


class IpvlanConf(SublinkConf):
    """An interface that shares the MAC address of one of the host; chained, with the addresses before it."""

    mode: str = Field("", description='"l2" (the default), "l3" or "l3s".')


class VlanConf(SublinkConf):
    """A tagged VLAN of an interface of the host, in the container."""

    vlan_id: int = Field(
        0, description="The VLAN's number, 0 to 4094.", json_schema_extra={"minimum": 0, "maximum": 4094}
    )


class DummyConf(NetConf):
    """An interface that leads nowhere, for addresses."""
