"""WireGuard's messages against pyroute2's, and what the backend wants for leases."""

from __future__ import annotations

import os
from base64 import b64encode
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from flanneld import wireguard
from flanneld.backend import BackendError
from flanneld.backend.wireguard import Wireguard
from flanneld.genl import HEADER_SIZE
from flanneld.lease import Lease, LeaseAttrs, encode_data
from flanneld.netconf import NetworkConfig
from flanneld.state import Device, Peer, Route
from flanneld.uplink import Uplink

KEYS = [b64encode(bytes([number]) * 32).decode() for number in range(1, 5)]
NETWORKS = (IPv4Network("10.244.2.0/24"), IPv6Network("fd00:244:0:2::/64"))
NOW = 1_700_000_000.0
HEADER = 16  # of netlink


def sent(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what is sent to write a peer, as pyroute2 decodes it."""
    bodies: list[bytes] = []
    monkeypatch.setattr(wireguard, "_set", lambda body, _doing: bodies.append(body))
    wireguard.put(peer)
    length = HEADER + HEADER_SIZE + len(bodies[0])
    message = wgmsg(length.to_bytes(4, "little") + bytes(HEADER) + bodies[0])
    message.decode()
    return message


@pytest.mark.parametrize("address", ["198.18.2.21", "2001:db8:2::21"])
def test_a_peer_as_it_is_sent(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = IPv6Address(address) if ":" in address else IPv4Address(address)
    message = sent(Peer("flannel-wg", KEYS[0], (node, 51820), NETWORKS, 25, KEYS[1]), monkeypatch)
    assert message.get_attr("WGDEVICE_A_IFNAME") == "flannel-wg"
    (peer,) = message.get_attr("WGDEVICE_A_PEERS")
    assert peer.get_attr("WGPEER_A_PUBLIC_KEY").decode() == KEYS[0]
    assert peer.get_attr("WGPEER_A_PRESHARED_KEY").decode() == KEYS[1]
    endpoint = peer.get_attr("WGPEER_A_ENDPOINT")
    assert (endpoint["addr"], endpoint["port"]) == (address, 51820)
    assert peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
    assert peer.get_attr("WGPEER_A_FLAGS") == 2  # replace what was allowed
    assert [each["addr"] for each in peer.get_attr("WGPEER_A_ALLOWEDIPS")] == [str(each) for each in NETWORKS]


def described(handshake: float, *, port: int = 51820, allowed: tuple[Any, ...] = NETWORKS) -> bytes:
    """Return what a kernel would say of a device with one peer, as pyroute2 encodes it."""
    message = wgmsg()
    parts = [
        {
            "attrs": [
                ["WGALLOWEDIP_A_FAMILY", 2 if network.version == 4 else 10],
                ["WGALLOWEDIP_A_IPADDR", network.network_address.packed],
                ["WGALLOWEDIP_A_CIDR_MASK", network.prefixlen],
            ]
        }
        for network in allowed
    ]
    peer = [
        ["WGPEER_A_PUBLIC_KEY", KEYS[0]],
        ["WGPEER_A_PRESHARED_KEY", b64encode(bytes(32))],
        ["WGPEER_A_ENDPOINT", {"addr": "198.18.2.21", "port": port}],
        ["WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": int(handshake), "tv_nsec": 0}],
        ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", 25],
        ["WGPEER_A_ALLOWEDIPS", parts],
    ]
    message["attrs"] = [
        ["WGDEVICE_A_LISTEN_PORT", 51820],
        ["WGDEVICE_A_PRIVATE_KEY", KEYS[2]],
        ["WGDEVICE_A_PUBLIC_KEY", KEYS[3]],
        ["WGDEVICE_A_PEERS", [{"attrs": peer}]],
    ]
    message.encode()
    return bytes(message.data)[HEADER:]


def wanted(port: int = 51820, keepalive: int = 25) -> Peer:
    return Peer("flannel-wg", KEYS[0], (IPv4Address("198.18.2.21"), port), NETWORKS, keepalive)


def test_a_device_as_it_is_read() -> None:
    found = wireguard.decode("flannel-wg", [described(0)], NOW)
    assert (found.private_key, found.public_key, found.port) == (KEYS[2], KEYS[3], 51820)
    assert found.peers == {KEYS[0]: wanted()}
    assert found.has(wanted())
    assert not found.has(wanted(keepalive=0))


def test_a_peer_in_two_messages_is_one() -> None:
    parts = [described(0, allowed=NETWORKS[1:]), described(0, allowed=NETWORKS[:1])]
    assert wireguard.decode("flannel-wg", parts, NOW).peers == {KEYS[0]: wanted()}


def test_a_peer_that_talks_may_be_elsewhere() -> None:
    for handshake, allowed in ((0, False), (NOW - 10, True), (NOW - 600, False)):
        found = wireguard.decode("flannel-wg", [described(handshake, port=4321)], NOW)
        assert found.has(wanted()) is allowed
        assert not found.has(wanted(keepalive=0))


def test_no_repr_shows_a_key() -> None:
    peer = Peer("d", KEYS[0], None, (), 0, KEYS[1])
    device = Device("d", "wireguard", 1420, options=(("private-key", KEYS[2]),))
    assert KEYS[1] not in repr(peer)
    assert KEYS[2] not in repr(device)


# The backend.

UPLINK = Uplink(
    2,
    "uplink",
    1500,
    *(IPv4Address("198.18.1.11"), IPv6Address("2001:db8:1::11")),
    *(IPv4Address("198.18.1.11"), IPv6Address("2001:db8:1::11")),
)


def backend(families: str = "46", **options: Any) -> Wireguard:
    config = {
        "Network": "10.244.0.0/16",
        "IPv6Network": "fd00:244::/48",
        "EnableIPv4": "4" in families,
        "EnableIPv6": "6" in families,
        "Backend": {"Type": "wireguard", **options},
    }
    made = Wireguard(NetworkConfig.model_validate(config))
    made._private_key, made._public_key = KEYS[2], KEYS[3]
    return made


def lease(number: int, public_ip: str = "198.18.2.21", public_ipv6: str = "2001:db8:2::21") -> Lease:
    data = encode_data({"PublicKey": KEYS[0] if number == 2 else KEYS[3]})
    return Lease(
        IPv4Network(f"10.244.{number}.0/24"),
        IPv6Network(f"fd00:244:0:{number}::/64"),
        LeaseAttrs(IPv4Address(public_ip), IPv6Address(public_ipv6), "wireguard", data, data),
    )


def peers(made: Wireguard, *others: Lease) -> list[Peer]:
    return [thing for thing in made.desired(UPLINK, lease(1), others) if isinstance(thing, Peer)]


def test_separate_tunnels() -> None:
    made = backend(PSK=KEYS[1], PersistentKeepaliveInterval=25, ListenPort=1111, ListenPortV6=2222)
    found = {peer.device: peer for peer in peers(made, lease(2))}
    assert found["flannel-wg"].endpoint == (IPv4Address("198.18.2.21"), 1111)
    assert found["flannel-wg-v6"].endpoint == (IPv6Address("2001:db8:2::21"), 2222)
    assert [found[name].allowed for name in sorted(found)] == [NETWORKS[:1], NETWORKS[1:]]
    assert {(peer.keepalive, peer.preshared_key) for peer in found.values()} == {(25, KEYS[1])}
    state = made.desired(UPLINK, lease(1), [])
    assert {thing.name: thing.mtu for thing in state if isinstance(thing, Device)} == {
        "flannel-wg": 1420,
        "flannel-wg-v6": 1420,
    }
    assert {(str(thing.destination), thing.device) for thing in state if isinstance(thing, Route)} == {
        ("10.244.0.0/16", "flannel-wg"),
        ("fd00:244::/48", "flannel-wg-v6"),
    }


@pytest.mark.parametrize(
    ("mode", "public_ip", "public_ipv6", "endpoint"),
    [
        ("ipv4", "198.18.2.21", "2001:db8:2::21", "198.18.2.21"),
        ("ipv6", "198.18.2.21", "2001:db8:2::21", "2001:db8:2::21"),
        ("auto", "198.18.2.21", "2001:db8:2::21", "198.18.2.21"),
        ("auto", "192.168.2.21", "2001:db8:2::21", "2001:db8:2::21"),
        ("auto", "192.168.2.21", "fd00::21", "192.168.2.21"),
    ],
)
def test_one_tunnel(mode: str, public_ip: str, public_ipv6: str, endpoint: str) -> None:
    (peer,) = peers(backend(Mode=mode), lease(2, public_ip, public_ipv6))
    assert peer.endpoint is not None
    assert (str(peer.endpoint[0]), peer.endpoint[1]) == (endpoint, 51820)
    assert (peer.device, peer.allowed) == ("flannel-wg", NETWORKS)


def test_leases_that_cannot_be_used_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    made = backend()
    for _ in range(2):
        assert not peers(made, lease(3))
    assert len(caplog.records) == 1
    assert "copied machine" in str(vars(caplog.records[0])["why"])


def test_options() -> None:
    assert backend(MTU=9000).mtu(UPLINK) == 8920
    for options, said in (
        ({"Mode": "sideways"}, "mode: Input should be 'separate'"),
        ({"PSK": "hunter2"}, "psk: it is no key; `wg genpsk` makes one"),
        ({"ListenPort": 70000}, "listenport: "),
    ):
        with pytest.raises(BackendError, match=said) as raised:
            backend(**options)
        assert "hunter2" not in str(raised.value)


def test_keys() -> None:
    key = os.urandom(32)
    assert wireguard.parse(wireguard.text(key) + "\n") == key
    for wrong, said in (("", "32 bytes"), ("%%%%", "base64"), (b64encode(bytes(31)).decode(), "32 bytes")):
        with pytest.raises(ValueError, match=said):
            wireguard.parse(wrong)
