"""Calls of the host-local plugin, in this process and of the reference's executable."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from cni_plugins.spec import skel
from ipam.host_local.plugin import PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

PEER = "/usr/lib/cni/host-local"


def config(data_dir: Path | str, ipam: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return a network configuration; `ipam` has 10.1.2.0/24 unless ranges are given."""
    own = {"subnet": "10.1.2.0/24"} if ipam is None else ipam
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "bridge",
        "ipam": {"type": "host-local", "dataDir": str(data_dir), **own},
        **keys,
    }


def environment(verb: str, container: str = "c1", ifname: str = "eth0", args: str = "") -> dict[str, str]:
    """Return the CNI variables; the namespace leads nowhere, which an IPAM plugin must not mind."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container,
        "CNI_IFNAME": ifname,
        "CNI_NETNS": "/nowhere",
        "CNI_PATH": "/nowhere",
        "CNI_ARGS": args,
    }


def call(
    verb: str, conf: dict[str, Any], container: str = "c1", ifname: str = "eth0", args: str = ""
) -> dict[str, Any]:
    """Run a verb of ours in this process; raise its CNIError."""
    return skel.serve(PLUGIN, environment(verb, container, ifname, args), conf) or {}


def peer(
    verb: str, conf: dict[str, Any], container: str = "c1", ifname: str = "eth0"
) -> tuple[int, dict[str, Any]]:
    """Run a verb of the reference; return its exit status and what it printed."""
    conf = {**conf, "cniVersion": "1.0.0"}
    done = subprocess.run(
        [PEER],
        input=json.dumps(conf).encode(),
        env=environment(verb, container, ifname),
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout or b"{}")


def addresses(result: dict[str, Any]) -> list[str]:
    """Return a result's addresses without their prefix lengths."""
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


def held(data_dir: Path) -> dict[str, bytes]:
    """Return the reservations on disk, with their content."""
    return {
        entry.name: entry.read_bytes()
        for entry in (data_dir / "net").iterdir()
        if entry.name != "lock" and not entry.name.startswith("last_reserved_ip.")
    }
