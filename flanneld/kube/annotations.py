"""A node's annotations, as Go's flanneld writes and reads them; the subnet is the node's podCIDR."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

from flanneld.lease import NO_DATA, Lease, LeaseAttrs, decode_data, encode_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flanneld.lease import Key

_DATA_NEEDED = ("vxlan", "wireguard")
"""Backends whose `null` means that they do not use the family."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations' names: a prefix such as `flannel.alpha.coreos.com/` and the words here."""

    prefix: str

    def encode(self, attrs: LeaseAttrs) -> dict[str, str]:
        """Return the annotations that publish a lease."""
        found = {"backend-type": attrs.backend_type, "kube-subnet-manager": "true"}
        for data, data_name, public, public_name in (
            (attrs.backend_data, "backend-data", attrs.public_ip, "public-ip"),
            (attrs.backend_v6_data, "backend-v6-data", attrs.public_ipv6, "public-ipv6"),
        ):
            if public is not None and (data != NO_DATA or attrs.backend_type not in _DATA_NEEDED):
                found |= {data_name: data, public_name: str(public)}
        return {self.prefix + name: value for name, value in found.items()}

    def decode(self, annotations: Mapping[str, str]) -> LeaseAttrs | None:
        """Return what a node publishes; None when it publishes nothing.

        Raises:
            ValueError: an address or JSON text cannot be read.
        """
        if annotations.get(self.prefix + "kube-subnet-manager") != "true":
            return None
        public_ip = annotations.get(self.prefix + "public-ip")
        public_ipv6 = annotations.get(self.prefix + "public-ipv6")
        return LeaseAttrs(
            IPv4Address(public_ip) if public_ip else None,
            IPv6Address(public_ipv6) if public_ipv6 else None,
            annotations.get(self.prefix + "backend-type", ""),
            self._data(annotations, "backend-data"),
            self._data(annotations, "backend-v6-data"),
        )

    def overwrite(self, annotations: Mapping[str, str], attrs: LeaseAttrs) -> LeaseAttrs:
        """Return what to publish where an administrator noted other public addresses.

        Raises:
            ValueError: what was noted is no address.
        """
        public_ip = annotations.get(self.prefix + "public-ip-overwrite")
        public_ipv6 = annotations.get(self.prefix + "public-ipv6-overwrite")
        if public_ip:
            attrs = replace(attrs, public_ip=IPv4Address(public_ip))
        if public_ipv6:
            attrs = replace(attrs, public_ipv6=IPv6Address(public_ipv6))
        return attrs

    def node_public(self, annotations: Mapping[str, str]) -> tuple[str, str]:
        """Return the public addresses noted for the node, by which its uplink is chosen, too."""
        return (
            annotations.get(self.prefix + "node-public-ip", ""),
            annotations.get(self.prefix + "node-public-ipv6", ""),
        )

    def lease(
        self, annotations: Mapping[str, str], pod_cidrs: Sequence[str], families: Sequence[int]
    ) -> Lease | None:
        """Return the lease that a node holds; None when it holds none that can be used.

        Raises:
            ValueError: something in it cannot be read, or is missing for a family in use.
        """
        attrs = self.decode(annotations)
        if attrs is None:
            return None
        subnets = parse_cidrs(pod_cidrs)
        for family, subnet in zip((4, 6), subnets, strict=True):
            if family in families and (subnet is None or attrs.public(family) is None):
                raise ValueError(f"it has no IPv{family} {'podCIDR' if subnet is None else 'public address'}")
        subnet, ipv6_subnet = subnets
        return Lease(subnet if 4 in families else None, ipv6_subnet if 6 in families else None, attrs)

    def _data(self, annotations: Mapping[str, str], name: str) -> str:
        return encode_data(decode_data(annotations.get(self.prefix + name) or NO_DATA))


def parse_cidrs(pod_cidrs: Sequence[str]) -> Key:
    """Return a node's subnets, one of each family at most.

    Raises:
        ValueError: they are more, or cannot be read.
    """
    found: dict[int, IPv4Network | IPv6Network] = {}
    for text in pod_cidrs:
        network = ip_network(text, strict=False)
        if found.setdefault(network.version, network) is not network:
            raise ValueError(f"it has two IPv{network.version} podCIDRs")
    subnet, ipv6_subnet = found.get(4), found.get(6)
    assert not isinstance(subnet, IPv6Network)
    assert not isinstance(ipv6_subnet, IPv4Network)
    return subnet, ipv6_subnet
