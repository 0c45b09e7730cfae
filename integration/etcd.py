"""A real etcd for tests, in a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Self

from integration.node import PATH
from integration.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from integration.node import Node

FOLDER = "/run/etcd"
SOCKET = f"{FOLDER}/etcd:2379"
"""Where it listens by default: a socket in its working directory, whose name has to look like a host's."""
PREFIX = "/coreos.com/network"
CONFIG = f"{PREFIX}/config"
SUBNETS = f"{PREFIX}/subnets/"
NETWORK = '{"Network": "10.5.0.0/16", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}'
DUAL = NETWORK.replace('"SubnetLen": 24', '"EnableIPv6": true, "IPv6Network": "fd00:5::/48"')


class Etcd:
    """One server in a node, whose data are in the node's /run; a context manager.

    Args:
        node: where it runs.
        url: where it listens; the default can be reached from outside the node by `outside`.
        options: further words of its command line, such as those that name certificates for an https URL.
    """

    def __init__(self, node: Node, url: str = "", *, options: Sequence[str] = ()) -> None:
        self.node = node
        self.url = url or f"unix://{SOCKET}"
        self._listen = url or f"unix://{SOCKET.removeprefix(FOLDER + '/')}"
        self.outside = f"unix://{node.path(SOCKET)}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, on the data it had, and wait until it serves."""
        self._process = self.node.popen(
            [
                *("sh", "-c", 'mkdir -p "$0" && cd "$0" && rm -f etcd:* && exec etcd "$@"', FOLDER),
                *("--data-dir", "data", "--unsafe-no-fsync", "--log-level", "error"),
                *("--listen-client-urls", self._listen, "--advertise-client-urls", self._listen),
                *("--listen-peer-urls", "http://127.0.0.1:0", *self._options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("SHOW_LOGS") else subprocess.DEVNULL,
        )
        until(self._serves)

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "etcd ended"
        return self.ctl("endpoint", "health", check=False).returncode == 0

    def pause(self) -> None:
        """Let it hang: connections stay, and nobody answers; `stop` ends it nevertheless."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ctl(self, *words: str, check: bool = True, user: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run etcdctl."""
        who = ["--user", user] if user else []
        command = ["etcdctl", "--endpoints", self.url, "--command-timeout", "60s", *self._tls(), *who, *words]
        return self.node.run(command, {"ETCDCTL_API": "3", "PATH": PATH}, check=check)

    def _tls(self) -> list[str]:
        named = dict(word.removeprefix("--").split("=", 1) for word in self._options if "=" in word)
        return [
            f"--{ours}={named[theirs]}"
            for ours, theirs in (("cacert", "trusted-ca-file"), ("cert", "cert-file"), ("key", "key-file"))
            if theirs in named
        ]

    def put(self, key: str, value: str, *options: str) -> None:
        """Write a key."""
        self.ctl("put", key, value, *options)

    def get(self, prefix: str) -> dict[str, str]:
        """Return the keys under a prefix, and their values."""
        lines = self.ctl("get", "--prefix", prefix).stdout.decode().splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def leases(self) -> dict[str, str]:
        """Return the leased subnets, as the last parts of their keys, and the values."""
        return {key.removeprefix(SUBNETS): value for key, value in self.get(SUBNETS).items()}

    def ttl(self, subnet: str) -> dict[str, Any]:
        """Return what etcd knows of the lease of a subnet's key: id 0 when there is none."""
        answer = json.loads(self.ctl("get", SUBNETS + subnet, "-w", "json").stdout)
        lease = answer["kvs"][0].get("lease", 0)
        if not lease:
            return {"id": 0}
        found: dict[str, Any] = json.loads(self.ctl("lease", "timetolive", f"{lease:x}", "-w", "json").stdout)
        return found
