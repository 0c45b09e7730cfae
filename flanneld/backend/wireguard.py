"""wireguard: encrypted tunnels; a peer for each remote node, whose subnets are what it may send and be sent.

Device `flannel-wg` for IPv4 and `flannel-wg-v6` for IPv6, or in the modes other than `separate` the first for
both; one route for the cluster's network, for the peers' allowed networks say the rest. The private key is in
a file, and stays while that does.
"""

from __future__ import annotations

import logging
import os
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from cni_plugins.kernel import files, link, netlink, newlink
from flanneld import wireguard
from flanneld.backend import BackendError
from flanneld.backend.common import Complaints, read_options
from flanneld.lease import NO_DATA, LeaseAttrs, encode_data
from flanneld.netconf import FoldedModel
from flanneld.state import Address, Device, Peer, Route, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address

    from flanneld.lease import Lease
    from flanneld.netconf import NetworkConfig
    from flanneld.state import Thing
    from flanneld.uplink import Uplink

log = logging.getLogger(__name__)

NAMES = {4: "flannel-wg", 6: "flannel-wg-v6"}
KEY_FILE = "/run/flannel/wgkey"
_OVERHEAD = 80
"""Bytes of the outer IPv6 and UDP headers, and WireGuard's own; over IPv4 it would be 20 less."""
_PRIVATE: tuple[IPv4Network | IPv6Network, ...] = (
    *(IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    IPv6Network("fc00::/7"),
)
"""Addresses that are no use from elsewhere (RFC 1918, RFC 4193)."""


class WireguardOptions(FoldedModel):
    """Options of `Backend` with Type wireguard."""

    listen_port: int = Field(51820, ge=1, le=65535, description="UDP port of flannel-wg.")
    listen_port_v6: int = Field(51821, ge=1, le=65535, description="UDP port of flannel-wg-v6.")
    mtu: int = Field(0, ge=0, le=65535, description="MTU of the uplink, if not what its link says.")
    psk: str = Field("", description="A key of all nodes on top of each one's own, as `wg genpsk` makes it.")
    persistent_keepalive_interval: int = Field(
        0, ge=0, le=65535, description="Seconds between packets that keep the entry in a NAT; 0: none."
    )
    mode: Literal["separate", "auto", "ipv4", "ipv6"] = Field(
        "separate", description="A tunnel for each family, or one over the family named, or the better one."
    )

    @field_validator("psk")
    @classmethod
    def check_key(cls, psk: str) -> str:
        """Demand a key; errors must not show it."""
        try:
            return wireguard.text(wireguard.parse(psk)) if psk else ""
        except ValueError:
            raise ValueError("it is no key; `wg genpsk` makes one") from None


class Wireguard:
    """The backend (the protocol is Backend's)."""

    type: ClassVar[str] = "wireguard"

    def __init__(self, config: NetworkConfig) -> None:
        self._options = read_options(WireguardOptions, config)
        self._families = config.families
        self._networks = {family: config.cluster(family) for family in config.families}
        self._complaints = Complaints(log)
        self._private_key = self._public_key = ""

    async def start(self, uplink: Uplink, published: LeaseAttrs | None) -> LeaseAttrs:
        """Read or make the key, and publish what the kernel makes of it.

        The device is made for that, if there is none yet: it knows how to get from one key to the other.
        """
        del published
        try:
            self._private_key = _private_key(os.environ.get("WIREGUARD_KEY_FILE") or KEY_FILE)
            self._public_key = self._derive()
        except (OSError, ValueError) as error:
            why = "; ".join([str(error), *getattr(error, "__notes__", ())])
            raise BackendError(f"wireguard cannot be used: {why}") from None
        data = encode_data({"PublicKey": self._public_key})
        return LeaseAttrs(
            uplink.public_ip,
            uplink.public_ipv6,
            self.type,
            data if 4 in self._families else NO_DATA,
            data if 6 in self._families else NO_DATA,
        )

    def mtu(self, uplink: Uplink) -> int:
        """Return the uplink's, or what is configured, less the tunnel's headers."""
        return (self._options.mtu or uplink.mtu) - _OVERHEAD

    def desired(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> State:
        """Return the devices with the cluster's routes, and a peer or two for each node."""
        things: list[Thing] = []
        for family in self._families:
            subnet, network, device = own.network(family), self._networks[family], self._device(family)
            assert subnet is not None
            assert network is not None
            options = (("private-key", self._private_key), ("listen-port", self._port(device)))
            things += (
                Device(device, "wireguard", self.mtu(uplink), options=options),
                Address(device, ip_interface(subnet.network_address)),
                Route(network, device),
            )
        for lease in others:
            if lease.attrs.backend_type == self.type:
                try:
                    things += self._peers(uplink, lease)
                except ValueError as error:
                    self._complaints.about(lease, repr(error))
        return State(things)

    async def settle(self, uplink: Uplink, own: Lease, others: Iterable[Lease]) -> None:
        """Do nothing: the kernel does all."""

    async def close(self) -> None:
        """Do nothing: the devices stay."""

    @property
    def _separate(self) -> bool:
        return self._options.mode == "separate"

    def _device(self, family: int) -> str:
        return NAMES[family] if self._separate else NAMES[4]

    def _port(self, device: str) -> int:
        return self._options.listen_port_v6 if device == NAMES[6] else self._options.listen_port

    def _derive(self) -> str:
        device = self._device(self._families[0])
        with netlink.Netlink() as nl:
            there = link.find(nl, device)
            if there is not None and there.kind != "wireguard":
                link.delete(nl, device)
                there = None
            if there is None:
                newlink.create(nl, "wireguard", device, up=False)
        wireguard.configure(device, self._private_key, self._port(device))
        return wireguard.look(device).public_key

    def _peers(self, uplink: Uplink, lease: Lease) -> Iterator[Peer]:
        """Yield the peer of each device; one that is in no family of ours is none."""
        used = [family for family in self._families if lease.network(family)]
        if self._separate:
            for family in used:
                if (node := lease.attrs.public(family)) is not None:
                    yield self._peer(self._device(family), lease, node, [family])
        elif used and (node := self._endpoint(uplink, lease)) is not None:
            yield self._peer(self._device(4), lease, node, used)

    def _peer(self, device: str, lease: Lease, node: IPv4Address | IPv6Address, families: list[int]) -> Peer:
        key = wireguard.text(wireguard.parse(lease.attrs.text(families[-1], "PublicKey")))
        if key == self._public_key:
            raise ValueError("its key is ours: a copied machine? Delete the key file of one of them")
        return Peer(
            device,
            key,
            (node, self._port(device)),
            tuple(network for family in families if (network := lease.network(family))),
            self._options.persistent_keepalive_interval,
            self._options.psk,
        )

    def _endpoint(self, uplink: Uplink, lease: Lease) -> IPv4Address | IPv6Address | None:
        """Return the one address of a node's that the mode says.

        `auto` takes an IPv4 address that can be reached from anywhere, else an IPv6 one of that kind if we
        have such a one, too, else the IPv4 one.
        """
        ipv4, ipv6, mode = lease.attrs.public_ip, lease.attrs.public_ipv6, self._options.mode
        if mode != "auto":
            return ipv4 if mode == "ipv4" else ipv6
        if ipv4 is None or ipv6 is None:
            return ipv4 or ipv6
        if not _is_private(ipv4) and uplink.public_ip:
            return ipv4
        if not _is_private(ipv6) and uplink.public_ipv6 and not _is_private(uplink.public_ipv6):
            return ipv6
        return ipv4


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in _PRIVATE)


def _private_key(path: str) -> str:
    """Return the key in a file, which is made when it is not there; only root may read it."""
    content = files.read(path, follow=True)
    if content is not None:
        try:
            return wireguard.text(wireguard.parse(content.decode("ascii")))
        except ValueError:
            raise ValueError(f"{path} holds no private key; delete it, and a new one is made") from None
    key = wireguard.text(_new_key())
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    files.write_atomic(path, key.encode(), mode=0o400)
    return key


def _new_key() -> bytes:
    """Return a random private key, with the bits that every one has (RFC 7748, section 5)."""
    first, *middle, last = os.urandom(wireguard.KEY_SIZE)
    return bytes((first & 0xF8, *middle, last & 0x7F | 0x40))
