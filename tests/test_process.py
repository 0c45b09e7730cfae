from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins import process
from integration.suite import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SH = "/bin/sh"


def shell(script: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> process.Completed:
    return process.run([SH, "-c", script], env or {}, stdin)


def test_what_it_prints_and_its_status() -> None:
    done = shell("echo out; echo noise >&2; exit 7")
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"noise\n")


def test_input_and_output_larger_than_any_pipe() -> None:
    data = os.urandom(1 << 20)
    done = shell("tee /dev/stderr", data, {"PATH": os.environ["PATH"]})
    assert (done.status, done.stdout, done.stderr) == (0, data, data)


def test_output_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LIMIT", 1000)
    assert len(shell(f"printf %{process.LIMIT}s").stdout) == process.LIMIT
    for redirected in ("", ">&2"):
        with pytest.raises(OSError, match="it printed more than 1000 bytes"):
            shell(f"printf %{process.LIMIT + 1}s {redirected}")


def test_input_that_nobody_reads() -> None:
    assert shell("exit 0", b"x" * (1 << 20)).status == 0


@pytest.mark.parametrize("number", [9, 11, 15])
def test_a_signal_is_a_negative_status(number: int) -> None:
    done = shell(f"echo before; kill -{number} $$")
    assert (done.status, done.stdout) == (-number, b"before\n")


def test_the_environment_is_whole() -> None:
    done = process.run(["/usr/bin/env"], {"A": "1", "B": "x=y", "C": "\udcff"})
    assert sorted(done.stdout.splitlines()) == [b"A=1", b"B=x=y", b"C=\xff"]


def test_no_signal_is_ignored() -> None:
    """The interpreter ignores SIGPIPE; a program it starts must not."""
    done = process.run(["/bin/grep", "SigIgn", "/proc/self/status"], {})
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << 12 | 1 << 24)


def test_standard_error_goes_to_ours(capfd: pytest.CaptureFixture[str]) -> None:
    done = process.run([SH, "-c", "echo noise >&2"], {}, capture_stderr=False)
    assert done.stderr == b""
    assert capfd.readouterr().err == "noise\n"


def test_what_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    (tmp_path / "garbage").write_bytes(b"\0\1\2")
    os.chmod(tmp_path / "garbage", 0o755)
    for name, error in (("none", FileNotFoundError), ("data", PermissionError), ("garbage", OSError)):
        with pytest.raises(error):
            process.run([str(tmp_path / name)], {})


def test_a_child_gets_three_descriptors_and_we_keep_none() -> None:
    script = f"""
import posix, sys
sys.path.insert(0, {ROOT!r})
from cni_plugins import process
before = posix.listdir("/proc/self/fd")
done = process.run(["/bin/ls", "/proc/self/fd"], {{}})
try:
    process.run(["/no/such/program"], {{}})
except FileNotFoundError:
    sys.stdout.write(done.stdout.decode())
assert posix.listdir("/proc/self/fd") == before
"""
    done = subprocess.run([sys.executable, "-IS", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "1", "2", "3"], "3 is the folder that ls reads"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("capture", [True, False])
def test_whichever_descriptors_are_closed(closed: tuple[int, ...], capture: bool, tmp_path: Path) -> None:
    """A runtime can start us with any of 0, 1 and 2 closed: new files then take these numbers."""
    script = f"""
import posix, sys
sys.path.insert(0, {ROOT!r})
from cni_plugins import process
for fd in {closed!r}:
    posix.close(fd)
argv = ["/bin/sh", "-c", "cat; echo noise >&2"]
done = process.run(argv, {{"PATH": "/bin:/usr/bin"}}, b"in", capture_stderr={capture})
fd = posix.open({str(tmp_path / "seen")!r}, posix.O_CREAT | posix.O_WRONLY)
posix.write(fd, b"%d|%b|%b" % (done.status, done.stdout, done.stderr))
"""
    subprocess.run([sys.executable, "-IS", "-c", script], check=False, capture_output=True)
    seen = (tmp_path / "seen").read_bytes()
    if capture:
        assert seen == b"0|in|noise\n"
    elif 2 not in closed:
        assert seen == b"0|in|"
    else:  # with no standard error, the shell cannot write there
        assert seen.split(b"|")[1:] == [b"in", b""]
