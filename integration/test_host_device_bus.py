"""host-device by the address on a bus: real PCI network cards, which the test machine's QEMU emulates."""

from __future__ import annotations

import glob
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import check, pods, refusal, static
from integration.sublinks import PARENT, parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.node import Node

INTEL, VIRTIO = "0x8086", "0x1af4"
PCI = "/sys/bus/pci"
ETHERNET = "0x0200"


def network(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "ipam": static("10.77.0.9/24"), **keys}


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def card(vendor: str) -> str:
    """Return the PCI address of the machine's network card of a vendor, with its driver loaded."""
    for module in ("e1000", "virtio_net"):
        subprocess.run(["modprobe", module], check=True)
    found = [
        os.path.basename(path)
        for path in glob.glob(f"{PCI}/devices/*")
        if read(f"{path}/class").startswith(ETHERNET) and read(f"{path}/vendor") == vendor
    ]
    assert len(found) == 1
    return found[0]


def interface(address: str) -> str:
    """Return the name of a card's interface in the machine's own namespace."""
    top = f"{PCI}/devices/{address}"
    (name,) = [
        os.path.basename(path) for path in [*glob.glob(f"{top}/net/*"), *glob.glob(f"{top}/virtio*/net/*")]
    ]
    return name


def give(node: Node, address: str) -> str:
    """Move a card's interface to the node; it falls back to the machine when the node closes."""
    name = interface(address)
    subprocess.run(["ip", "link", "set", name, "netns", str(node.pid)], check=True)
    return name


def named(address: str, key: str) -> dict[str, Any]:
    """Return the configuration that names a card in one of the ways there are."""
    if key == "kernelpath":
        return network(kernelpath=os.path.realpath(f"{PCI}/devices/{address}"))
    if key == "deviceID":
        return network(runtimeConfig={"deviceID": address}, capabilities={"deviceID": True})
    return network(pciBusID=address)


@pytest.mark.kernel("PCI network cards")
def test_a_card_is_lent_by_its_address(node: Node) -> None:
    intel, virtio = card(INTEL), card(VIRTIO)
    names = {address: give(node, address) for address in (intel, virtio)}
    for address, key in (
        (intel, "pciBusID"),
        (intel, "kernelpath"),
        (intel, "deviceID"),
        (virtio, "pciBusID"),
    ):
        name = names[address]
        mac = node.links()[name]["address"]
        conf, pod = named(address, key), f"{key}-{address[-4:-2]}"
        result = pods(node, conf, pod, plugin="host-device")[0]
        inside = node.links(pod)["eth0"]
        assert (inside["address"], inside["ifalias"], name in node.links()) == (mac, name, False)
        assert result["interfaces"][0].get("pciID") == (None if key == "kernelpath" else address)
        assert not check(node, "host-device", conf, result, container=pod, netns=pod)
        node.delete("host-device", conf, container=pod, netns=pod)
        assert node.links()[name]["address"] == mac


@contextmanager
def driven(address: str, driver: str) -> Iterator[None]:
    """Give a card to another driver, and back to its own."""
    subprocess.run(["modprobe", driver], check=True)
    top = f"{PCI}/devices/{address}"
    for override in (driver, ""):
        write(f"{top}/driver_override", f"{override}\n")
        write(f"{top}/driver/unbind", address)
        write(f"{PCI}/drivers_probe", address)
        if override:
            try:
                yield
            except BaseException:
                write(f"{top}/driver_override", "\n")
                raise


@pytest.mark.kernel("PCI network cards")
def test_a_card_that_a_program_drives_stays_where_it_is(node: Node) -> None:
    """DPDK: the program in the container reaches the card by its address, which the result tells."""
    address = card(INTEL)
    with driven(address, "uio_pci_generic"):
        result = pods(node, network(pciBusID=address), "c1", plugin="host-device")[0]
        assert set(node.links("c1")) == {"lo"}
        assert [each["pciID"] for each in result["interfaces"]] == [address]
        assert result["ips"][0]["address"] == "10.77.0.9/24"
        assert not check(node, "host-device", network(pciBusID=address), result)
        node.delete("host-device", network(pciBusID=address), netns="c1")
    assert interface(address)


def test_a_device_of_the_auxiliary_bus(node: Node) -> None:
    """A subfunction; no driver that is made without hardware has one, so sysfs is written by hand."""
    parent(node)
    device = "mlx5_core.sf.4"
    node.run(["mount", "-t", "tmpfs", "bus", "/sys/bus"])
    node.run(["mkdir", "-p", f"/sys/bus/auxiliary/devices/{device}/net/{PARENT}"])
    conf = network(runtimeConfig={"deviceID": device}, capabilities={"deviceID": True})
    pods(node, conf, "c1", plugin="host-device")
    assert node.links("c1")["eth0"]["ifalias"] == PARENT
    node.delete("host-device", conf, netns="c1")
    assert PARENT in node.links()
    other = network(runtimeConfig={"deviceID": "mlx5_core.sf.5"}, capabilities={"deviceID": True})
    answer = refusal(node, "ADD", "host-device", other, netns="c1")
    assert "mlx5_core.sf.5" in answer["msg"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kernelpath": "/sys/class/net/x"}, "must be absolute and begin with /sys/devices/"),
        ({"kernelpath": "/sys/devices/none"}, "no network devices"),
        ({"pciBusID": "0000:ff:1f.7"}, "no PCI device"),
        ({}, "exactly one of"),
    ],
)
def test_what_names_no_device(node: Node, keys: dict[str, str], said: str) -> None:
    node.netns("c1")
    assert said in refusal(node, "ADD", "host-device", network(**keys), netns="c1")["msg"]
    node.delete("host-device", network(**keys), netns="c1")
