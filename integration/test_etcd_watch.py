"""What the watch of leases in a real etcd lives through."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flanneld.etcd import client
from flanneld.lease import Added, Removed, Snapshot
from integration.etcd import CONFIG, SUBNETS, Etcd
from integration.leases import lease, manager
from integration.watched import watching

pytestmark = pytest.mark.root


def test_the_watch_survives_a_crash_and_a_compaction(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with manager(etcd) as made, watching(made) as watched:
            await lease(etcd, 1)
            await watched.count(1)
            await lease(etcd, 2)
            await watched.count(2)
            assert sum(isinstance(event, Snapshot) for event in watched.events) == 1
            assert sum(isinstance(event, Added) for event in watched.events) >= 1
            etcd.put(SUBNETS + "rubbish", "{")
            etcd.put(SUBNETS + "10.5.200.0-24", "{")
            etcd.put(SUBNETS + "10.5.201.0-24", '{"BackendData":' + "[" * 100_000)
            etcd.ctl("del", SUBNETS + (await lease(etcd, 1)).replace("/", "-"))
            await watched.count(1)
            assert isinstance(watched.events[-1], Removed)
            etcd.stop()
            await watched.until(lambda: watched.metrics.errors.get("manager", 0) > 0)
            etcd.start()
            for number in (3, 4):
                await lease(etcd, number)
            revision = json.loads(etcd.ctl("get", CONFIG, "-w", "json").stdout)["header"]["revision"]
            etcd.ctl("compact", str(revision))
            await watched.count(3)
            assert watched.metrics.errors["manager"] >= 1

    asyncio.run(scenario())


def test_the_watch_survives_another_connection(etcd: Etcd) -> None:
    """As a failed renewal and a new address of ours make one."""

    async def scenario() -> None:
        async with manager(etcd) as made, watching(made) as watched:
            await lease(etcd, 1)
            await watched.count(1)
            await made.reconnect()
            await lease(etcd, 2)
            await watched.count(2)
            assert sum(isinstance(event, Snapshot) for event in watched.events) == 1

    asyncio.run(scenario())


def test_a_server_that_says_nothing_is_left(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a cable that is cut: no answer, and no refusal."""
    monkeypatch.setattr(client, "_ASK", 0.1)
    monkeypatch.setattr(client, "_SILENCE", 3.0)
    monkeypatch.setattr(client, "_TIMEOUT", 3.0)

    async def scenario() -> None:
        async with manager(etcd) as made, watching(made) as watched:
            await lease(etcd, 1)
            await watched.count(1)
            for _answer in range(5):  # it answers, though there are no changes
                heard = watched.metrics.last_event
                await watched.until(lambda heard=heard: watched.metrics.last_event > heard)  # type: ignore[misc]
            assert not watched.metrics.errors
            etcd.pause()
            try:
                await watched.until(lambda: watched.metrics.errors.get("manager", 0) > 1)
            finally:
                etcd.resume()
            await lease(etcd, 2)
            await watched.count(2)
            assert sum(isinstance(event, Snapshot) for event in watched.events) == 1

    asyncio.run(scenario())


def test_a_watch_from_before_a_compaction_starts_anew(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with manager(etcd) as made:
            made._list = old_list(made._list)  # type: ignore[method-assign]
            async with watching(made) as watched:
                await watched.count(1)
                await watched.until(lambda: sum(isinstance(event, Snapshot) for event in watched.events) == 2)

    def old_list(whole: Any) -> Any:
        """Return a list that is older than the compaction, once."""

        async def listed() -> Any:
            held, revision = await whole()
            made_old = not seen
            seen.append(True)
            return held, 1 if made_old else revision

        seen: list[bool] = []
        return listed

    asyncio.run(lease(etcd, 1))
    revision = json.loads(etcd.ctl("get", CONFIG, "-w", "json").stdout)["header"]["revision"]
    etcd.ctl("compact", str(revision))
    asyncio.run(scenario())
