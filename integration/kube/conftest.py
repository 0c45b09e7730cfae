"""These tests run by `make test-kube`, and are skipped elsewhere: building a control plane takes minutes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.kube.cluster import Cluster
from integration.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane in a node of its own, for tests that leave it as they found it."""
    with Node() as node, Cluster(node, os.environ["KUBE_BIN"]) as made:
        yield made
