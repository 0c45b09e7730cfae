"""subnet.env: what the flannel plugin reads to know this node's subnet. Byte for byte Go's flanneld's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import TYPE_CHECKING

from cni_plugins.kernel import files

if TYPE_CHECKING:
    from flanneld.lease import Key, Lease
    from flanneld.netconf import NetworkConfig


@dataclass(frozen=True, slots=True)
class SubnetFile:
    """What the last run wrote.

    Attributes:
        networks: the cluster's networks then, IPv4 first.
        subnet: this node's IPv4 subnet then.
        ipv6_subnet: and its IPv6 subnet.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    subnet: IPv4Network | None = None
    ipv6_subnet: IPv6Network | None = None

    @property
    def key(self) -> Key:
        """The subnets to ask for again."""
        return self.subnet, self.ipv6_subnet

    @classmethod
    def read(cls, path: str) -> SubnetFile:
        """Read the file; one that is missing or damaged says nothing.

        Raises:
            OSError: it is there and cannot be read.
        """
        data = files.read(path, follow=True)
        lines = (data or b"").decode(errors="replace").splitlines()
        values = dict(line.strip().partition("=")[::2] for line in lines)
        networks: list[IPv4Network | IPv6Network] = []
        subnet, ipv6_subnet = None, None
        try:
            for key in ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"):
                networks += [
                    ip_interface(text.strip()).network for text in values.get(key, "").split(",") if text
                ]
            if values.get("FLANNEL_SUBNET"):
                subnet = IPv4Network(values["FLANNEL_SUBNET"], strict=False)
            if values.get("FLANNEL_IPV6_SUBNET"):
                ipv6_subnet = IPv6Network(values["FLANNEL_IPV6_SUBNET"], strict=False)
        except ValueError:
            return cls()
        return cls(tuple(networks), subnet, ipv6_subnet)


def compose(config: NetworkConfig, lease: Lease, mtu: int, *, masquerade: bool) -> bytes:
    """Return the file's content; a subnet is written as its first address, with its length."""
    lines = []
    for family, infix in ((4, ""), (6, "IPV6_")):
        network, subnet = config.cluster(family), lease.network(family)
        if network is not None and subnet is not None:
            lines += [
                f"FLANNEL_{infix}NETWORK={network}",
                f"FLANNEL_{infix}SUBNET={subnet.network_address + 1}/{subnet.prefixlen}",
            ]
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={'true' if masquerade else 'false'}"]
    return "\n".join([*lines, ""]).encode()


def write(path: str, content: bytes) -> bool:
    """Put the file in place by a rename; leave one that is right alone.

    Returns:
        Whether it had to be written.

    Raises:
        OSError: it cannot be written.
    """
    if files.read(path, follow=True) == content:
        return False
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    files.write_atomic(path, content, mode=0o644)
    return True
