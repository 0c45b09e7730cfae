"""cnictl on a real kernel: the sample list, with our plugins and with the Go ones."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from integration import suite

if TYPE_CHECKING:
    import subprocess

    from integration.node import Node

ENV = {"NETCONFPATH": os.path.join(suite.ROOT, "conflist/examples"), "PYTHONPATH": suite.ROOT}
PORTS = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})


def cnictl(node: Node, verb: str, plugins: str = "") -> subprocess.CompletedProcess[bytes]:
    env = {**ENV, "CNI_PATH": plugins or node.plugins, "CAP_ARGS": PORTS}
    command = [sys.executable, "-m", "conflist", verb, "pods", "/run/netns/c1"]
    return node.run(command, env, check=False)


def attach(node: Node, plugins: str = "") -> None:
    done = cnictl(node, "add", plugins)
    assert (done.returncode, done.stderr) == (0, b""), done
    result = json.loads(done.stdout)
    (address,) = [ip["address"] for ip in result["ips"]]
    assert address.startswith("10.85.0.")
    assert address in node.exec("c1", "ip", "-o", "address", "show", "eth0")
    (name,) = os.listdir(node.path("/var/lib/cni/results"))
    with open(node.path(f"/var/lib/cni/results/{name}"), encoding="utf-8") as file:
        assert json.load(file)["result"] == result


def detach(node: Node, plugins: str = "") -> None:
    for _repeated in range(2):
        done = cnictl(node, "del", plugins)
        assert (done.returncode, done.stderr) == (0, b""), done
    assert not os.listdir(node.path("/var/lib/cni/results"))
    assert "eth0" not in node.links("c1")


def test_our_plugins(node: Node) -> None:
    node.netns("c1")
    attach(node)
    done = cnictl(node, "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), done
    node.exec("c1", "ip", "route", "del", "default")
    done = cnictl(node, "check")
    assert done.returncode == 1
    assert b"plugin bridge (1 of 2) failed on CHECK" in done.stderr
    detach(node)


@pytest.mark.peer
def test_go_plugins_and_a_change_to_ours(peer_node: Node, suite_bin: str) -> None:
    peer_node.netns("c1")
    attach(peer_node)
    detach(peer_node)
    attach(peer_node)
    detach(peer_node, suite_bin)
