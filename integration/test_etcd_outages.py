"""Leases in a real etcd that run out, are lost, or are written anew while they are renewed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flanneld.etcd import client, lapsed
from flanneld.lease import Added, Removed
from flanneld.manager import LeaseLostError
from integration.etcd import CONFIG, DUAL, NETWORK, SUBNETS, Etcd
from integration.leases import NONE, attrs, manager, revoke, revoke_all
from integration.waiting import PATIENCE
from integration.watched import watching

pytestmark = pytest.mark.root

TTL = 2
"""Seconds: etcd lets no lease live shorter."""


@pytest.mark.parametrize("loss", ["deleted", "taken", "revoked and taken"])
def test_a_lost_lease_ends_the_daemon(etcd: Etcd, loss: str) -> None:
    async def scenario() -> None:
        async with manager(etcd) as made:
            taken = await made.acquire(await made.network_config(), attrs(1), NONE)
            key = SUBNETS + str(taken).replace("/", "-")
            if loss == "revoked and taken":
                revoke(etcd, taken)
            async with watching(made) as watched:
                if loss != "revoked and taken":
                    await watched.count(1)
                keeping = asyncio.create_task(made.keep(taken))
                if loss == "deleted":
                    etcd.ctl("del", key)
                else:
                    etcd.put(key, '{"PublicIP": "192.0.2.66"}')
                said = "somebody deleted" if loss == "deleted" else "leased by 192.0.2.66"
                with pytest.raises(LeaseLostError, match=f"{said}.*{taken}|{taken}.*{said}"):
                    async with asyncio.timeout(PATIENCE):
                        await keeping

    asyncio.run(scenario())


@pytest.mark.parametrize(("config", "family"), [(NETWORK, 4), (DUAL, 6)], ids=["IPv4", "dual-stack"])
def test_a_lease_that_ran_out_is_leased_again(etcd: Etcd, config: str, family: int) -> None:
    etcd.put(CONFIG, config)

    async def scenario() -> None:
        async with manager(etcd) as made, watching(made) as watched:
            taken = await made.acquire(await made.network_config(), attrs(1, family), NONE)
            keeping = asyncio.create_task(made.keep(taken))
            await watched.count(1)
            for _time in range(2):
                before = etcd.leases()
                revoke_all(etcd)
                await watched.until(lambda before=before: etcd.leases() == before)  # type: ignore[misc]
            assert not any(isinstance(event, Removed) for event in watched.events)
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(scenario())


def test_an_outage_longer_than_the_leases(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lease runs out while etcd hangs: who lives leases its subnet again, and nobody's paths go before.

    Of a node that is dead, they go a while later.
    """
    monkeypatch.setattr(client, "_ASK", 0.2)
    monkeypatch.setattr(client, "_SILENCE", 3.0)
    monkeypatch.setattr(client, "_TIMEOUT", 3.0)
    now = 0.0

    def clock() -> float:
        return now

    async def scenario() -> None:
        nonlocal now
        async with (
            manager(etcd, margin=1, ttl=TTL, clock=clock) as one,
            manager(etcd, margin=1, ttl=TTL, clock=clock) as two,
            manager(etcd, ttl=TTL) as dead,
            watching(one) as watched,
            watching(two) as seen_by_two,
        ):
            config = await one.network_config()
            taken = [
                await made.acquire(config, attrs(number), NONE)
                for number, made in enumerate((one, two, dead), 1)
            ]
            await watched.count(3)
            await seen_by_two.count(3)
            keeping = [
                asyncio.create_task(made.keep(lease)) for made, lease in zip((one, two), taken, strict=False)
            ]
            etcd.pause()
            heard = {seen: len(seen.events) for seen in (watched, seen_by_two)}
            try:
                for seen in (watched, seen_by_two):
                    await seen.until(lambda seen=seen: seen.metrics.errors.get("manager", 0) > 0)  # type: ignore[misc]
                await asyncio.sleep(TTL)  # etcd's clock, which no test moves
            finally:
                etcd.resume()
            alive = {str(lease).replace("/", "-") for lease in taken[:2]}
            await watched.until(lambda: set(etcd.leases()) == alive)
            for seen in (watched, seen_by_two):
                await seen.until(
                    lambda seen=seen: all(Added(lease) in seen.events[heard[seen] :] for lease in taken[:2])  # type: ignore[misc]
                )
                assert not any(isinstance(event, Removed) for event in seen.events)
            now = lapsed.GRACE + 1
            for seen in (watched, seen_by_two):
                await seen.until(lambda seen=seen: seen.leases.find(taken[2].key) is None)  # type: ignore[misc]
                assert len(seen.leases) == 2
                assert [event for event in seen.events if isinstance(event, Removed)] == [
                    Removed(taken[2].key)
                ]
            assert not any(task.done() for task in keeping)
            assert set(etcd.leases()) == alive
            for task in keeping:
                task.cancel()

    asyncio.run(scenario())


def test_a_renewal_while_the_lease_is_written_anew(etcd: Etcd) -> None:
    """`acquire` has revoked the old etcd lease, and not returned yet: just then `keep` renews."""

    async def scenario() -> None:
        async with manager(etcd, margin=1.9, ttl=2) as made, watching(made) as watched:
            config = await made.network_config()
            taken = await made.acquire(config, attrs(1), NONE)
            keeping = asyncio.create_task(made.keep(taken))
            await watched.count(1)
            call, renew = made._client.call, made._client.renew
            asks, revoked = asyncio.Event(), asyncio.Event()
            answered: list[int] = []

            async def held_up(service: str, method: str, request: Any) -> Any:
                answer = await call(service, method, request)
                if method == "LeaseRevoke":
                    revoked.set()
                    await watched.until(lambda: bool(answered))
                return answer

            async def after_that(lease: int) -> int:
                asks.set()
                await revoked.wait()
                answered.append(await renew(lease))
                return answered[-1]

            made._client.renew = after_that  # type: ignore[method-assign]
            await watched.until(asks.is_set)  # with the old etcd lease, and the question arrives late
            made._client.call = held_up  # type: ignore[method-assign]
            again = await made.acquire(config, attrs(2), taken.key)
            await watched.until(lambda: len(answered) > 2)
            assert answered[0] == 0
            assert all(answered[1:])
            assert again.key == taken.key
            assert not keeping.done()
            assert "192.0.2.2" in etcd.leases()[str(taken).replace("/", "-")]
            keeping.cancel()

    asyncio.run(scenario())


def test_an_address_that_another_lease_has_does_not_change_our_subnet(etcd: Etcd) -> None:
    """Pods that run cannot follow: the lease of whoever had the address before us is left alone."""
    etcd.put(SUBNETS + "10.5.200.0-24", '{"PublicIP": "192.0.2.2", "BackendType": "vxlan"}')

    async def scenario() -> None:
        async with manager(etcd) as made:
            config = await made.network_config()
            taken = await made.acquire(config, attrs(1), NONE)
            assert (await made.acquire(config, attrs(2), taken.key)).key == taken.key
            etcd.put(SUBNETS + str(taken).replace("/", "-"), '{"PublicIP": "192.0.2.66"}')
            with pytest.raises(LeaseLostError, match=f"{taken} is not ours any more"):
                await made.acquire(config, attrs(3), taken.key)

    asyncio.run(scenario())
