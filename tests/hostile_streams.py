"""Hostile streams: what comes from a DHCP server, a daemon, a delegate, the message bus or a file, spoilt.

A decoder returns, or raises what it says it raises.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cni_plugins.kernel.dbus import Bus
from cni_plugins.plugins.flannel import SubnetEnv
from cni_plugins.rules import firewall, portmap_note, sysctls
from cni_plugins.spec.codec import decode, encode, encode_pretty
from cni_plugins.spec.errors import CNIError
from cni_plugins.spec.result import Result
from flanneld.netconf import NetworkConfig
from ipam.dhcp import gob, rpc
from ipam.dhcp.daemon import packet, store
from ipam.dhcp.daemon.bound import Bound
from tests import hostile
from tests.hostile_bytes import spoilt

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

ENV = b"FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
RESULT: dict[str, Any] = hostile.valid("portmap", "DEL", "/nowhere", "1.1.0")["prevResult"]
OLD = {
    "cniVersion": "0.2.0",
    "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0"}]},
}
ACK = packet.Message(
    packet.BOOT_REPLY,
    7,
    bytes((2, 0, 0, 0, 0, 1)),
    yiaddr=bytes((10, 1, 2, 3)),
    options={
        1: b"\xff\xff\xff\0",
        3: bytes((10, 1, 2, 1)),
        6: bytes((10, 1, 2, 1)) * 2,
        15: b"example.org",
        33: bytes((10, 9, 0, 0, 10, 1, 2, 1)),
        51: (3600).to_bytes(4, "big"),
        53: b"\5",
        54: bytes((10, 1, 2, 1)),
        58: (1800).to_bytes(4, "big"),
        59: (3000).to_bytes(4, "big"),
        119: b"\3www\7example\3org\0\4mail\xc0\4",
        121: bytes((0, 10, 1, 2, 1, 24, 10, 9, 1, 10, 1, 2, 1)),
    },
)
RECORD = store.Record("c1", "net", "eth0", "/no", "4:4", "020000000001", {"12": "6331"}, False, 0, boot="b")
LEASE = {**{name: getattr(RECORD, name) for name in RECORD.__slots__}, "message": ACK.encode().hex()}
_BUS_ANSWER = (
    b"l\2\1\1\4\0\0\0\1\0\0\0\x0f\0\0\0\5\1u\0\1\0\0\0\x08\1g\0\1b\0\0\1\0\0\0"
    b"l\3\1\1\x09\0\0\0\2\0\0\0\x26\0\0\0\4\1s\0\7\0\0\0org.x.E\0\0\0\0\0\5\1u\0\1\0\0\0\x08\1g\0\1s\0\0"
    b"\4\0\0\0text\0"
)


def _gob_call() -> bytes:
    known: set[int] = set()
    answer = gob.encode(rpc.RESPONSE, {"ServiceMethod": rpc.ALLOCATE, "Seq": 0}, known)
    return answer + gob.encode(rpc.RESULT, rpc.to_wire(Result.from_json(RESULT, "1.0.0", "")), known)


def read_json(data: bytes) -> None:
    """Decode JSON, validate it as a result, and encode it again."""
    value = decode(data, "text")
    again = decode(encode_pretty(value), "text")
    assert again == value
    assert decode(encode(value), "text") == value
    result = Result.from_json(value, "1.0.0", "the result")
    for version in ("0.2.0", "0.4.0", "1.1.0"):
        result.to_json(version)


def read_gob(data: bytes) -> None:
    """Read a daemon's answers as they come, and what they say as a result."""
    decoder = gob.Decoder()
    for at in range(0, len(data), 50):
        decoder.feed(data[at : at + 50])
        while (value := decoder.next()) is not None:
            if isinstance(value, dict):
                encode_pretty(rpc.from_wire(value).to_json("1.1.0"))


def read_dhcp(data: bytes) -> None:
    """Read a server's answer, and what follows from it."""
    message = packet.Message.decode(data)
    message.encode()
    bound = Bound.of(message, b"", 0.0)
    assert 0 < bound.renewal <= bound.rebinding <= bound.expiry or math.isinf(bound.expiry)
    encode_pretty(bound.result().to_json("1.1.0"))


class _Stream:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, _size: int) -> bytes:
        part, self._data = self._data[:100], self._data[100:]
        return part

    def send(self, data: memoryview) -> int:
        return len(data)


def read_bus(data: bytes) -> None:
    """Call a method twice."""
    bus = Bus.__new__(Bus)
    bus._buffer, bus._serial = b"", 0
    bus._socket = _Stream(data)  # type: ignore[assignment]
    for _call in range(2):
        bus.call("service", "/path", "interface", "member")


def read_lines(data: bytes) -> None:
    """Read what are lines of text: notes, and an allow-list."""
    lines = data.decode("utf-8", "replace").splitlines()
    for note in (firewall.Note.parse(lines), portmap_note.Note.parse(lines)):
        if note is not None:
            assert all(type(line) is str for line in note.lines())
    sysctls.permit(["net.ipv4.ip_forward"], sysctls.expressions(data))


def read_lease(data: bytes) -> None:
    """Read a daemon's own record."""
    store._parse(data).bound()


PACKET = packet.wrap(ACK.encode(), bytes(4), bytes(4))
NOTE = b"backend nftables\nzone trusted\naddress 10.1.2.3\nudp 53 any\nrule 4 hostports 7\n"
V6 = b"FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::/64\n"
NET_CONF = {
    "Network": "10.1.0.0/16",
    "SubnetLen": 24,
    "EnableIPv6": True,
    "IPv6Network": "fd00::/48",
    "Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472, "DirectRouting": True},
}
STREAMS: dict[str, tuple[Callable[[bytes], object], list[bytes], tuple[type[Exception], ...]]] = {
    "json": (
        read_json,
        [encode(RESULT), encode_pretty(OLD), b'[1,-2e3,null,"\\u00fc"]'],
        (CNIError,),
    ),
    "gob": (read_gob, [_gob_call()], (ValueError,)),
    "dhcp": (read_dhcp, [ACK.encode()], (ValueError,)),
    "packet": (packet.unwrap, [PACKET[:22] + b"\0D" + PACKET[24:]], (ValueError,)),
    "bus": (read_bus, [_BUS_ANSWER], (OSError,)),
    "subnet.env": (lambda data: SubnetEnv(data.decode()), [ENV, ENV + V6], (ValueError,)),
    "lines": (read_lines, [NOTE, b"^net\\.(ipv4|core)\\.[a-z_]+$\n"], (CNIError,)),
    "lease": (read_lease, [encode(LEASE)], (ValueError, TypeError)),
    "net-conf.json": (NetworkConfig.parse, [encode(NET_CONF)], (ValueError,)),
}
"""By name: what reads it, valid ones, and what may be raised."""


class Streams:
    """Makes and tries cases."""

    def __init__(self) -> None:
        self._names = sorted(STREAMS)

    def __call__(self, chance: random.Random) -> str:
        """Try a case; return which kind of answer came."""
        name = chance.choice(self._names)
        _read, valid, _errors = STREAMS[name]
        data = chance.choice(valid)
        if name in ("json", "lease") and chance.random() < 0.5:
            data = encode(hostile.changed(chance, decode(data, "")))
        return read(name, spoilt(chance, data, valid))


def read(name: str, data: bytes) -> str:
    """Let one of STREAMS read; return whether it could."""
    reader, _valid, errors = STREAMS[name]
    try:
        reader(data)
    except errors:
        return "refused"
    return "read"
