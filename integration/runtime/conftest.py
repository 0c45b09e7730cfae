"""Fixtures for the tests with containerd: the plugins under test, and a machine with an outside."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from integration.node import PEER, Node
from integration.runtime import images
from integration.runtime.containerd import PATH
from integration.runtime.observed import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {"containerd": "containerd", "runc": "runc", images.BUSYBOX: "busybox-static"}
"""What Debian calls the packages of the programs."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail, not skip, without the real runtime: its tests are what shows that the suite does its job."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)]
    if missing and item.get_closest_marker("runtime"):
        pytest.fail(f"install {', '.join(missing)}", pytrace=False)


@pytest.fixture(params=["ours", pytest.param("peer", marks=pytest.mark.peer)])
def machine(request: pytest.FixtureRequest, suite_bin: str) -> Iterator[Node]:
    """A node with our plugins, and the same with the Go plugins for control."""
    with Node(suite_bin if request.param == "ours" else PEER) as node:
        _connect_outside(node)
        yield node


@pytest.fixture
def our_machine(suite_bin: str) -> Iterator[Node]:
    """A node with our plugins, for what Debian's package of the Go plugins does not have."""
    with Node(suite_bin) as node:
        _connect_outside(node)
        yield node


def _connect_outside(node: Node) -> None:
    """Put a host beside the node, on a link of its own, that knows nothing of the pods' network."""
    node.netns(OUTSIDE.netns)
    link = f"type veth peer name eth0 netns {OUTSIDE.netns}"
    node.run(["ip", "link", "add", "uplink", *link.split()])
    for netns, device, addresses in (
        ("", "uplink", OUTSIDE.node_addresses),
        (OUTSIDE.netns, "eth0", OUTSIDE.addresses),
    ):
        for address in addresses:
            node.run(["ip", "address", "add", address, "dev", device, *OUTSIDE.flags(address)], netns=netns)
        node.run(["ip", "link", "set", device, "up"], netns=netns)
        node.run(["ip", "link", "set", "lo", "up"], netns=netns)
