"""WireGuard devices and their peers, over generic netlink (linux/wireguard.h)."""

from __future__ import annotations

import time
from _struct import Struct
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from cni_plugins.kernel.nlattr import (
    attr,
    attr_str,
    attr_u8,
    attr_u16,
    attr_u32,
    attribute_map,
    attributes,
    nested,
    uint,
)
from flanneld.genl import HEADER_SIZE, Family
from flanneld.state import Peer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

KEY_SIZE = 32
"""Bytes of every key (Curve25519)."""
_NAME = "wireguard"
_GET_DEVICE = 0
_SET_DEVICE = 1
_DEVICE_NAME = 2
_DEVICE_PRIVATE_KEY = 3
_DEVICE_PUBLIC_KEY = 4
_DEVICE_LISTEN_PORT = 6
_DEVICE_PEERS = 8
_PEER_PUBLIC_KEY = 1
_PEER_PRESHARED_KEY = 2
_PEER_FLAGS = 3
_PEER_ENDPOINT = 4
_PEER_KEEPALIVE = 5
_PEER_LAST_HANDSHAKE = 6
_PEER_ALLOWED = 9
_TELLING = (_PEER_PUBLIC_KEY, _PEER_PRESHARED_KEY, _PEER_ENDPOINT, _PEER_KEEPALIVE, _PEER_ALLOWED)
_REMOVE_ME = 1
_REPLACE_ALLOWED = 2
_ALLOWED_FAMILY = 1
_ALLOWED_ADDRESS = 2
_ALLOWED_LENGTH = 3
_SESSION = 180
"""Seconds after a handshake when its session ends, and nothing more is heard by it (REJECT_AFTER_TIME)."""

_NO_KEY = bytes(KEY_SIZE)
_SOCKADDR_IN = Struct("=H2s4s8x")
_SOCKADDR_IN6 = Struct("=H2s4x16s4x")
_TIME = Struct("=qq")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Found:
    """A device as the kernel has it.

    Attributes:
        private_key: in base64; empty before it is set.
        public_key: what the kernel made of it.
        port: where it listens.
        peers: by their public keys.
        talking: the public keys of those that have a session: an endpoint of theirs that is not the wanted
            one is where they were heard from, behind a NAT, and better than ours.
    """

    private_key: str
    public_key: str
    port: int
    peers: dict[str, Peer]
    talking: frozenset[str]

    def has(self, wanted: Peer) -> bool:
        """Tell whether a peer is there as it is wanted; where it has moved to is its own choice."""
        found = self.peers.get(wanted.public_key)
        if found is None or found == wanted:
            return found is not None
        return wanted.public_key in self.talking and _settled(found) == _settled(wanted)


def _settled(peer: Peer) -> object:
    return peer.allowed, peer.keepalive, peer.preshared_key


def text(key: bytes) -> str:
    """Return a key as wg(8) shows it."""
    return b64encode(key).decode()


def parse(key: str) -> bytes:
    """Return a key's bytes.

    Raises:
        ValueError: it is none.
    """
    found = b64decode(key.strip(), validate=True)
    if len(found) != KEY_SIZE:
        raise ValueError(f"a key has {KEY_SIZE} bytes, and not {len(found)}")
    return found


def look(device: str) -> Found:
    """Return a device.

    Raises:
        OSError: ENODEV: there is none; ENOENT: the kernel has no WireGuard.
    """
    with Family(_NAME) as family:
        replies = family.dump(_GET_DEVICE, attr_str(_DEVICE_NAME, device))
    return decode(device, (reply.body for reply in replies), time.time())


def decode(device: str, messages: Iterable[bytes], now: float) -> Found:
    """Return the device that messages describe: with many peers they are several.

    Args:
        device: its name.
        messages: what follows their netlink headers.
        now: Unix time in seconds.
    """
    keys: dict[int, bytes] = {}
    peers: dict[str, Peer] = {}
    talking = set()
    for message in messages:
        for kind, payload in attributes(message, HEADER_SIZE):
            if kind != _DEVICE_PEERS:
                keys[kind] = payload
                continue
            for _index, data in attributes(payload):
                given = attribute_map(data)
                peer = _peer(device, *(given.get(number, b"") for number in _TELLING))
                # With more allowed networks than fit into a message, it comes again with the rest.
                first = peers.get(peer.public_key)
                peers[peer.public_key] = _joined(first, peer) if first else peer
                handshake = _TIME.unpack(given.get(_PEER_LAST_HANDSHAKE, bytes(_TIME.size)))[0]
                if now - handshake < _SESSION:
                    talking.add(peer.public_key)
    private = keys.get(_DEVICE_PRIVATE_KEY, _NO_KEY)
    return Found(
        text(private) if private != _NO_KEY else "",
        text(keys.get(_DEVICE_PUBLIC_KEY, _NO_KEY)),
        uint(keys.get(_DEVICE_LISTEN_PORT, b"")),
        peers,
        frozenset(talking),
    )


