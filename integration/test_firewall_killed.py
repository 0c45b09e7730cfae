"""firewall killed anywhere: the next DEL, or GC, leaves nothing of the pod."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins import multicall
from cni_plugins.spec import skel
from integration.checks import dual_stack, files, pods
from integration.firewalls import conf, elements, iptables
from integration.killing import killed

if TYPE_CHECKING:
    from integration.node import Node

FIREWALL = multicall.lookup("firewall")
CALLS = frozenset(("flock", "mkdir", "open", "posix_spawn", "rename", "send", "unlink", "waitpid"))
"""What changes something, or starts to."""


def serve(verb: str, given: dict[str, Any]) -> None:
    env = {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/",
        "CNI_NETNS": "/run/netns/c1",
    }  # fmt: skip
    skel.serve(FIREWALL, env, json.loads(json.dumps(given)))


def left(node: Node) -> list[str]:
    rules = [line for line in iptables(node) if line.startswith("-A CNI-FORWARD -")]
    return [
        *[line for line in rules if "CNI-ADMIN" not in line],
        *[elements(node, name) for name in ("pods4", "pods6") if elements(node, name)],
        *[path for path in files(node) if "/firewall" in path],
    ]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize(("verb", "cleaner"), [("ADD", "DEL"), ("ADD", "GC"), ("DEL", "DEL"), ("DEL", "GC")])
def test_killed_anywhere(node: Node, backend: str, verb: str, cleaner: str) -> None:
    (result,) = pods(node, dual_stack(), "c1")
    given = conf(result, backend=backend)
    step = 1 if backend == "nftables" else 3
    for number in range(1, 200, step):
        if verb == "DEL":
            node.add("firewall", given, netns="c1")
        reached = killed(node, number, CALLS, partial(serve, verb, given))
        if cleaner == "DEL":
            node.delete("firewall", conf())  # the namespace, the result and the backend are forgotten
        else:
            keep = conf(**{"cni.dev/valid-attachments": []})
            assert node.cni("GC", "firewall", keep) == (0, None)
        assert left(node) == [], number
        if not reached:
            break
    assert number > step * 5
