"""Devices and their network interfaces in sysfs (Documentation/ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import posix

PCI = "/sys/bus/pci/devices"
AUXILIARY = "/sys/bus/auxiliary/devices"


def exists(path: str) -> bool:
    """Tell whether there is something at a path."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def driver(pci_address: str) -> str:
    """Return the name of the driver that a PCI device is bound to; empty for none.

    Raises:
        FileNotFoundError: there is no such device.
    """
    posix.stat(f"{PCI}/{pci_address}")
    try:
        return posix.readlink(f"{PCI}/{pci_address}/driver").rpartition("/")[2]
    except FileNotFoundError:
        return ""


def interfaces(device: str) -> list[str]:
    """Return the names of a device's network interfaces, in the namespace that sysfs shows.

    A virtio device has them one level below, at the virtio bus.

    Raises:
        OSError: there is no such device.
    """
    names = sorted(posix.listdir(device))
    if "net" in names:
        return sorted(posix.listdir(f"{device}/net"))
    found = []
    for name in names:
        if name.startswith("virtio") and exists(f"{device}/{name}/net"):
            found += sorted(posix.listdir(f"{device}/{name}/net"))
    return found
