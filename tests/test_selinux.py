"""What is written for an SELinux context. What a policy makes of it no kernel without SELinux can tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni_plugins.kernel import selinux

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


def test_the_context_is_written_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back by a write of nothing, as libselinux's setexeccon(NULL) does."""
    done: list[object] = []
    monkeypatch.setattr("posix.write", lambda _fd, data: done.append(data))
    monkeypatch.setattr(selinux, "_EXEC", "/dev/null")
    monkeypatch.setattr("cni_plugins.kernel.programs.run", lambda *argv: done.append(argv))
    before = os.listdir("/proc/self/fd")
    selinux.run_in(CONTEXT, "ip", ["link"])
    assert done == [CONTEXT.encode(), ("ip", ["link"]), b""]
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("path", "program"), [("/dev/full", "true"), ("/dev/null", "false")])
def test_a_refusal_names_the_context(monkeypatch: pytest.MonkeyPatch, path: str, program: str) -> None:
    monkeypatch.setattr(selinux, "_EXEC", path)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"No space left|failed with status 1") as raised:
        selinux.run_in(CONTEXT, program, [])
    assert raised.value.__notes__ == [f"failed to run {program} in the SELinux context {CONTEXT!r}"]
    assert os.listdir("/proc/self/fd") == before


def test_enabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(selinux, "_ENFORCE", str(tmp_path / "enforce"))
    assert not selinux.enabled()
    (tmp_path / "enforce").write_text("0")
    assert selinux.enabled(), "permissive is not off"
