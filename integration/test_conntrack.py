"""Forgetting UDP flows, against entries that conntrack(8) makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_plugins.address import parse_address
from cni_plugins.kernel import conntrack
from cni_plugins.kernel.nfnetlink import Netfilter

if TYPE_CHECKING:
    from integration.node import Node

FLOWS = (
    (
        "-p udp -s 192.0.2.1 -d 192.0.2.9 --sport 9 --dport 53 -r 10.1.1.2 -q 192.0.2.1"
        " --reply-port-src 5353 --reply-port-dst 9"
    ),
    (
        "-p udp -s 192.0.2.2 -d 192.0.2.9 --sport 9 --dport 53 -r 10.1.1.3 -q 192.0.2.2"
        " --reply-port-src 5353 --reply-port-dst 9"
    ),
    "-p udp -s 192.0.2.2 -d 192.0.2.9 --sport 9 --dport 54",
    "-p tcp -s 192.0.2.2 -d 192.0.2.9 --sport 9 --dport 53 --state ESTABLISHED",
    "-p udp -s 2001:db8::1 -d 2001:db8::9 --sport 9 --dport 53",
)


@pytest.fixture
def table(node: Node) -> Node:
    for flow in FLOWS:
        node.run(["conntrack", "-I", *flow.split(), "-t", "600"])
    return node


@pytest.mark.parametrize(
    ("family", "targets", "to", "count"),
    [
        (4, [(53, None)], None, 2),
        (4, [(53, "192.0.2.9")], None, 2),
        (4, [(53, "192.0.2.8")], None, 0),
        (4, [(53, None)], "10.1.1.2", 1),
        (4, [(53, None), (54, None)], None, 3),
        (4, [(55, None)], None, 0),
        (6, [(53, None)], None, 1),
        (6, [(53, "2001:db8::8")], None, 0),
    ],
)
def test_forget(
    table: Node, family: int, targets: list[tuple[int, str | None]], to: str | None, count: int
) -> None:
    flows = conntrack.Flows(
        family,
        [(port, parse_address(host) if host else None) for port, host in targets],
        parse_address(to) if to else None,
    )
    with table.entered(), Netfilter() as netlink:
        assert conntrack.forget(netlink, flows) == count
        assert conntrack.forget(netlink, flows) == 0
    left = table.run(["conntrack", "-L"]).stdout
    assert left.count(b"src=") == 2 * (len(FLOWS) - count)