def configure(device: str, private_key: str, port: int) -> None:
    """Give a device its key and port; its peers stay.

    Raises:
        OSError: EADDRINUSE: the port is taken.
    """
    body = attr_str(_DEVICE_NAME, device) + attr(_DEVICE_PRIVATE_KEY, parse(private_key))
    _set(body + attr_u16(_DEVICE_LISTEN_PORT, port), f"failed to configure {device}")


def put(peer: Peer) -> None:
    """Write a peer, over what is there with its key.

    Raises:
        OSError: ENODEV: there is no such device.
    """
    _set(
        encode(
            peer.device,
            attr(_PEER_PUBLIC_KEY, parse(peer.public_key)),
            attr(_PEER_PRESHARED_KEY, parse(peer.preshared_key) if peer.preshared_key else _NO_KEY),
            attr_u32(_PEER_FLAGS, _REPLACE_ALLOWED),
            attr(_PEER_ENDPOINT, _sockaddr(*peer.endpoint)) if peer.endpoint else b"",
            attr_u16(_PEER_KEEPALIVE, peer.keepalive),
            nested(_PEER_ALLOWED, *(_allowed(network) for network in peer.allowed)),
        ),
        f"failed to write peer {peer.public_key} of {peer.device}",
    )


def remove(device: str, public_key: str) -> None:
    """Remove a peer; one that is gone already is no error."""
    body = encode(device, attr(_PEER_PUBLIC_KEY, parse(public_key)), attr_u32(_PEER_FLAGS, _REMOVE_ME))
    _set(body, f"failed to remove peer {public_key} of {device}")


def encode(device: str, *peer: bytes) -> bytes:
    """Return the attributes of a request about one peer."""
    return attr_str(_DEVICE_NAME, device) + nested(_DEVICE_PEERS, nested(0, *peer))


def _set(body: bytes, doing: str) -> None:
    try:
        with Family(_NAME) as family:
            family.request(_SET_DEVICE, body)
    except OSError as error:
        error.add_note(doing)
        raise


@lru_cache(maxsize=8192)
def _peer(
    device: str, public_key: bytes, preshared: bytes, endpoint: bytes, keepalive: bytes, allowed: bytes
) -> Peer:
    """Return the peer that these attributes describe; a thousand of them are looked at again and again."""
    return Peer(
        device,
        text(public_key),
        _endpoint(endpoint),
        _sorted([_network(part) for _index, part in attributes(allowed)]),
        uint(keepalive),
        text(preshared) if preshared.strip(b"\0") else "",
    )


def _joined(first: Peer, rest: Peer) -> Peer:
    return replace(first, allowed=_sorted([*first.allowed, *rest.allowed]))


def _sorted(networks: list[Network]) -> tuple[Network, ...]:
    """Return networks in the order in which peers have them: IPv4 first."""
    return tuple(sorted(networks, key=lambda each: (each.version, int(each.network_address), each.prefixlen)))


def _sockaddr(address: IPv4Address | IPv6Address, port: int) -> bytes:
    number = port.to_bytes(2, "big")
    if address.version == 4:
        return _SOCKADDR_IN.pack(AF_INET, number, address.packed)
    return _SOCKADDR_IN6.pack(AF_INET6, number, address.packed)


def _endpoint(data: bytes) -> tuple[IPv4Address | IPv6Address, int] | None:
    if not data:
        return None
    layout = _SOCKADDR_IN if uint(data[:2]) == AF_INET else _SOCKADDR_IN6
    _family, port, address = layout.unpack(data)
    return ip_address(address), int.from_bytes(port, "big")


def _allowed(network: Network) -> bytes:
    return nested(
        0,
        attr_u16(_ALLOWED_FAMILY, AF_INET if network.version == 4 else AF_INET6),
        attr(_ALLOWED_ADDRESS, network.network_address.packed),
        attr_u8(_ALLOWED_LENGTH, network.prefixlen),
    )


def _network(data: bytes) -> Network:
    given = attribute_map(data)
    packed, length = given[_ALLOWED_ADDRESS], uint(given[_ALLOWED_LENGTH])
    number = int.from_bytes(packed, "big")
    return IPv4Network((number, length)) if len(packed) == 4 else IPv6Network((number, length))
