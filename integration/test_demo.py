from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def demo(folder: str) -> tuple[int, str]:
    """Run the demo; return its exit status and what it printed."""
    command = [sys.executable, "-m", "demo", folder]
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
