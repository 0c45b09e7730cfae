"""Leases in a real etcd: taken, renewed, watched, lost."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.etcd import client, lapsed
from flanneld.etcd.client import Access, Client, RefusedError
from flanneld.etcd.manager import EtcdManager
from flanneld.lease import Added, Lease, LeaseAttrs, Removed, Snapshot, encode_data
from flanneld.manager import LeaseLostError, ManagerError
from flanneld.uplink import Uplink
from integration.etcd import CONFIG, SUBNETS, Etcd
from integration.node import Node
from integration.watched import watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from flanneld.lease import Key

pytestmark = pytest.mark.root

PREFIX = "/coreos.com/network"
NETWORK = '{"Network": "10.5.0.0/16", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}'
DUAL = NETWORK.replace('"SubnetLen": 24', '"EnableIPv6": true, "IPv6Network": "fd00:5::/48"')
NONE: Key = (None, None)


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    with Node() as node, Etcd(node) as etcd:
        yield etcd


@pytest.fixture
def etcd(server: Etcd) -> Etcd:
    server.ctl("del", "--prefix", "/")
    server.put(CONFIG, NETWORK)
    return server


def attrs(number: int, family: int = 4) -> LeaseAttrs:
    data = encode_data({"VNI": 1, "VtepMAC": f"aa:bb:cc:00:00:{number:02x}"})
    public_ip = IPv4Address(f"192.0.2.{number}")
    if family == 4:
        return LeaseAttrs(public_ip, None, "vxlan", data)
    return LeaseAttrs(public_ip, IPv6Address(f"2001:db8::{number}"), "vxlan", data, data)


@asynccontextmanager
async def manager(etcd: Etcd, margin: float = 3600, ttl: int = 86400) -> AsyncIterator[EtcdManager]:
    made = EtcdManager(Client(Access((etcd.outside,))), PREFIX, margin, ttl)
    try:
        yield made
    finally:
        await made.close()


async def lease(etcd: Etcd, number: int, previous: Key = NONE, family: int = 4) -> str:
    async with manager(etcd) as made:
        config = await made.network_config()
        return str(await made.acquire(config, attrs(number, family), previous))


def test_the_key_and_value_are_the_references(etcd: Etcd) -> None:
    subnet = asyncio.run(lease(etcd, 3, (IPv4Network("10.5.34.0/24"), None)))
    assert subnet == "10.5.34.0/24"
    assert etcd.get(SUBNETS) == {
        "/coreos.com/network/subnets/10.5.34.0-24": '{"PublicIP":"192.0.2.3","PublicIPv6":null,'
        '"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:00:00:03"}}'
    }
    assert 86390 <= etcd.ttl("10.5.34.0-24")["ttl"] <= 86400


def test_both_families_share_a_key(etcd: Etcd) -> None:
    etcd.put(CONFIG, DUAL)
    previous = IPv4Network("10.5.34.0/24"), IPv6Network("fd00:5:0:22::/64")
    assert asyncio.run(lease(etcd, 3, previous, 6)) == "10.5.34.0/24,fd00:5:0:22::/64"
    (name, value), *rest = etcd.leases().items()
    assert (name, rest) == ("10.5.34.0-24&fd00:5:0:22::-64", [])
    assert json.loads(value) == {
        "PublicIP": "192.0.2.3",
        "PublicIPv6": "2001:db8::3",
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "aa:bb:cc:00:00:03"},
        "BackendV6Data": {"VNI": 1, "VtepMAC": "aa:bb:cc:00:00:03"},
    }


def test_a_node_gets_its_subnet_again(etcd: Etcd) -> None:
    async def scenario() -> None:
        first = await lease(etcd, 1)
        assert await lease(etcd, 1, (IPv4Network("10.5.77.0/24"), None)) == first  # by its address
        etcd.ctl("del", "--prefix", SUBNETS)
        assert await lease(etcd, 1, (IPv4Network("10.5.77.0/24"), None)) == "10.5.77.0/24"  # by subnet.env
        assert await lease(etcd, 2, (IPv4Network("10.5.77.0/24"), None)) != "10.5.77.0/24"  # taken meanwhile
        assert await lease(etcd, 3, (IPv4Network("10.9.1.0/24"), None)) != "10.9.1.0/24"  # another network's
        async with manager(etcd) as made:
            uplink = Uplink(1, "eth0", 1500, None, None, IPv4Address("192.0.2.1"), None)
            assert await made.published(uplink) == attrs(1)

    asyncio.run(scenario())
    assert len(etcd.leases()) == 3


def test_a_lease_outside_a_new_network_is_given_back(etcd: Etcd) -> None:
    first = asyncio.run(lease(etcd, 1))
    etcd.put(CONFIG, NETWORK.replace("10.5.", "10.6."))
    second = asyncio.run(lease(etcd, 1))
    assert first.startswith("10.5.")
    assert second.startswith("10.6.")
    assert list(etcd.leases()) == [second.replace("/", "-")]


def test_a_node_whose_address_changes_keeps_its_subnet(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with manager(etcd) as made, watching(made) as watched:
            config = await made.network_config()
            first = await made.acquire(config, attrs(1), NONE)
            keeping = asyncio.create_task(made.keep(first))
            await watched.count(1)
            second = await made.acquire(config, attrs(2), first.key)
            assert second.key == first.key
            await asyncio.sleep(0.2)
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(scenario())
    assert "192.0.2.2" in etcd.leases().popitem()[1]


def test_a_reservation_stays_one(etcd: Etcd) -> None:
    etcd.put(SUBNETS + "10.5.9.0-24", '{"PublicIP": "192.0.2.9"}')

    async def scenario() -> None:
        async with manager(etcd) as made:
            taken = await made.acquire(await made.network_config(), attrs(9), NONE)
            assert (str(taken), taken.expiration) == ("10.5.9.0/24", None)
            keeping = asyncio.create_task(made.keep(taken))
            await asyncio.sleep(0.05)
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(scenario())
    assert etcd.ttl("10.5.9.0-24") == {"id": 0}
    assert "vxlan" in etcd.leases()["10.5.9.0-24"]


@pytest.mark.parametrize(("config", "family"), [(NETWORK, 4), (DUAL, 6)], ids=["IPv4", "dual-stack"])
def test_nodes_that_start_together_never_share(etcd: Etcd, config: str, family: int) -> None:
    small = config.replace("/16", "/26").replace('"SubnetLen": 24, ', "").replace("/48", "/60")
    etcd.put(CONFIG, small)

    async def scenario() -> list[str]:
        return await asyncio.gather(*(lease(etcd, number, family=family) for number in range(1, 4)))

    taken = asyncio.run(scenario())
    parts = [part for subnets in taken for part in subnets.split(",")]
    assert len(set(parts)) == len(parts) == (3 if family == 4 else 6)
    with pytest.raises(ManagerError, match="are leased"):
        asyncio.run(lease(etcd, 4, family=family))


def test_a_lease_is_renewed_in_time_and_writes_nothing(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with manager(etcd, margin=1, ttl=2) as made:
            taken = await made.acquire(await made.network_config(), attrs(1), NONE)
            before = json.loads(etcd.ctl("get", SUBNETS, "--prefix", "-w", "json").stdout)
            keeping = asyncio.create_task(made.keep(taken))
            await asyncio.sleep(3.5)
            after = json.loads(etcd.ctl("get", SUBNETS, "--prefix", "-w", "json").stdout)
            assert not keeping.done()
            assert after["kvs"] == before["kvs"]
            assert taken.expiration is not None
            assert taken.expiration < datetime.now(UTC)
            keeping.cancel()

    asyncio.run(scenario())


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
            await asyncio.sleep(0.3)
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
    monkeypatch.setattr(client, "_SILENCE", 0.5)
    monkeypatch.setattr(client, "_TIMEOUT", 1.0)

    async def scenario() -> None:
        async with manager(etcd) as made, watching(made) as watched:
            await lease(etcd, 1)
            await watched.count(1)
            await asyncio.sleep(1)
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
                async with asyncio.timeout(10):
                    while sum(isinstance(event, Snapshot) for event in watched.events) < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)

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
                    async with asyncio.timeout(10):
                        await keeping

    asyncio.run(scenario())


def revoke(etcd: Etcd, lease: Lease) -> None:
    """Do what etcd does to a lease that has run out."""
    etcd.ctl("lease", "revoke", f"{etcd.ttl(str(lease).replace('/', '-'))['id']:x}")


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


def revoke_all(etcd: Etcd) -> None:
    for name in etcd.leases():
        etcd.ctl("lease", "revoke", f"{etcd.ttl(name)['id']:x}")


def test_an_outage_longer_than_the_leases(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lease runs out while etcd hangs: who lives leases its subnet again, and nobody's paths go before.

    Of a node that is dead, they go a while later.
    """
    monkeypatch.setattr(client, "_ASK", 0.2)
    monkeypatch.setattr(client, "_SILENCE", 1.0)
    monkeypatch.setattr(client, "_TIMEOUT", 1.0)
    monkeypatch.setattr(lapsed, "GRACE", 6.0)

    async def scenario() -> None:
        async with (
            manager(etcd, margin=1, ttl=2) as one,
            manager(etcd, margin=1, ttl=2) as two,
            manager(etcd, ttl=2) as dead,
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
                await asyncio.sleep(4)
            finally:
                etcd.resume()
            resumed = time.monotonic()
            for seen in (watched, seen_by_two):
                await seen.until(
                    lambda seen=seen: all(Added(lease) in seen.events[heard[seen] :] for lease in taken[:2])  # type: ignore[misc]
                )
            for seen in (watched, seen_by_two):
                await seen.until(lambda seen=seen: seen.leases.find(taken[2].key) is None)  # type: ignore[misc]
                assert len(seen.leases) == 2
                assert [event for event in seen.events if isinstance(event, Removed)] == [
                    Removed(taken[2].key)
                ]
            assert time.monotonic() > resumed + 5
            assert not any(task.done() for task in keeping)
            assert set(etcd.leases()) == {str(lease).replace("/", "-") for lease in taken[:2]}
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
            revoked = asyncio.Event()
            answered: list[int] = []

            async def held_up(service: str, method: str, request: Any) -> Any:
                answer = await call(service, method, request)
                if method == "LeaseRevoke":
                    revoked.set()
                    await watched.until(lambda: bool(answered))
                return answer

            async def after_that(lease: int) -> int:
                await revoked.wait()
                answered.append(await renew(lease))
                return answered[-1]

            made._client.renew = after_that  # type: ignore[method-assign]
            await asyncio.sleep(0.2)  # `keep` asks, with the old etcd lease, and its question arrives late
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


def test_no_configuration_and_no_server(etcd: Etcd) -> None:
    etcd.ctl("del", CONFIG)

    async def scenario() -> None:
        async with manager(etcd) as made:
            with pytest.raises(ManagerError, match=r"has no key /coreos\.com/network/config"):
                await made.network_config()
        nobody = EtcdManager(Client(Access(("unix:///nobody", etcd.outside))), PREFIX, 3600)
        try:
            with pytest.raises(ManagerError, match="does not answer at unix:///nobody"):
                await nobody.network_config()
            with pytest.raises(ManagerError, match="has no key"):  # the next endpoint's turn
                await nobody.network_config()
        finally:
            await nobody.close()

    asyncio.run(scenario())


def demand_users(etcd: Etcd) -> None:
    """Make users root and flanneld, and let nobody else in."""
    for name, password in (("root", "secret"), ("flanneld", "hidden")):
        etcd.ctl("user", "add", f"{name}:{password}")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("role", "add", "network")
    etcd.ctl("role", "grant-permission", "network", "--prefix=true", "readwrite", PREFIX)
    etcd.ctl("user", "grant-role", "flanneld", "network")
    etcd.put(CONFIG, NETWORK)
    etcd.ctl("auth", "enable")


def test_a_watch_that_is_refused_is_an_error_and_waits() -> None:
    """A role without the right to read, and then a token from before the role got it back."""

    async def scenario(etcd: Etcd) -> None:
        access = Access((etcd.outside,), username="flanneld", password="hidden")
        made = EtcdManager(Client(access), PREFIX, 3600)
        async with watching(made) as watched:
            await made.acquire(await made.network_config(), attrs(1), NONE)
            await watched.count(1)
            etcd.ctl("role", "revoke-permission", "network", "--prefix=true", PREFIX, user="root:secret")
            await made.reconnect()  # a watch that is there goes on
            await watched.until(lambda: watched.metrics.errors.get("manager", 0) > 2)
            heard, errors = watched.metrics.last_event, watched.metrics.errors["manager"]
            await asyncio.sleep(1)
            assert watched.metrics.last_event == heard
            assert watched.metrics.errors["manager"] < errors + 5
            etcd.ctl(
                *("role", "grant-permission", "network", "--prefix=true", "readwrite", PREFIX),
                user="root:secret",
            )
            etcd.ctl("put", SUBNETS + "10.5.200.0-24", '{"PublicIP": "192.0.2.2"}', user="root:secret")
            await watched.count(2)
        await made.close()

    with Node() as node, Etcd(node) as etcd:
        demand_users(etcd)
        asyncio.run(scenario(etcd))


def test_user_and_password() -> None:
    async def scenario(etcd: Etcd) -> None:
        access = Access((etcd.outside,), username="flanneld", password="hidden")
        made = EtcdManager(Client(access), PREFIX, 3600)
        try:
            config = await made.network_config()
            await made.acquire(config, attrs(1), NONE)
            made._client._token += "x"  # as one that has run out
            assert await made.published(Uplink(1, "", 0, None, None, attrs(1).public_ip, None)) == attrs(1)
        finally:
            await made.close()
        wrong = Client(Access((etcd.outside,), username="flanneld", password="wrong"))
        try:
            with pytest.raises(RefusedError, match="authentication failed"):
                await EtcdManager(wrong, PREFIX, 3600).network_config()
        finally:
            await wrong.close()

    with Node() as node, Etcd(node) as etcd:
        demand_users(etcd)
        asyncio.run(scenario(etcd))
