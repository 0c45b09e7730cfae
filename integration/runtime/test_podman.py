"""podman with its CNI backend: the same story with our plugins and with Go's, and the same outcome.

podman writes the lists itself (bridge, portmap, firewall, tuning; CNI 0.4.0) and asks every plugin of every
list for its VERSION at each command.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.node import PEER, Node
from integration.runtime import images

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "/run/podman"
FILES = {
    "containers.conf": """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{plugins}"]
network_config_dir = "{folder}/net.d"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
""",
    "storage.conf": """
[storage]
driver = "vfs"
runroot = "{folder}/runroot"
graphroot = "{folder}/graph"
""",
    ".config/containers/policy.json": '{{"default": [{{"type": "insecureAcceptAnything"}}]}}',
}
HOST_PORTS = {"web": 8081, "pod": 8082}
ADDRESS = "10.89.7.9"

pytestmark = [pytest.mark.peer, pytest.mark.podman]


class Podman:
    """podman on a node, with storage and settings of the node's own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        os.makedirs(node.path(f"{FOLDER}/net.d"))
        os.makedirs(node.path(f"{FOLDER}/.config/containers"))
        for name, content in FILES.items():
            with open(node.path(f"{FOLDER}/{name}"), "w", encoding="utf-8") as file:
                file.write(content.format(plugins=node.plugins, folder=FOLDER))
        images.write_archive(node.path(f"{FOLDER}/image.tar"))
        self("load", "-q", "-i", f"{FOLDER}/image.tar")

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        """Run a command, demand success, return what it printed."""
        env = {
            "CONTAINERS_CONF": f"{FOLDER}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{FOLDER}/storage.conf",
            "HOME": FOLDER,
            "TMPDIR": FOLDER,
        }
        return self.node.run(["podman", *words], env, stdin).stdout.decode().strip()

    def serve(self, name: str, *options: str) -> None:
        """Start a container whose web page is its name."""
        self("run", "-d", "--name", name, *options, images.NAME, *images.SERVE)
        self("exec", name, images.BUSYBOX, "sh", "-c", f"echo {name} >{images.PAGE}")

    def fetch(self, host: str, port: int = images.PORT, *, container: str = "") -> str:
        """Return the web page at an address, as the node or a container sees it."""
        if container:
            request = b"GET /index.html HTTP/1.0\r\n\r\n"
            command = ("exec", "-i", container, images.BUSYBOX, "nc", "-w", "60", host, str(port))
            return self(*command, stdin=request).rpartition("\n")[2]
        with self.node.entered():
            connection = http.client.HTTPConnection(host, port, timeout=60)
            connection.request("GET", "/index.html")
            page = connection.getresponse().read().decode().strip()
            connection.close()
        return page

    def networks(self, container: str) -> dict[str, Any]:
        """Return what podman says of a container's networks, without what differs from run to run."""
        told = json.loads(self("inspect", container, "--format", "{{json .NetworkSettings.Networks}}"))
        differs = ("MacAddress", "Aliases", "EndpointID")
        return {
            name: {key: value for key, value in each.items() if key not in differs}
            for name, each in told.items()
        }


def story(podman: Podman) -> list[Any]:
    """Run containers, a pod and reloads; return what was seen on the way."""
    for name, subnet in (("one", "10.89.7.0/24"), ("two", "10.89.8.0/24")):
        podman("network", "create", "--subnet", subnet, name)
    podman.serve("web", "--network", "one", "--ip", ADDRESS, "-p", f"{HOST_PORTS['web']}:{images.PORT}")
    podman.serve("both", "--network", "one", "--network", "two")
    infra = ("--infra-image", images.NAME, "--infra-command", " ".join(images.SLEEP))
    podman(
        "pod",
        "create",
        "--name",
        "group",
        "--network",
        "two",
        *infra,
        "-p",
        f"{HOST_PORTS['pod']}:{images.PORT}",
    )
    podman.serve("pod", "--pod", "group")
    podman("run", "-d", "--name", "beside", "--pod", "group", images.NAME)
    seen: list[Any] = [podman.networks(name) for name in ("web", "both")]
    seen.append(podman.fetch("127.0.0.1", container="beside"))
    for reload in (False, True):
        if reload:
            podman("network", "reload", "--all")
        seen += [podman.fetch("127.0.0.1", port) for port in HOST_PORTS.values()]
        seen.append(podman.fetch(ADDRESS, container="both"))
        seen.append(podman.networks("both"))
    podman("network", "connect", "two", "web")
    seen.append(podman.networks("web"))
    seen.append(podman.fetch(podman.networks("web")["two"]["IPAddress"], container="beside"))
    podman("network", "disconnect", "two", "web")
    seen.append(podman.networks("web"))
    seen.append(podman.fetch("127.0.0.1", HOST_PORTS["web"]))
    podman("pod", "rm", "-f", "-t", "0", "group")
    podman("rm", "-f", "-t", "0", "web", "both")
    podman("network", "rm", "one", "two")
    return seen


@pytest.fixture
def sides(suite_bin: str) -> Iterator[list[Node]]:
    """Two nodes: with our plugins and with Go's."""
    with Node(suite_bin) as ours, Node(PEER) as theirs:
        yield [ours, theirs]


def test_the_same_story_has_the_same_outcome(sides: list[Node]) -> None:
    seen = [story(Podman(node)) for node in sides]
    assert seen[0] == seen[1]
    pages = [each for each in seen[0] if isinstance(each, str)]
    assert pages == ["pod", "web", "pod", "web", "web", "pod", "web", "web", "web"]
    assert seen[0][0]["one"]["IPAddress"] == ADDRESS
    for node in sides:
        assert set(node.links()) == {"lo"}
        assert "10.89." not in node.ruleset()
        for name in ("one", "two"):
            held = os.listdir(node.path(f"/var/lib/cni/networks/{name}"))
            assert not [each for each in held if each.startswith("10.")]
