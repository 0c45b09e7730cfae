"""What bandwidth's CHECK finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.bandwidths import IFB, LIMITS, bandwidth
from integration.checks import check, port_of

if TYPE_CHECKING:
    from integration.node import Node


BREAKS: dict[str, tuple[list[str], str]] = {
    "no ifb": (["ip", "link", "delete", IFB], "is gone"),
    "ifb down": (["ip", "link", "set", IFB, "down"], "is down"),
    "no limit": (["tc", "qdisc", "del", "dev", "PORT", "root"], "token bucket"),
    "no limit on the ifb": (["tc", "qdisc", "del", "dev", IFB, "root"], "token bucket"),
    "no ingress": (["tc", "qdisc", "del", "dev", "PORT", "ingress"], "ingress qdisc"),
    "no filter": (["tc", "filter", "del", "dev", "PORT", "ingress"], "redirected"),
    "another rate": (
        f"tc qdisc change dev {'PORT'} root handle 1: tbf rate 9mbit burst 250000 latency 25ms".split(),
        "the limit",
    ),
    "another burst": (
        f"tc qdisc change dev {IFB} root handle 1: tbf rate 20mbit burst 300000 latency 25ms".split(),
        "the limit",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_check_finds_what_is_broken(node: Node, pod: Any, name: str) -> None:
    conf = bandwidth(pod, **LIMITS)
    result = node.add("bandwidth", conf, netns="c1")
    command, said = BREAKS[name]
    node.run([port_of(pod) if word == "PORT" else word for word in command])
    assert said in check(node, "bandwidth", conf, result)


def test_check_finds_a_filter_that_leads_elsewhere(node: Node, pod: Any) -> None:
    conf = bandwidth(pod, **LIMITS)
    result = node.add("bandwidth", conf, netns="c1")
    port = port_of(pod)
    for match in ("u32 match u32 0 0", "u32 match ip dst 192.0.2.0/24"):
        node.run(["tc", "filter", "del", "dev", port, "ingress"])
        target = "br0" if match.endswith("0 0") else IFB
        redirect = f"{match} action mirred egress redirect dev {target}".split()
        node.run(["tc", "filter", "add", "dev", port, "ingress", *redirect])
        assert "redirected" in check(node, "bandwidth", conf, result)
