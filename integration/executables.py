"""The plugins' executable in a root that has nothing else, as on a node without a C library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from cni_plugins.multicall import MODULES
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from integration.node import Node

PLUGINS = "/opt/cni/bin"
"""Where the names are in a root."""
QEMU = "/usr/bin/qemu-aarch64-static"


def built(folder: Path, arch: str = "", main: str = "") -> str:
    """Build an executable as the plugins' is built; return its path.

    Args:
        folder: for the file.
        arch: its architecture, if not the machine's own.
        main: the module whose main() it runs, if not the plugins'.
    """
    target = f"{folder}/cni"
    options = [*(("--arch", arch) if arch else ()), *(("--main", main) if main else ())]
    subprocess.run([sys.executable, f"{ROOT}/build/launcher.py", *options, target], check=True)
    return target


class Root:
    """A folder of a node with the executable and its names, and nothing else until something is mounted.

    Args:
        node: the machine; its memory holds the folder.
        executable: the file.
        emulator: the program that runs it, a static file, too; empty: the kernel does.
    """

    def __init__(self, node: Node, executable: str, emulator: str = "") -> None:
        self.node = node
        self.inside = "/run/empty"
        self.folder = node.path(self.inside)
        self.names = (*MODULES,)
        bundle = f"{self.folder}{PLUGINS}"
        os.makedirs(f"{bundle}/cni-runtime")
        shutil.copy(executable, f"{bundle}/cni-runtime/cni")
        for name in MODULES:
            os.symlink("cni-runtime/cni", f"{bundle}/{name}")
        self._emulator = "/emulator" if emulator else ""
        if emulator:
            shutil.copy(emulator, f"{self.folder}/emulator")

    def mount(self, *paths: str) -> None:
        """Show folders of the node in their places."""
        for path in paths:
            os.makedirs(f"{self.folder}{path}", exist_ok=True)
            self.node.run(["mount", "--rbind", path, f"{self.inside}{path}"])

    def write(self, path: str, content: str) -> None:
        """Write a file."""
        os.makedirs(os.path.dirname(f"{self.folder}{path}"), exist_ok=True)
        with open(f"{self.folder}{path}", "w", encoding="utf-8") as file:
            file.write(content)

    def run(self, name: str, env: dict[str, str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        """Call a plugin, or whatever has its name, with these variables only."""
        path = f"{PLUGINS}/{name}"
        command = [self._emulator, "-0", path, path] if self._emulator else [path]
        return self.node.run(["chroot", self.inside, *command], env, stdin, check=False)

    def cni(self, verb: str, plugin: str, conf: Mapping[str, Any], *, container: str, netns: str) -> Any:
        """Call a plugin as a runtime would, demand success and silence, and return the result."""
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": netns,
            "CNI_PATH": PLUGINS,
        }
        done = self.run(plugin, env, json.dumps({"type": plugin, **conf}).encode())
        assert (done.returncode, done.stderr) == (0, b""), done
        return json.loads(done.stdout) if done.stdout else None

    def versions(self) -> dict[str, list[str]]:
        """Return the versions of the specification that each plugin knows."""
        found = {}
        for name in MODULES:
            done = self.run(name, {"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.0.0"}')
            assert (done.returncode, done.stderr) == (0, b""), done
            found[name] = json.loads(done.stdout)["supportedVersions"]
        return found


def exercise_ipam(root: Root) -> None:
    """ADD, CHECK and DEL of host-local and static, which need no namespace of a container."""
    ranges = [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]]
    conf: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "name": "net",
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    of = {"container": "c1", "netns": "/nowhere"}
    result = root.cni("ADD", "host-local", conf, **of)
    assert [ip["address"] for ip in result["ips"]] == ["10.1.0.2/16", "fd00::2/64"]
    held = f"{root.folder}/var/lib/cni/networks/net"
    with open(f"{held}/10.1.0.2", "rb") as file:
        assert file.read() == b"c1\r\neth0"
    other = root.cni("ADD", "host-local", conf, container="c2", netns="/nowhere")
    assert other["ips"][0]["address"] == "10.1.0.3/16"
    root.cni("CHECK", "host-local", {**conf, "prevResult": result}, **of)
    root.cni("DEL", "host-local", conf, **of)
    assert not os.path.exists(f"{held}/10.1.0.2")
    assert os.path.exists(f"{held}/10.1.0.3")
    addresses = [{"address": "192.0.2.77/24", "gateway": "192.0.2.1"}, {"address": "2001:db8::77/64"}]
    conf["ipam"] = {"type": "static", "addresses": addresses}
    result = root.cni("ADD", "static", conf, **of)
    assert result["ips"] == addresses
    root.cni("CHECK", "static", {**conf, "prevResult": result}, **of)
    root.cni("DEL", "static", conf, **of)
