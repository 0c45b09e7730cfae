"""What tells DHCP clients from each other (RFC 2132, section 9.14)."""

from __future__ import annotations

from itertools import product

from ipam.dhcp.daemon.service import client_id

LONGEST = 254
"""Bytes that an option has for it besides its type."""


def test_the_references() -> None:
    assert client_id("c1", "net", "eth0") == b"c1/net/eth0"
    longest = "c" * (LONGEST - len("/net/eth0"))
    assert client_id(longest, "net", "eth0") == f"{longest}/net/eth0".encode()


def test_long_ones_differ() -> None:
    """The reference cuts them, and two clients get one address."""
    containers = ["c" * 249 + "1", "c" * 249 + "2", "c" * 300 + "1", "c" * 300 + "2"]
    made = {client_id(*names) for names in product(containers, ("net", "other"), ("eth0", "eth1"))}
    assert len(made) == 16
    assert max(map(len, made)) <= LONGEST
