"""These tests run only by `make test-image`: building the image takes minutes, and package mirrors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.image.engine import Podman
from integration.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore_glob = [] if os.environ.get("IMAGE_BASE") else ["test_*.py"]


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """The image, built by the Makefile from a Debian that debootstrap made, in storage of the tests' own."""
    with Node() as node:
        made = Podman(node, str(tmp_path_factory.mktemp("podman")))
        made.build(os.environ["IMAGE_BASE"])
        yield made
