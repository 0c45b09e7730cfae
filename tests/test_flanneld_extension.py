"""Commands of the extension backend: what they get, how they fail."""

from __future__ import annotations

import asyncio
import time

import pytest

from flanneld.backend import extension
from flanneld.backend.extension import CommandError, run


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


def test_a_command_that_does_not_end_is_killed_with_what_it_started() -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match="not done after 0 s"):
        asyncio.run(run("sleep 50 & wait", {}, limit=0.2))
    assert time.monotonic() - began < 5


def test_a_command_that_reads_nothing() -> None:
    assert asyncio.run(run("exec <&-; echo done", {}, "x" * 100_000)) == "done"
