"""The proxy's own work on packets: looking up, counting down, refusing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from flanneld.proxy import Table, _checksum, decrement_ttl, unreachable


def packet(ttl: int = 64, protocol: int = 17, fragment: int = 0, options: bytes = b"") -> bytearray:
    """Return a packet of 20 bytes of payload with a right checksum."""
    header = bytearray(bytes(20) + options)
    header[0] = 0x40 | len(header) // 4
    header[6:8] = fragment.to_bytes(2, "big")
    header[8:10] = ttl, protocol
    header[12:16], header[16:20] = IPv4Address("10.244.1.5").packed, IPv4Address("10.244.9.9").packed
    header[10:12] = _checksum(bytes(header)).to_bytes(2, "big")
    return header + bytes(range(20))


def test_the_longest_prefix_decides() -> None:
    nodes = {"10.244.0.0/16": "a", "10.244.2.0/24": "b", "10.244.3.0/24": "c"}
    table = Table({IPv4Network(subnet): (name, 8285) for subnet, name in nodes.items()})
    found = [
        table.find(int(IPv4Address(ip))) for ip in ("10.244.2.9", "10.244.3.1", "10.244.9.1", "10.1.0.1")
    ]
    assert [node and node[0] for node in found] == ["b", "c", "a", None]


@pytest.mark.parametrize("options", [b"", b"\1\1\1\0"])
def test_time_to_live_and_checksum(options: bytes) -> None:
    given = packet(ttl=255, options=options)
    for left in range(254, 0, -1):
        assert decrement_ttl(given)
        assert given[8] == left
        assert _checksum(bytes(given[: 20 + len(options)])) == 0
    assert not decrement_ttl(given)


def test_the_answer_to_what_is_for_nobody() -> None:
    given = bytes(packet(options=b"\1\1\1\0"))
    answer = unreachable(given)
    assert (answer[0], answer[8], answer[9], int.from_bytes(answer[2:4], "big")) == (0x45, 8, 1, len(answer))
    assert (answer[12:16], answer[16:20]) == (given[16:20], given[12:16])
    assert answer[20:22] == b"\3\0"
    assert answer[28:] == given[: 24 + 8]
    assert _checksum(answer[:20]) == _checksum(answer[20:]) == 0


def test_what_gets_no_answer() -> None:
    assert not unreachable(bytes(packet(protocol=1)))
    assert not unreachable(bytes(packet(fragment=0x2003)))
    assert unreachable(bytes(packet(fragment=0x2000)))
    broken = packet()
    broken[0] = 0x4F
    assert not unreachable(bytes(broken))
