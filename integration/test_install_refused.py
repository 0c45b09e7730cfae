"""install-cni on systems that do not run what it brings: what served serves, and the reason is told."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins import install
from integration.suite import ROOT
from integration.test_install_full import BIN, flanneld, names, says
from tests.test_install import bundle

if TYPE_CHECKING:
    from pathlib import Path

    from integration.node import Node

WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
"""As the init container of the manifest, which drops all capabilities: root then is bound by files' modes."""


def test_a_file_system_without_programs(node: Node, tmp_path: Path) -> None:
    old, new = (bundle(tmp_path / version, version) for version in ("1.0", "2.0"))
    node.run(["mkdir", "-p", BIN])
    node.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", BIN])
    assert flanneld(node, "install-cni", "--bundle", old, BIN).returncode == 0
    before = names(node, BIN)
    node.run(["mount", "-o", "remount,noexec", BIN])
    done = flanneld(node, "install-cni", "--bundle", new, BIN)
    assert done.returncode == 1
    assert b"its file system is mounted noexec" in done.stderr
    assert names(node, BIN) == before
    node.run(["mount", "-o", "remount,exec", BIN])
    assert says(node) == "bridge 1.0"
    assert flanneld(node, "install-cni", "--bundle", new, BIN).returncode == 0
    assert says(node) == "bridge 2.0"


def test_noexec_of_the_host_is_seen_through_a_bind_mount(node: Node, tmp_path: Path) -> None:
    """As a container sees the host's folder."""
    source, host = bundle(tmp_path / "1.0", "1.0"), "/run/host"
    node.run(["mkdir", "-p", BIN, host])
    node.run(["mount", "-t", "tmpfs", "-o", "mode=755,noexec", "tmpfs", host])
    node.run(["mount", "--bind", host, BIN])
    done = flanneld(node, "install-cni", "--bundle", source, BIN)
    assert done.returncode == 1
    assert b"its file system is mounted noexec" in done.stderr
    assert names(node, BIN) == [".cni-runtime"]


@pytest.mark.parametrize("path", ["lib", "VERSION", "cni", ""])
def test_a_repair_needs_no_rights(node: Node, tmp_path: Path, path: str) -> None:
    """What nobody may read any more is a damage like others."""
    source = bundle(tmp_path / "1.0", "1.0")
    command = [*WITHOUT_RIGHTS, sys.executable, "-m", "flanneld", "install-cni", "--bundle", source, BIN]
    for _ in range(2):
        node.run(command, {"PYTHONPATH": ROOT})
    current = node.path(f"{BIN}/{install.STATE}/current")
    damaged = os.path.join(os.path.dirname(current), os.readlink(current))
    os.chmod(os.path.join(damaged, path), 0)
    node.run(command, {"PYTHONPATH": ROOT})
    assert os.readlink(current) == f"{os.path.basename(damaged)}.1"
    assert says(node) == "bridge 1.0"
    node.run(command, {"PYTHONPATH": ROOT})
    assert not os.path.lexists(damaged)


@pytest.mark.bundle
def test_a_library_of_the_bundle_is_damaged(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "cni"
    shutil.copytree(os.environ["SUITE_BIN"], source, symlinks=True)
    assert flanneld(node, "install-cni", "--bundle", str(source), BIN).returncode == 0
    serving = os.readlink(node.path(f"{BIN}/{install.STATE}/current"))
    before = names(node, BIN)
    (library,) = source.rglob("libpython3*.so*")
    os.truncate(library, library.stat().st_size // 2)
    done = flanneld(node, "install-cni", "--bundle", str(source), BIN)
    assert done.returncode == 1
    assert b"Nothing was swapped" in done.stderr
    assert b"cnictl" in done.stderr
    assert names(node, BIN) == before
    assert os.readlink(node.path(f"{BIN}/{install.STATE}/current")) == serving
