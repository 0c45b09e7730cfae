"""Hostile files for the runtime's side: cached results and network lists that `cnictl` reads."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from conflist import cnictl
from conflist.load import DEFAULT_FOLDER
from tests import hostile
from tests.hostile_state import OUTSIDE, Place, look, make_outside, plant

if TYPE_CHECKING:
    import random

CACHE = "/run/fuzz/cache"
LIST: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "disableCheck": False,
    "plugins": [
        {
            "type": "bridge",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "subnet": "10.1.2.0/24"},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
    ],
}
CACHED: dict[str, Any] = {
    "kind": "cniCacheV1",
    "containerId": "c1",
    "config": base64.b64encode(json.dumps(LIST).encode()).decode(),
    "ifName": "eth0",
    "networkName": "net",
    "netns": "/no/such",
    "cniArgs": [["K8S_POD_NAME", "pod"]],
    "capabilityArgs": {"portMappings": [{"hostPort": 80, "containerPort": 80}]},
    "result": hostile.valid("portmap", "DEL", "/nowhere", "1.1.0")["prevResult"],
}
COMMANDS = (
    ("del", "net", "/no/such", "--container-id", "c1"),
    ("check", "net", "/no/such", "--container-id", "c1"),
    ("add", "net", "/no/such", "--container-id", "c1"),
    ("gc", "net"),
    ("gc", "net", "--valid", "c1/eth0"),
    ("status", "net"),
    ("list",),
    ("lint",),
    ("lint", "--json"),
)
ALLOWED = (*hostile.ALLOWED, "/etc/cni/")


class Runtime:
    """Makes and tries cases, in a node. There are no plugins: what is tried is what is done around them."""

    def __init__(self) -> None:
        os.makedirs(hostile.FOLDER)
        make_outside()
        self._outside = look(OUTSIDE)
        self._fence = hostile.Fence()
        os.environ["CNI_PATH"] = hostile.FOLDER

    def __call__(self, chance: random.Random) -> str:
        """Try a case; return the command and its exit status."""
        for path, content in (
            (f"{CACHE}/results/net-c1-eth0", CACHED),
            (f"{CACHE}/results/.net-c1-eth0", CACHED),
            (f"{CACHE}/results/other-c1-eth0", CACHED["result"]),
            (f"{DEFAULT_FOLDER}/10-net.conflist", LIST),
            (f"{DEFAULT_FOLDER}/net/extra.conf", LIST["plugins"][1]),
            (f"{DEFAULT_FOLDER}/20-old.conf", {**LIST["plugins"][0], "name": "old", "cniVersion": "0.4.0"}),
        ):
            changed = hostile.changed(chance, content) if chance.random() < 0.3 else content
            data = json.dumps(changed).encode()
            plant(chance, Place(path, data), spoil=chance.random() < 0.15)
        command = list(chance.choice(COMMANDS))
        if command[0] not in ("list", "lint"):
            command += ["--cache-dir", CACHE]
        self._fence.allowed = ALLOWED
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                status = cnictl.main(command)
        finally:
            self._fence.allowed = None
            for folder in (CACHE, DEFAULT_FOLDER):
                shutil.rmtree(folder)
        self._fence.look()
        assert look(OUTSIDE) == self._outside, f"{command}: changed outside"
        return f"{command[0]} {status}"
