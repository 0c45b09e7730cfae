"""Calling a plugin as a runtime does: a process, CNI_* variables, standard input."""

from __future__ import annotations

import json
import subprocess
from typing import Any

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")


class Answer:
    """How a plugin's process ended and what it said."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def code(self) -> int:
        """The error object's code, after a look at its form (section 5, "Error")."""
        assert self.status == 1
        assert "Traceback" not in self.stderr
        body = self.json
        assert set(body) - {"details"} == {"cniVersion", "code", "msg"}
        assert body["cniVersion"] in VERSIONS
        assert body["msg"]
        assert "\n" not in body["msg"]
        code: int = body["code"]
        return code


def variables(verb: str, folder: str, **changes: str) -> dict[str, str]:
    """Return a whole environment; CNI_NETNS leads nowhere, which host-local must not mind."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/no/such/netns",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": folder,
    }
    return {**env, **{f"CNI_{key.upper()}": value for key, value in changes.items()}}


def call(program: str, env: dict[str, str], stdin: bytes | dict[str, Any] = b"") -> Answer:
    """Run a plugin."""
    data = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
    done = subprocess.run([program], env=env, input=data, capture_output=True, check=False, timeout=60)
    return Answer(done)


def host_local(folder: object, version: str = "1.1.0", **ipam: Any) -> dict[str, Any]:
    """Return a network configuration of which host-local serves every verb."""
    return {
        "cniVersion": version,
        "name": "net",
        "type": "host-local",
        "cni.dev/valid-attachments": [],
        "prevResult": {"cniVersion": version, "ips": []},
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": str(folder), **ipam},
    }
