"""What was built, for tests of the bundles themselves."""

from __future__ import annotations

import os

from integration.suite import ROOT

ARM64 = f"{ROOT}/dist/arm64"


def flanneld() -> str:
    """Return the path of the frozen node daemon."""
    return os.path.abspath(os.environ.get("FLANNELD") or f"{ROOT}/dist/flanneld/flanneld")


def built() -> bool:
    """Tell whether the plugins under test are a bundle, and the daemon's is there."""
    plugins = os.environ.get("SUITE_BIN", "")
    return os.path.isdir(f"{plugins}/cni-runtime") and os.access(flanneld(), os.X_OK)


def built_for_arm64() -> bool:
    """Tell whether both bundles for arm64 are there."""
    return all(os.path.isdir(f"{ARM64}/{name}") for name in ("cni", "flanneld"))


def foreign_files(pid: int, bundle: str) -> set[str]:
    """Return the files that a process has mapped, its program and libraries, outside of a bundle's folder."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        mapped = {line.split(maxsplit=5)[5].rstrip("\n") for line in file if len(line.split()) > 5}
    return {path for path in mapped if path.startswith("/") and not path.startswith(f"{bundle}/")}
