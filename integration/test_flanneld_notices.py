"""The kernel's notices are lost in a storm of them: everything is looked at, and nothing stays broken."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from flanneld import notices
from integration.fleet import NETWORK, wait
from integration.keeper import Keeper
from integration.pings import Pings
from integration.underlay import Underlay

if TYPE_CHECKING:
    import pytest

    from integration.node import Node

CONFIG = {"Network": NETWORK, "Backend": {"Type": "vxlan"}}
SMALL = 4096
ROUTES = [f"10.{100 + high}.{low}.0/24" for high in range(8) for low in range(250)]
OURS = "10.244.21.0/24"


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


def test_a_storm_forces_a_full_pass(monkeypatch: pytest.MonkeyPatch, record_property: Any) -> None:
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
                took = wait(lambda: one.run(["ip", "route"]).stdout == before, 5)
                failed = pings.failed_since(began)
            assert keeper.metrics.reconciles.get("overrun", 0) > 0
            assert keeper.metrics.repairs["route"] == 1
    record_property("storm", f"back {took:.2f} s after it; pings failed for {failed:.2f} s")
