"""firewall killed anywhere: the next DEL, or GC, leaves nothing of the pod."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import dual_stack, files, pods
from integration.firewalls import conf, elements, iptables

if TYPE_CHECKING:
    from types import FrameType

    from integration.node import Node

CALLS = frozenset(("flock", "mkdir", "open", "posix_spawn", "rename", "send", "unlink", "waitpid"))
"""What changes something, or starts to."""


def killed(node: Node, number: int, verb: str, given: dict[str, Any]) -> bool:
    """Serve a call in a child that kills itself before its n-th such call; tell whether it got that far."""
    pid = os.fork()
    if pid == 0:
        from cni_plugins import multicall
        from cni_plugins.spec import skel

        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/",
            "CNI_NETNS": "/run/netns/c1",
        }  # fmt: skip
        seen = 0

        def count(_frame: FrameType, event: str, function: Any) -> None:
            nonlocal seen
            if event == "c_call" and function.__name__ in CALLS:
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        with node.entered():
            plugin = multicall.lookup("firewall")
            sys.setprofile(count)
            skel.serve(plugin, env, json.loads(json.dumps(given)))
            sys.setprofile(None)
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


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
        reached = killed(node, number, verb, given)
        if cleaner == "DEL":
            node.delete("firewall", conf())  # the namespace, the result and the backend are forgotten
        else:
            keep = conf(**{"cni.dev/valid-attachments": []})
            assert node.cni("GC", "firewall", keep) == (0, None)
        assert left(node) == [], number
        if not reached:
            break
    assert number > step * 5
