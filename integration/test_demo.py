from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def demo(folder: str, *words: str, module: str = "demo") -> tuple[int, str]:
    """Run a demo; return its exit status and what it printed."""
    command = [sys.executable, "-m", module, folder, *words]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def test_every_step_succeeds_and_so_does_a_second_run(suite_bin: str) -> None:
    for _ in range(2):
        status, printed = demo(suite_bin)
        assert status == 0, printed
        assert "✗" not in printed
        assert "outside, which saw 192.0.2.1 " in printed
        assert "\033" not in printed  # nobody looks at it: no colour


def test_a_step_that_fails_is_shown_and_fails_the_demo(suite_bin: str, tmp_path: Path) -> None:
    for name in os.listdir(suite_bin):
        if name != "portmap":
            os.symlink(f"{suite_bin}/{name}", tmp_path / name)
    status, printed = demo(str(tmp_path))
    assert status == 1
    assert "✗ pod-a attached" in printed
    assert "failed to find plugin 'portmap'" in printed
    assert "✓ its own links and packet filter are unchanged" in printed


def test_a_folder_without_plugins_is_said_to_be_one(tmp_path: Path) -> None:
    status, printed = demo(str(tmp_path))
    assert status == 1
    assert f"no cnictl in {tmp_path}" in printed


@pytest.fixture
def daemon(tmp_path: Path) -> str:
    """The node daemon: the frozen one that FLANNELD names, or the source tree's."""
    if given := os.environ.get("FLANNELD"):
        return os.path.abspath(given)
    path = tmp_path / "flanneld"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m flanneld "$@"\n', encoding="ascii")
    path.chmod(0o755)
    return str(path)


def test_the_cluster_shows_who_reaches_whom_and_by_which_path(suite_bin: str, daemon: str) -> None:
    status, printed = demo(suite_bin, daemon, module="demo.cluster")
    assert status == 0, printed
    assert "✗" not in printed
    assert printed.count("30 of 30") == 3  # six pods ping five others; at first, with a daemon away, at last
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("node-1")]
    assert ["node-11", "bridge", "direct,", "198.18.1.12", "vxlan,", "flannel.1"] in rows
    assert "segments of 1398 bytes" in printed


def test_a_cluster_without_its_daemon_is_told_so(suite_bin: str, tmp_path: Path) -> None:
    status, printed = demo(suite_bin, str(tmp_path / "flanneld"), module="demo.cluster")
    assert (status, printed) == (1, f"demo: there is no {tmp_path}/flanneld; `make demo-cluster` builds it\n")
