"""What tests need of the machine, by the marks that ask for it; the one place that skips a test.

`NO_SKIP=1` makes a test fail where it would be skipped because something is missing.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from integration import bundles, features
from integration.node import PEER

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "peer": (lambda: os.access(f"{PEER}/bridge", os.X_OK), f"needs the Go reference plugins in {PEER}"),
    "podman": (lambda: bool(shutil.which("podman") and shutil.which("runc")), "needs podman and runc"),
    "bundles": (bundles.built, "needs built bundles: SUITE_BIN, and FLANNELD or dist/flanneld"),
    "arm64": (bundles.built_for_arm64, "needs dist/arm64, the bundles for arm64 (make test-arm64)"),
    "bundle": (lambda: bool(os.environ.get("SUITE_BIN")), "needs SUITE_BIN, a frozen bundle"),
    "readelf": (lambda: bool(shutil.which("readelf")), "needs readelf, of binutils"),
    "runtime": (
        lambda: bool(shutil.which("containerd") and shutil.which("runc")),
        "needs containerd and runc",
    ),
    "kube": (
        lambda: bool(os.environ.get("KUBE_BIN")),
        "needs KUBE_BIN, the folder of a built control plane (make test-kube)",
    ),
    "image": (
        lambda: bool(os.environ.get("IMAGE_BASE")),
        "needs IMAGE_BASE, an archive of a Debian to build the image on (make test-image)",
    ),
}
"""Marks without arguments; the mark `kernel` names features of integration/features.py."""


def demand(item: pytest.Item) -> None:
    """Skip a test that this machine cannot run, with the reason; fail it under NO_SKIP."""
    missing = [
        reason for name, (probe, reason) in NEEDS.items() if item.get_closest_marker(name) and not probe()
    ]
    if not missing:  # without root there is no looking for features
        asked = [name for mark in item.iter_markers("kernel") for name in mark.args if not features.has(name)]
        missing = [f"needs {', '.join(asked)} in the kernel"] if asked else []
    if missing:
        reason = "; ".join(missing)
        if os.environ.get("NO_SKIP"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
