"""Roots of nodes with another C library than this machine's, or with none, to start the bundles in.

Usage: python -m integration.roots. It downloads what they are made of into .work/roots; a test does that
itself if it finds nothing there. glibc 2.31 is Debian 11's. An older one, such as 2.28, is in no release that
Debian's mirrors still have, so no test runs on it: each build checks that the bundles need no glibc of the
node, whichever it is (build/closure.py). musl is what Alpine has, here from Debian's package of it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.node import Node

FOLDER = f"{ROOT}/.work/roots"
PACKAGES = {
    "glibc 2.31": ("libc6", "busybox-static", "--release=bullseye"),
    "musl": ("musl", "busybox-static"),
    "empty": (),
}
"""What is unpacked into a root, by what the root is for."""
PLUGINS, DAEMON = "/opt/cni/bin", "/opt/flanneld"
_INSIDE = "/run/root"


def fetched(kind: str) -> str:
    """Return the folder with what a root is made of, which is downloaded once.

    Raises:
        subprocess.CalledProcessError: it cannot be downloaded; standard error says why.
    """
    folder = f"{FOLDER}/{kind.replace(' ', '-')}"
    os.makedirs(FOLDER, exist_ok=True)
    with open(f"{FOLDER}/lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(folder):
            command = [sys.executable, f"{ROOT}/build/debian.py", "unpack", folder, *PACKAGES[kind]]
            subprocess.run(command, check=True)
    return folder


class Root:
    """A root with the bundles in it, in the memory of a node, which it goes with.

    Args:
        node: its plugins are mounted at PLUGINS.
        kind: a key of PACKAGES.
        daemon: the folder of flanneld's bundle, which is mounted at DAEMON.
    """

    def __init__(self, node: Node, kind: str, daemon: str) -> None:
        self._node = node
        self._folder = folder = node.path(_INSIDE)
        if PACKAGES[kind]:
            shutil.copytree(fetched(kind), folder, symlinks=True)
            os.symlink("busybox", f"{folder}/bin/sh")
        for source, target in (
            ("/proc", "/proc"),
            ("/dev", "/dev"),
            (node.plugins, PLUGINS),
            (daemon, DAEMON),
        ):
            os.makedirs(f"{folder}{target}", exist_ok=True)
            node.run(["mount", "--rbind", source, f"{_INSIDE}{target}"])

    def write(self, path: str, content: str) -> None:
        """Write a file in the root."""
        os.makedirs(os.path.dirname(f"{self._folder}{path}"), exist_ok=True)
        with open(f"{self._folder}{path}", "w", encoding="utf-8") as file:
            file.write(content)

    def copy(self, source: str, path: str) -> None:
        """Copy a file of this machine into the root."""
        shutil.copy(source, f"{self._folder}{path}")

    def remove(self, path: str) -> None:
        """Remove a file from the root."""
        os.unlink(f"{self._folder}{path}")

    def argv(self, *command: str) -> list[str]:
        """Return the command line that runs a program in the root, on the node."""
        return ["chroot", _INSIDE, *command]

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the root to its end, whatever that is, with no variables but PATH and these."""
        return self._node.run(self.argv(*command), env, check=False)


if __name__ == "__main__":
    for name, packages in PACKAGES.items():
        if packages:
            fetched(name)
