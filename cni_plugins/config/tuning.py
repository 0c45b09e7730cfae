"""Configuration of the tuning plugin."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cni_plugins.config.base import MACArgs, Model, NetConf

_MAX_MTU = 2**31 - 1
_MAX_QUEUE = 2**32 - 1


class TuningArgs(Model):
    """What `args.cni` may ask for; it goes before everything else."""

    sysctl: dict[str, Any] = Field({}, description="Kernel parameters, over those of the configuration.")
    mac: str | None = Field(None, description="MAC address of the container's interface.")
    promisc: bool | None = Field(None, description="Promiscuous mode.")
    mtu: int | None = Field(None, ge=0, le=_MAX_MTU, description="MTU in bytes; 0: left as it is.")
    allmulti: bool | None = Field(None, description="All-multicast mode.")
    tx_q_len: int | None = Field(
        None, alias="txQLen", ge=0, le=_MAX_QUEUE, description="Length of the transmit queue, in packets."
    )


class TuningConvention(Model):
    """`args` of the configuration."""

    cni: TuningArgs = Field(TuningArgs(), description="Arguments by convention.")


class TuningConf(NetConf):
    """Kernel parameters of the container's namespace and properties of its interface; a chained plugin."""

    data_dir: str = Field(
        "/run/cni/tuning", description="Where the interface's previous properties are kept for DEL."
    )
    sysctl: dict[str, Any] = Field(
        {},
        description="Kernel parameters below net, by name, with dots or slashes; IFNAME stands for the "
        "interface's name. Values are strings.",
    )
    mac: str = Field("", description="MAC address of the container's interface.")
    promisc: bool = Field(False, description="Promiscuous mode; false leaves it as it is.")
    mtu: int = Field(0, ge=0, le=_MAX_MTU, description="MTU in bytes; 0: left as it is.")
    allmulti: bool | None = Field(
        None, description="All-multicast mode on or off; when absent, left as it is."
    )
    tx_q_len: int | None = Field(
        None, alias="txQLen", ge=0, le=_MAX_QUEUE, description="Length of the transmit queue, in packets."
    )
    args: TuningConvention = Field(TuningConvention(), description="`args.cni` goes before all other keys.")
    runtime_config: MACArgs = Field(MACArgs(), description="The capability `mac`.")


class TuningStash(Model):
    """Properties of an interface before an ADD changed them: the file that DEL restores them from."""

    mac: str = Field("", description="MAC address.")
    promisc: bool | None = Field(None, description="Promiscuous mode.")
    mtu: int = Field(0, ge=0, description="MTU in bytes.")
    allmulti: bool | None = Field(None, description="All-multicast mode.")
    tx_q_len: int | None = Field(None, alias="txQLen", ge=0, description="Length of the transmit queue.")
