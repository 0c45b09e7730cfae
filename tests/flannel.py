"""What tests of flannel share: what the daemon writes, and the plugin as a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.calls import Answer, call, variables

if TYPE_CHECKING:
    from pathlib import Path

V4 = {
    "FLANNEL_NETWORK": "10.244.0.0/16",
    "FLANNEL_SUBNET": "10.244.3.1/24",
    "FLANNEL_MTU": "1450",
    "FLANNEL_IPMASQ": "true",
}
V6 = {"FLANNEL_IPV6_NETWORK": "fd00:10::/48", "FLANNEL_IPV6_SUBNET": "fd00:10:0:3::1/64"}
BOTH = {**V4, **V6}
ONLY6 = {"FLANNEL_MTU": "1450", "FLANNEL_IPMASQ": "true", **V6}


def text(values: dict[str, str]) -> str:
    """Return the content of `subnet.env`."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


def held(folder: Path) -> list[str]:
    """Return the addresses that host-local gave from a folder."""
    return sorted(path.name for path in folder.glob("[0-9f]*[0-9]"))


class Flannel:
    """flannel as a process, with host-local as its delegate; all its files are in a folder of the test's."""

    def __init__(self, suite_bin: str, tmp_path: Path) -> None:
        self.bin = self.path = suite_bin
        self.notes = tmp_path / "notes"
        self.env = tmp_path / "subnet.env"
        self.addresses = tmp_path / "ipam" / "net"

    def call(self, verb: str, container: str = "c1", valid: list[str] | None = None, **keys: Any) -> Answer:
        raw = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "flannel",
            "subnetFile": str(self.env),
            "dataDir": str(self.notes),
            "delegate": {"type": "host-local"},
            "ipam": {"dataDir": str(self.addresses.parent)},
            **keys,
        }
        if valid is not None:
            raw["cni.dev/valid-attachments"] = [{"containerID": each, "ifname": "eth0"} for each in valid]
        return call(f"{self.bin}/flannel", variables(verb, self.path, containerid=container), raw)

    def held(self) -> list[str]:
        """Return the addresses that are given."""
        return held(self.addresses)
