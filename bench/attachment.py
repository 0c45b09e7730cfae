"""What a runtime does for one container: the calls of a list, in order, each with the result before it.

(CNI 1.1.0, section 3.)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.process import Call

if TYPE_CHECKING:
    from bench.process import Job

VERSION = "1.0.0"
"""The newest version of the specification that Debian's Go plugins speak."""
IFNAME = "eth0"


class Attachment:
    """One container on one network.

    Args:
        folder: where the plugins are.
        plugins: the list's plugin objects; one with `"timed": false` is called off the clock.
        number: of the container; its id, namespace, host port, device and VLAN follow from it.
    """

    def __init__(self, folder: str, plugins: list[dict[str, Any]], number: int) -> None:
        self.folder = folder
        self.plugins = plugins
        self.number = number
        self.container = f"bench-{number:04d}"
        self.netns = f"/run/netns/c{number}"
        self.port = 20000 + number
        self.result: Any = None

    def add(self) -> Job:
        """Yield the calls of ADD."""
        self.result = None
        for plugin in self.plugins:
            self.result = json.loads((yield self._call("ADD", plugin)))

    def check(self) -> Job:
        """Yield the calls of CHECK."""
        for plugin in self.plugins:
            yield self._call("CHECK", plugin)

    def delete(self) -> Job:
        """Yield the calls of DEL."""
        for plugin in reversed(self.plugins):
            yield self._call("DEL", plugin)

    def version(self) -> Job:
        """Yield one VERSION call of the list's first plugin."""
        yield self._call("VERSION", self.plugins[0])

    def _call(self, verb: str, plugin: dict[str, Any]) -> Call:
        conf = {**plugin, "cniVersion": VERSION, "name": "bench"}
        timed = conf.pop("timed", True)
        if plugin["type"] == "host-device":
            conf["device"] = f"dev{self.number}"
        if plugin["type"] == "vlan":
            conf["vlanId"] = 100 + self.number
        capabilities = conf.pop("capabilities", {})
        if capabilities.get("portMappings"):
            mapping = {"hostPort": self.port, "containerPort": 80, "protocol": "tcp"}
            conf["runtimeConfig"] = {"portMappings": [mapping]}
        if self.result is not None:
            conf["prevResult"] = self.result
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": "lo" if plugin["type"] == "loopback" else IFNAME,
            "CNI_PATH": self.folder,
        }
        return Call(f"{self.folder}/{plugin['type']}", env, json.dumps(conf).encode(), timed=timed)
