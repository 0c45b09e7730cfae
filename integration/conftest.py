"""Fixtures for tests on a real kernel.

`SUITE_BIN=dist/cni pytest integration` tests a bundle instead of the source tree. `NO_SKIP=1` makes a test
fail where it would be skipped because something is missing (integration/needs.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration import needs, portmaps, suite
from integration.checks import bridge, pods
from integration.etcd import CONFIG, NETWORK, Etcd
from integration.node import PEER, Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder: they make namespaces, and so need root; some folders need more."""
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(f"{here}/"):
            item.add_marker("root")
            folder = os.path.relpath(item.path, here).partition("/")[0]
            if folder in ("kube", "image"):
                item.add_marker(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the machine cannot run."""
    needs.demand(item)


@pytest.fixture(scope="session", autouse=True)
def _umask() -> Iterator[None]:
    """The modes of files are tested: those of whoever runs the tests do not matter."""
    before = os.umask(0o022)
    yield
    os.umask(before)


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


@pytest.fixture
def net(node: Node) -> Node:
    """That machine with a bridge for pods and a link to an outside host, both made by hand."""
    return portmaps.build_network(node)


@pytest.fixture
def pod(node: Node) -> Any:
    """The result of a container's attachment to a bridge, on that machine."""
    return pods(node, bridge(), "c1")[0]


@pytest.fixture(scope="module")
def etcd_server() -> Iterator[Etcd]:
    """An etcd for the tests of a file."""
    with Node() as node, Etcd(node) as etcd:
        yield etcd


@pytest.fixture
def etcd(etcd_server: Etcd) -> Etcd:
    """The file's etcd, with a network's configuration and nothing else."""
    etcd_server.ctl("del", "--prefix", "/")
    etcd_server.put(CONFIG, NETWORK)
    return etcd_server
