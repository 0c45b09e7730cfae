"""These tests run by `make test-image`, and are skipped elsewhere: a build takes minutes, and a mirror."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.image.engine import Podman
from integration.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """The image, built by the Makefile from a Debian that debootstrap made, in storage of the tests' own."""
    with Node() as node:
        made = Podman(node, str(tmp_path_factory.mktemp("podman")))
        made.build(os.environ["IMAGE_BASE"])
        yield made
