"""One of the two suites that race, in a node and with state of its own."""

from __future__ import annotations

import json
import os
import secrets
from ipaddress import IPv4Address
from typing import Any

from bench.attachment import Attachment
from integration import dhcp
from integration.node import Node

SUBNET = "10.88.0.0/16"
LARGE_SUBNET = "10.64.0.0/10"
NETWORK = "bench"
UPLINK = "uplink"


class Side:
    """A suite, its node and its files.

    Args:
        name: what the tables call it.
        folder: where its plugins are.
        data: an empty folder on a disk, for addresses and for flannel's files. The node's own /var/lib is in
            memory, where a real machine's is not.
        containers: how many namespaces to make.
    """

    def __init__(self, name: str, folder: str, data: str, containers: int) -> None:
        self.name = name
        self.folder = folder
        self.data = data
        self.containers = containers
        self.node = Node(folder)
        for number in range(containers):
            self.node.netns(f"c{number}")
        os.makedirs(data, exist_ok=True)
        with open(f"{data}/subnet.env", "w", encoding="ascii") as file:
            file.write("FLANNEL_NETWORK=10.88.0.0/16\nFLANNEL_SUBNET=10.88.1.1/24\n")
            file.write("FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n")

    def has(self, plugin: str) -> bool:
        """Tell whether the suite has a plugin."""
        return os.access(f"{self.folder}/{plugin}", os.X_OK)

    def attachment(self, plugins: list[dict[str, Any]], number: int) -> Attachment:
        """Return one container on a network of this suite."""
        return Attachment(self.folder, plugins, number)

    def bridge(self, *, masquerade: bool) -> dict[str, Any]:
        """Return a bridge network as most clusters have it."""
        return {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "hairpinMode": True,
            "ipMasq": masquerade,
            "ipam": {"type": "host-local", "subnet": SUBNET, "dataDir": f"{self.data}/networks"},
        }

    def before(self) -> dict[str, Any]:
        """Return the bridge network that a chained plugin, which alone is timed, comes after."""
        return {**self.bridge(masquerade=False), "timed": False}

    def alone(self, plugin: str, **keys: Any) -> dict[str, Any]:
        """Return a network of an interface plugin, with an address of host-local's."""
        ipam = {"type": "host-local", "subnet": SUBNET, "dataDir": f"{self.data}/networks"}
        return {"type": plugin, "ipam": ipam, **keys}

    def on_uplink(self, plugin: str, **keys: Any) -> dict[str, Any]:
        """Return a network on an interface of the node."""
        if UPLINK not in self.node.links():
            self.node.run(["ip", "link", "add", UPLINK, "up", "type", "veth", "peer", "name", "beyond"])
            self.node.run(["ip", "link", "set", "beyond", "up"])
        return self.alone(plugin, master=UPLINK, **keys)

    def leased(self) -> dict[str, Any]:
        """Return macvlan with an address of a DHCP server's; it and the suite's daemon run from then on."""
        if "lan" not in self.node.links():
            dhcp.lan(self.node, bridged=False)
            dhcp.start_dnsmasq(self.node, said="/dev/null")
            dhcp.start_daemon(self.node, said="/dev/null")
        return {"type": "macvlan", "master": "lan", "ipam": {"type": "dhcp"}}

    def lent(self) -> dict[str, Any]:
        """Return host-device, with an interface for each container."""
        present = self.node.links()
        for number in range(self.containers):
            if f"dev{number}" not in present:
                pair = f"dev{number} type veth peer name end{number}".split()
                self.node.run(["ip", "link", "add", *pair])
        return self.alone("host-device")

    def static(self) -> dict[str, Any]:
        """Return static alone, which nobody but an interface plugin calls otherwise."""
        given = {"address": "10.88.9.9/16", "gateway": "10.88.0.1"}
        return {"type": "static", "ipam": {"type": "static", "addresses": [given]}}

    def portmap(self) -> dict[str, Any]:
        """Return portmap as most lists have it."""
        return {"type": "portmap", "capabilities": {"portMappings": True}}

    def firewall(self, backend: str = "") -> dict[str, Any]:
        """Return firewall as most lists have it, or with a backend."""
        return {"type": "firewall", "backend": backend}

    def flannel(self) -> dict[str, Any]:
        """Return flannel, whose delegate becomes what `bridge` returns, with masquerade."""
        return {
            "type": "flannel",
            "subnetFile": f"{self.data}/subnet.env",
            "dataDir": f"{self.data}/flannel",
            "ipam": {"dataDir": f"{self.data}/networks"},
            # The other rows' bridge has another gateway's address.
            "delegate": {"bridge": "cni1", "hairpinMode": True, "isDefaultGateway": True},
        }

    def held(self, count: int) -> dict[str, Any]:
        """Return host-local with so many addresses held by others, in files as the reference writes them."""
        root = f"{self.data}/held-{count}"
        folder = f"{root}/{NETWORK}"
        if not os.path.isdir(folder):
            os.makedirs(folder)
            first = IPv4Address("10.64.0.2")
            for offset in range(count):
                with open(f"{folder}/{first + offset}", "w", encoding="ascii") as file:
                    file.write(f"{secrets.token_hex(32)}\r\neth0")
            with open(f"{folder}/last_reserved_ip.0", "w", encoding="ascii") as file:
                file.write(str(first + count - 1))
        ipam = {"type": "host-local", "subnet": LARGE_SUBNET, "dataDir": root}
        return {"type": "host-local", "ipam": ipam}

    def leftovers(self) -> list[str]:
        """Return what containers have left behind: links, rules that name one, addresses, leases, files."""
        left = [f"link {name}" for name in self.node.links() if name.startswith("veth")]
        listed = json.loads(self.node.run(["nft", "--json", "list", "ruleset"]).stdout)["nftables"]
        for entry in listed:
            text = json.dumps(entry)
            if "bench-" in text or "10.88." in text:
                left.append(f"rule {text}")
        for folder, _, files in os.walk(self.data):
            left += [f"file {folder}/{name}" for name in files if self._is_left(folder, name)]
        return left + [f"lease {address}" for address in dhcp.leased(self.node)]

    @staticmethod
    def _is_left(folder: str, name: str) -> bool:
        if folder.endswith("/flannel") or name.startswith("bench-"):
            return True
        if not name[0].isdigit() or os.path.islink(f"{folder}/{name}"):
            return False
        with open(f"{folder}/{name}", "rb") as file:
            return file.read().startswith(b"bench-")
