"""cnictl, the dhcp daemon and flanneld for arm64, under qemu, in a root with nothing but them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_plugins import VERSION
from integration.bundles import ARM64
from integration.suite import ROOT
from integration.test_every_node import GOOD

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.arm64


def argv(root: Path, *command: str) -> list[str]:
    """Return the command line that runs a program in a root, with the bundles in /cni and /flanneld."""
    mounts = [word for name in ("cni", "flanneld") for word in ("--mount", f"/{name}={ARM64}/{name}")]
    return [sys.executable, f"{ROOT}/build/arm64.py", *mounts, str(root), *command]


def start(root: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a root to its end."""
    return subprocess.run(argv(root, *command), capture_output=True, check=False)


def test_cnictl(tmp_path: Path) -> None:
    done = start(tmp_path, "/cni/cnictl", "--version")
    assert done.stdout.startswith(f"cnictl {VERSION} ".encode())
    assert done.stderr == b""
    (tmp_path / "good.conflist").write_text(json.dumps(GOOD))
    (tmp_path / "wrong.conflist").write_text(json.dumps(GOOD).replace("10.85.0.0/16", "10.85.0.0/33"))
    done = start(tmp_path, "/cni/cnictl", "lint", "/good.conflist")
    assert b"no plugin 'bridge' in /opt/cni/bin" in done.stdout
    done = start(tmp_path, "/cni/cnictl", "lint", "/wrong.conflist")
    assert b"the subnet '10.85.0.0/33' is not an address" in done.stdout


def test_the_dhcp_daemon(tmp_path: Path) -> None:
    """The plugin finds it beside itself."""
    done = start(tmp_path, "/cni/dhcp", "daemon", "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: dhcp daemon ")


def test_flanneld(tmp_path: Path) -> None:
    for asked in ("-version", "--version"):
        done = start(tmp_path, "/flanneld/flanneld", asked)
        assert (done.returncode, done.stdout + done.stderr) == (0, f"{VERSION}\n".encode())
    done = start(tmp_path, "/flanneld/flanneld", "--no-such-option")
    assert done.returncode == 2
    assert b"flag provided but not defined: -no-such-option" in done.stderr


def test_flanneld_asks_etcd(tmp_path: Path) -> None:
    """Its largest library, gRPC, works. HTTP/2 begins with this word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with subprocess.Popen(argv(tmp_path, "/flanneld/flanneld", f"--etcd-endpoints={url}")) as daemon:
            try:
                client, _address = server.accept()
                with client:
                    assert client.recv(4096).startswith(b"PRI * HTTP/2.0")
            finally:
                daemon.kill()
