"""Configuration of host-device, tap and vrf."""

from __future__ import annotations

from pydantic import Field

from cni_plugins.config.base import MACArgs, Model, NetConf

_U32 = 0xFFFFFFFF


class DeviceArgs(Model):
    """What the runtime chose."""

    device_id: str = Field("", alias="deviceID", description="PCI address, or name on the auxiliary bus.")


class HostDeviceConf(NetConf):
    """An interface of the host, moved to the container: exactly one of the first four keys names it."""

    device: str = Field("", description="The interface's name.")
    hwaddr: str = Field("", description="Its MAC address.")
    kernelpath: str = Field("", description="Its device in sysfs, below /sys/devices/.")
    pci_bus_id: str = Field("", alias="pciBusID", description="Its device's PCI address: 0000:00:1f.6.")
    dpdk_mode: bool = Field(
        False, description="Move nothing: a program drives the device. Known from a PCI device's driver."
    )
    runtime_config: DeviceArgs = Field(
        DeviceArgs(), description="The capability `deviceID`, in the place of pciBusID."
    )


class TapConf(NetConf):
    """A tap device, for virtual machines and userspace network stacks."""

    multi_queue: bool = Field(False, description="Let the device be opened once for each queue.")
    mtu: int = Field(0, ge=0, le=65535, description="MTU in bytes; 0: the kernel's choice.")
    mac: str = Field("", description="MAC address of the device.")
    owner: int | None = Field(None, ge=0, le=_U32, description="Id of the user who may open it.")
    group: int | None = Field(None, ge=0, le=_U32, description="Id of the group that may open it.")
    selinux_context: str = Field("", description="SELinux context the device is made in.")
    bridge: str = Field("", description="A bridge in the container to make it a port of.")
    runtime_config: MACArgs = Field(MACArgs(), description="The capability `mac`.")


class VrfConf(NetConf):
    """A routing domain that the container's interface joins; chained."""

    vrfname: str = Field("", alias="vrfname", description="The VRF's name.")
    table: int = Field(0, ge=0, le=_U32, description="Its routing table; 0: the VRF's, or a free one.")
