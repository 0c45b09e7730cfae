"""The watch of nodes, at an apiserver that ends every watch at once or has forgotten every version."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import count, pairwise
from typing import TYPE_CHECKING

from flanneld.kube import manager
from flanneld.kube.client import Client
from flanneld.kube.manager import KubeManager
from flanneld.options import Options
from integration.watched import watching
from tests.apiserver import JSON, answer, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

LIST = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": []}
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "code": 410}


async def asked(
    said: str, ready: Callable[[list[str]], bool], clock: Callable[[], float]
) -> tuple[list[str], list[float]]:
    """Watch an apiserver that answers each watch with this and ends it, until enough was asked.

    Returns:
        What it was asked for, and the seconds from each question to the next.
    """
    found: list[str] = []
    times: list[float] = []

    def reply(head: str) -> bytes:
        found.append("watch" if "watch=true" in head.partition("\r\n")[0] else "list")
        times.append(time.monotonic())
        return answer(said if found[-1] == "watch" else json.dumps(LIST), "200 OK", JSON)

    async with serving(reply) as port:
        options = Options(kube_api_url=f"http://127.0.0.1:{port}")
        made = KubeManager(Client(options), options, clock)
        async with watching(made) as watched:
            await watched.until(lambda: ready(found))
        await made.close()
    return found, [after - before for before, after in pairwise(times)]


def stopped() -> float:
    """The time of a clock that stands still."""
    return 0.0


def test_a_watch_that_ends_at_once_is_asked_for_again_in_time() -> None:
    found, gaps = asyncio.run(asked("", lambda found: len(found) >= 5, stopped))
    assert found[:5] == ["list", "watch", "watch", "watch", "watch"]
    assert_pauses(gaps[1:4])


def test_a_version_that_is_forgotten_again_and_again_is_no_storm_of_lists() -> None:
    said = json.dumps({"type": "ERROR", "object": GONE}) + "\n"
    found, gaps = asyncio.run(asked(said, lambda found: len(found) >= 8, stopped))
    assert found[:8] == ["list", "watch"] * 4
    assert_pauses(gaps[1:7:2])


def assert_pauses(gaps: list[float]) -> None:
    """Pauses double, each shortened by two fifths at most; a busy machine only makes them longer."""
    for number, gap in enumerate(gaps):
        assert gap >= 0.6 * 0.25 * 2**number, gaps


def test_all_nodes_are_listed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "_RESYNC", 0.0)
    ticks = count()
    asyncio.run(asked("", lambda found: found.count("list") > 1, lambda: float(next(ticks))))
