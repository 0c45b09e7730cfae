"""podman with storage of its own, in the mounts of a node: nothing of it is left on the machine."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from integration.node import NSENTER, PATH
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.node import Node

NAME = "localhost/cni-plugins-flannel:test"
BASE = "localhost/debian:test"
SOURCE = "https://example.org/source"
FILES = {
    "containers.conf": """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "{folder}/tmp"
""",
    "storage.conf": """
[storage]
driver = "overlay"
runroot = "{folder}/run"
graphroot = "{folder}/graph"
""",
    ".config/containers/policy.json": '{{"default": [{{"type": "insecureAcceptAnything"}}]}}',
}


class Podman:
    """podman, and the image it has built.

    Args:
        node: where containers run.
        folder: where images and settings are.
    """

    def __init__(self, node: Node, folder: str) -> None:
        self.node = node
        self._env = {
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "HOME": folder,
            "TMPDIR": folder,
        }
        os.makedirs(f"{folder}/.config/containers")
        for name, content in FILES.items():
            with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                file.write(content.format(folder=folder))

    def __call__(self, *words: str, check: bool = True) -> str:
        """Run a command on the node and return what it printed on both streams."""
        done = self.node.run(["podman", *words], self._env, check=check)
        return (done.stdout + done.stderr).decode().strip()

    def build(self, base: str) -> None:
        """Build the image by the Makefile; containers of the build have the machine's network.

        Args:
            base: an archive of the Debian that takes the place of the Dockerfile's BASE.
        """
        self("import", "--quiet", base, BASE)
        named = (f"IMAGE={NAME}", f"IMAGE_SOURCE={SOURCE}")
        how = f"--network=host --isolation=chroot --build-arg=BASE={BASE}"
        self._outside("make", "image", "ENGINE=podman", *named, f"IMAGE_ARGS={how}")

    def run(self, options: Sequence[str], *command: str, check: bool = True) -> str:
        """Run a program of the image as its entry point, without a network of its own."""
        program, *arguments = command
        where = ("--rm", "--network=host", *options, f"--entrypoint={program}", NAME)
        return self("run", *where, *arguments, check=check)

    def files(self) -> str:
        """Return the path, seen from outside of the node, of a folder with the image's files."""
        return self.node.path(self("image", "mount", NAME))

    def _outside(self, *command: str) -> None:
        """Run a program with the node's mounts and the machine's network."""
        subprocess.run(
            [NSENTER, f"--mount=/proc/{self.node.pid}/ns/mnt", f"--wd={ROOT}", "--", *command],
            env={"PATH": PATH, **self._env},
            check=True,
            timeout=1800,
        )
