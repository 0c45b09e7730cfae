"""What the daemon sees of its uplink without being told."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from typing import Any, cast

import pytest

from flanneld import daemon, iface
from flanneld.metrics import Metrics
from flanneld.netconf import NetworkConfig
from flanneld.options import Options
from integration.node import Node

pytestmark = pytest.mark.root


def test_a_route_on_the_uplink_is_seen_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It decides who is reached without a tunnel, and the kernel's notices of links do not tell of it."""
    monkeypatch.setattr(daemon, "_UPLINK", 0.1)
    there = IPv4Network("198.18.9.0/24")

    async def scenario(node: Node) -> None:
        options, nothing = Options(iface=["uplink"]), cast("Any", None)
        made = daemon.Daemon(options, nothing, Metrics(), nothing, nothing, nothing)
        made._config = NetworkConfig.parse('{"Network": "10.5.0.0/16"}')
        made._choice = iface.choose(options, (4,))
        made._uplink = iface.look(made._choice, (4,))
        watching = asyncio.create_task(made._watch_uplink())
        await asyncio.sleep(0.5)
        assert not made._changed.is_set()
        node.run(["ip", "route", "add", str(there), "dev", "uplink"])
        async with asyncio.timeout(5):
            await made._changed.wait()
        assert there in made._uplink.on_link
        watching.cancel()

    with Node() as node:
        node.run(["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "other"])
        node.run(["ip", "address", "add", "198.18.1.11/24", "dev", "uplink"])
        for name in ("other", "uplink"):
            node.run(["ip", "link", "set", name, "up"])
        with node.entered():
            asyncio.run(scenario(node))
