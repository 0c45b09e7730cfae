"""Fixtures for tests on a real kernel, and the checks of what the machine has.

`SUITE_BIN=dist/cni pytest integration` tests a bundle instead of the source tree. `NO_SKIP=1` makes a test
fail where it would be skipped because something is missing.
"""

from __future__ import annotations

import functools
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from integration import suite
from integration.node import PEER, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@functools.cache
def _filters_vlans() -> bool:
    with Node() as node:
        command = ["ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"]
        return node.run(command, check=False).returncode == 0


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "peer": (lambda: os.access(f"{PEER}/bridge", os.X_OK), f"needs the Go reference plugins in {PEER}"),
    "runtime": (
        lambda: bool(shutil.which("containerd") and shutil.which("runc")),
        "needs containerd and runc",
    ),
    "vlan": (_filters_vlans, "needs bridge VLAN filtering in the kernel (CONFIG_BRIDGE_VLAN_FILTERING)"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder makes namespaces, and so needs root."""
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the machine cannot run; fail it under NO_SKIP."""
    for name, (probe, reason) in NEEDS.items():
        if item.get_closest_marker(name) and not probe():
            if os.environ.get("NO_SKIP"):
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@pytest.fixture(scope="session")
def suite_bin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of our plugins: a bundle that SUITE_BIN names, or the source tree."""
    given = os.environ.get("SUITE_BIN")
    return os.path.abspath(given) if given else suite.make(str(tmp_path_factory.mktemp("suite")))


@pytest.fixture
def node(suite_bin: str) -> Iterator[Node]:
    """A machine of the test's own, with our plugins."""
    with Node(suite_bin) as made:
        yield made


@pytest.fixture
def peer_node() -> Iterator[Node]:
    """A machine of the test's own, with the Go reference plugins; for tests marked `peer`."""
    with Node(PEER) as made:
        yield made
