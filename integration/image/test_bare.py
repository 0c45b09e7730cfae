"""A fresh clone on a Debian that has python3 and make: what it does, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from integration.node import PATH
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(2400)

CLONE = "/root/cni-plugins"
WATCHED = ("etc", "usr", "var")
"""What must be as it was; /root and /tmp are where people work."""


INSIDE = """
cd "$1"; shift
mount --bind . "$PWD"; cd "$PWD"
for place in proc sys dev; do mount --rbind "/$place" "$place"; done
mount -t tmpfs run run
pivot_root . mnt
exec chroot . sh -ec 'umount -l /mnt; exec "$@"' sh "$@"
"""
"""Runs a program with a folder as the root of its mounts: a chroot would be left by entering other mounts."""


class Bare:
    """That Debian, as a folder that programs take for their root; it has the machine's network."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *command: str) -> str:
        """Run a program in the clone, or in the root's own folder before there is one."""
        folder = CLONE if os.path.isdir(f"{self.root}{CLONE}") else "/"
        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation=private", "sh", "-ec", INSIDE, "sh", str(self.root)),
                *("env", f"--chdir={folder}", *command),
            ],
            env={"PATH": PATH, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
        return done.stdout

    def files(self) -> dict[str, tuple[object, ...]]:
        """Return of every watched path its kind and mode, owner, size, time of change and target."""
        found: dict[str, tuple[object, ...]] = {}
        for top in WATCHED:
            for folder, folders, names in os.walk(self.root / top):
                for name in (*folders, *names):
                    path = os.path.join(folder, name)
                    about = os.lstat(path)
                    link = os.readlink(path) if os.path.islink(path) else ""
                    size = about.st_size if name in names else 0
                    found[path] = (about.st_mode, about.st_uid, about.st_gid, size, about.st_mtime_ns, link)
        return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    root = tmp_path_factory.mktemp("bare")
    subprocess.run(["tar", "-C", root, "-xf", os.environ["IMAGE_BASE"]], check=True)
    shutil.copy(os.path.realpath("/etc/resolv.conf"), root / "etc/resolv.conf")
    made = Bare(root)
    made("apt-get", "-qq", "update")
    made("apt-get", "-qq", "install", "--yes", "--no-install-recommends", "make", "python3")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        target = f"{root}{CLONE}/{name}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy2(f"{ROOT}/{name}", target, follow_symlinks=False)
    yield made
    shutil.rmtree(root)


def test_two_commands_leave_the_machine_as_it_was(bare: Bare) -> None:
    before = bare.files()
    assert "steps succeeded" in bare("make", "-j4", "demo", "build-flanneld")
    # All that it needs is there now: a machine without any network does it again.
    assert "steps succeeded" in bare("unshare", "--net", "make", "demo")
    assert "passed" in bare("make", "shell", "ARGS=.venv/bin/pytest -q tests/test_install.py")
    after = bare.files()
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
