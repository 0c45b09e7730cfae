"""The kernel's notices: which are heeded, and what happens when they are lost or do not come."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from flanneld import notices, reconcile
from integration.fleet import NETWORK, wait
from integration.keeper import Keeper
from integration.pings import Pings
from integration.underlay import Underlay, address
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from integration.node import Node

CONFIG = {"Network": NETWORK, "Backend": {"Type": "vxlan"}}
DUAL = {**CONFIG, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
SMALL = 4096
ROUTES = [f"10.{100 + high}.{low}.0/24" for high in range(8) for low in range(250)]
OURS = "10.244.21.0/24"


@pytest.fixture
def unprompted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time that passes make the daemon look: only a notice does."""
    monkeypatch.setattr(reconcile, "_PERIOD", math.inf)


def storm(node: Node) -> None:
    """Add routes of somebody else's, remove one of ours, and remove theirs, as fast as it goes."""
    lines = [f"route add {route} dev lo" for route in ROUTES]
    lines += [f"route del {OURS}", *(f"route del {route} dev lo" for route in ROUTES)]
    node.run(["ip", "-batch", "-"], stdin="\n".join(lines).encode())


def test_lost_notices_are_told(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    monkeypatch.setattr(notices, "_RECEIVE_BUFFER", SMALL)

    async def scenario() -> list[notices.Notice]:
        with notices.Notices(notices.ALL) as listening:
            node.run(["ip", "-batch", "-"], stdin="\n".join(f"route add {r} dev lo" for r in ROUTES).encode())
            return await listening.gather()

    with node.entered():
        assert notices.LOST in asyncio.run(scenario())


def test_lost_notices_of_the_packet_filter_are_told(node: Node) -> None:
    rules = "".join(f"add rule ip other many ip daddr 10.9.0.{number} accept\n" for number in range(200))

    async def scenario() -> None:
        with notices.Filters(["flannel-ipv4"]) as listening:
            listening._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            node.run(
                ["nft", "-f", "-"], stdin=f"add table ip other\nadd chain ip other many\n{rules}".encode()
            )
            async with asyncio.timeout(PATIENCE):
                await listening.next()

    with node.entered():
        asyncio.run(scenario())


def test_a_storm_forces_a_full_pass(
    monkeypatch: pytest.MonkeyPatch, unprompted: None, record_property: Any
) -> None:
    monkeypatch.setattr(notices, "_RECEIVE_BUFFER", SMALL)
    with Underlay() as underlay:
        one, other = underlay.join(1, 11), underlay.join(2, 21)
        with Keeper(one, CONFIG, 11) as keeper, Keeper(other, CONFIG, 21) as far:
            keeper.know(far)
            far.know(keeper)
            before = one.run(["ip", "route"]).stdout
            with Pings(one, "10.244.21.0") as pings:
                began = time.time()
                storm(one)
                took = wait(lambda: one.run(["ip", "route"]).stdout == before)
                failed = pings.failed_since(began)
            assert keeper.metrics.reconciles.get("overrun", 0) > 0
            assert keeper.metrics.repairs["route"] == 1
    record_property("storm", f"back {took:.2f} s after it; pings failed for {failed:.2f} s")


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_a_route_that_is_led_elsewhere(family: int, unprompted: None, record_property: Any) -> None:
    """The notice names the link that it leads to now, or none: that is not one of ours."""
    subnet = OURS if family == 4 else "fd00:244:0:21::/64"
    router, near = (address(1, number, family) for number in (1, 12))
    with Underlay() as underlay:
        one, other = underlay.join(1, 11), underlay.join(2, 21)
        with Keeper(one, DUAL, 11) as keeper, Keeper(other, DUAL, 21) as far:
            keeper.know(far)
            far.know(keeper)
            show = ["ip", f"-{family}", "route"]
            before = one.run(show).stdout
            with Pings(one, subnet.partition("/")[0]) as pings:
                for words in (f"via {router}", f"nexthop via {router} nexthop via {near}", "blackhole"):
                    kind, way = (words, "") if words == "blackhole" else ("", words)
                    calm(keeper)
                    looks = keeper.metrics.reconciles.get("notice", 0)
                    began = time.time()
                    one.run([*show, "replace", *kind.split(), subnet, *way.split()])
                    took = wait(lambda: one.run(show).stdout == before)
                    failed = pings.failed_since(began)
                    record_property(words, f"back after {took:.2f} s; pings failed for {failed:.2f} s")
                    assert keeper.metrics.reconciles.get("notice", 0) > looks
                    assert "timer" not in keeper.metrics.reconciles


def calm(keeper: Keeper) -> None:
    """Wait until a keeper has nothing to do, so that only what comes next makes it look."""
    passes, since = -1, time.monotonic()
    while time.monotonic() < since + 1.2:
        if passes != (now := sum(keeper.metrics.reconciles.values())):
            passes, since = now, time.monotonic()
        time.sleep(0.05)


def test_a_full_pass_needs_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(_reconciler: reconcile.Reconciler, _notices: notices.Notices) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    assert reconcile._PERIOD == 30
    monkeypatch.setattr(reconcile, "_PERIOD", 1.0)
    monkeypatch.setattr(reconcile.Reconciler, "_next", silence)
    with Underlay() as underlay:
        one, other = underlay.join(1, 11), underlay.join(2, 21)
        with Keeper(one, CONFIG, 11) as keeper, Keeper(other, CONFIG, 21) as far:
            keeper.know(far)
            before = one.run(["ip", "route"]).stdout
            one.run(["ip", "route", "del", OURS])
            wait(lambda: one.run(["ip", "route"]).stdout == before)
            assert keeper.metrics.reconciles["timer"] > 0
            assert set(keeper.metrics.reconciles) == {"timer", "change"}
            assert keeper.metrics.repairs == {"route": 1}
