"""An etcd that lets in only users whom it knows, and none at all."""

from __future__ import annotations

import asyncio

import pytest

from flanneld.etcd.client import Access, Client, RefusedError
from flanneld.etcd.manager import EtcdManager
from flanneld.manager import ManagerError
from flanneld.uplink import Uplink
from integration.etcd import CONFIG, NETWORK, PREFIX, SUBNETS, Etcd
from integration.leases import NONE, attrs, manager
from integration.node import Node
from integration.watched import watching

pytestmark = pytest.mark.root


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
