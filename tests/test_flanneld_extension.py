"""Commands of the extension backend: what they get, how they fail."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from flanneld.backend import extension
from flanneld.backend.extension import CommandError, run

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_command_reads_and_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    said = asyncio.run(run("read line; echo got $line $SUBNET $SECRET >&2; echo", {"SUBNET": "s"}, "data"))
    assert said == "got data s"


def test_a_command_that_fails() -> None:
    with pytest.raises(CommandError, match="exit status 7 of echo why; exit 7: why"):
        asyncio.run(run("echo why; exit 7", {}))


def test_an_image_without_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "_SHELL", "/nonexistent/sh")
    with pytest.raises(CommandError, match="there is no /nonexistent/sh here"):
        asyncio.run(run("echo", {}))


def test_a_command_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(CommandError, match="not done after 1 s"):
            asyncio.run(run(f"exec 9>'{held}'; sleep 600 & wait", {}, limit=1))
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b"", "the end comes when nobody holds the other side open"
    finally:
        os.close(reader)


def test_a_command_that_reads_nothing() -> None:
    assert asyncio.run(run("exec <&-; echo done", {}, "x" * 100_000)) == "done"
