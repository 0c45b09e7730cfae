"""install-cni and install-conf where nothing more can be written: what served serves, and nothing is left."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from integration.suite import ROOT
from tests.test_install import bundle

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from integration.node import Node

BIN, NET = "/opt/cni/bin", "/etc/cni/net.d"
LIMITS = {"blocks": "size=64k,nr_inodes=1000", "inodes": "size=8m,nr_inodes=16"}


def small(node: Node, folder: str, limit: str) -> None:
    node.run(["mkdir", "-p", folder])
    node.run(["mount", "-t", "tmpfs", "-o", f"{LIMITS[limit]},mode=755", "tmpfs", folder])


def flanneld(node: Node, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return node.run([sys.executable, "-m", "flanneld", *arguments], {"PYTHONPATH": ROOT}, check=False)


def says(node: Node) -> str:
    return node.run([f"{BIN}/bridge"]).stdout.decode().strip()


def names(node: Node, folder: str) -> list[str]:
    return sorted(name for _, folders, files in os.walk(node.path(folder)) for name in (*folders, *files))


@pytest.mark.parametrize("limit", LIMITS)
def test_an_upgrade_that_does_not_fit(node: Node, tmp_path: Path, limit: str) -> None:
    old, new = (bundle(tmp_path / version, version) for version in ("1.0", "2.0"))
    for number in range(20):
        (tmp_path / f"2.0/cni-runtime/lib/part{number}").write_bytes(bytes(8192))
    small(node, BIN, limit)
    assert flanneld(node, "install-cni", "--bundle", old, BIN).returncode == 0
    before = names(node, BIN)
    done = flanneld(node, "install-cni", "--bundle", new, BIN)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert len(done.stderr) < 500
    assert says(node) == "bridge 1.0"
    assert names(node, BIN) == before
    node.run(["mount", "-o", "remount,size=8m,nr_inodes=1000", BIN])
    assert flanneld(node, "install-cni", "--bundle", new, BIN).returncode == 0
    assert says(node) == "bridge 2.0"


def test_gos_plugins_serve_on_where_there_is_no_room(node: Node, tmp_path: Path) -> None:
    source = bundle(tmp_path / "a", "1.0")
    (tmp_path / "a/cni-runtime/lib/large").write_bytes(bytes(1 << 20))
    small(node, BIN, "blocks")
    with open(node.path(f"{BIN}/bridge"), "w", encoding="ascii") as file:
        file.write("#!/bin/sh\necho Go\n")
    os.chmod(node.path(f"{BIN}/bridge"), 0o755)
    assert flanneld(node, "install-cni", "--bundle", source, BIN).returncode == 1
    assert says(node) == "Go"
    assert set(names(node, BIN)) <= {"bridge", ".cni-runtime"}


def test_a_folder_that_cannot_be_written(node: Node, tmp_path: Path) -> None:
    old, new = (bundle(tmp_path / version, version) for version in ("1.0", "2.0"))
    small(node, BIN, "blocks")
    assert flanneld(node, "install-cni", "--bundle", old, BIN).returncode == 0
    node.run(["mount", "-o", "remount,ro", BIN])
    done = flanneld(node, "install-cni", "--bundle", new, BIN)
    assert (done.returncode, says(node)) == (1, "bridge 1.0")
    assert b"Read-only file system" in done.stderr


@pytest.mark.parametrize("limit", LIMITS)
def test_a_list_that_does_not_fit(node: Node, tmp_path: Path, limit: str) -> None:
    template, target = tmp_path / "cni-conf.json", f"{NET}/10-flannel.conflist"
    template.write_text(json.dumps({"name": "old", "plugins": [{"type": "flannel"}]}))
    small(node, NET, limit)
    assert flanneld(node, "install-conf", str(template), target).returncode == 0
    fill = (
        'i=0; while : 2>/dev/null >"fill$i"; do i=$((i + 1)); done; cat /dev/zero >fill0'
        if limit == "inodes"
        else "cat /dev/zero >fill"
    )
    node.run(["sh", "-c", f"cd {NET}; {fill}"], check=False)
    before = names(node, NET)
    template.write_text(json.dumps({"name": "new", "plugins": [{"type": "flannel"}] * 2000}))
    done = flanneld(node, "install-conf", str(template), target)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    with open(node.path(target), encoding="ascii") as file:
        assert json.load(file)["name"] == "old"
    assert names(node, NET) == before
