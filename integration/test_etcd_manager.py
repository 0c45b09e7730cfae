"""Leases in a real etcd: how they are written, taken and renewed."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from flanneld.lease import Added
from flanneld.manager import ManagerError
from flanneld.uplink import Uplink
from integration.etcd import CONFIG, DUAL, NETWORK, SUBNETS, Etcd
from integration.leases import NONE, attrs, lease, manager
from integration.waiting import PATIENCE
from integration.watched import watching

pytestmark = pytest.mark.root


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
            await watched.until(lambda: Added(second) in watched.events)
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
    renewals: list[int] = []

    async def scenario() -> None:
        # A second after it was leased, or renewed, which leaves a hundred to do so.
        async with manager(etcd, margin=99, ttl=100) as made:
            renew = made._client.renew

            async def noted(lease: int) -> int:
                renewals.append(await renew(lease))
                return renewals[-1]

            made._client.renew = noted  # type: ignore[method-assign]
            taken = await made.acquire(await made.network_config(), attrs(1), NONE)
            before = json.loads(etcd.ctl("get", SUBNETS, "--prefix", "-w", "json").stdout)
            keeping = asyncio.create_task(made.keep(taken))
            async with asyncio.timeout(PATIENCE):
                while len(renewals) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            after = json.loads(etcd.ctl("get", SUBNETS, "--prefix", "-w", "json").stdout)
            assert not keeping.done()
            assert after["kvs"] == before["kvs"]
            keeping.cancel()

    asyncio.run(scenario())
    assert set(renewals) == {100}
