"""Leases of EtcdManager in a real etcd: the nodes that take them, and what is done to them from outside."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from flanneld.etcd.client import Access, Client
from flanneld.etcd.manager import EtcdManager
from flanneld.lease import LeaseAttrs, encode_data
from integration.etcd import PREFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flanneld.lease import Key, Lease
    from integration.etcd import Etcd

NONE: Key = (None, None)


def attrs(number: int, family: int = 4) -> LeaseAttrs:
    data = encode_data({"VNI": 1, "VtepMAC": f"aa:bb:cc:00:00:{number:02x}"})
    public_ip = IPv4Address(f"192.0.2.{number}")
    if family == 4:
        return LeaseAttrs(public_ip, None, "vxlan", data)
    return LeaseAttrs(public_ip, IPv6Address(f"2001:db8::{number}"), "vxlan", data, data)


@asynccontextmanager
async def manager(
    etcd: Etcd, margin: float = 3600, ttl: int = 86400, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[EtcdManager]:
    made = EtcdManager(Client(Access((etcd.outside,))), PREFIX, margin, ttl, clock)
    try:
        yield made
    finally:
        await made.close()


async def lease(etcd: Etcd, number: int, previous: Key = NONE, family: int = 4) -> str:
    async with manager(etcd) as made:
        config = await made.network_config()
        return str(await made.acquire(config, attrs(number, family), previous))


def revoke(etcd: Etcd, lease: Lease) -> None:
    """Do what etcd does to a lease that has run out."""
    etcd.ctl("lease", "revoke", f"{etcd.ttl(str(lease).replace('/', '-'))['id']:x}")


def revoke_all(etcd: Etcd) -> None:
    for name in etcd.leases():
        etcd.ctl("lease", "revoke", f"{etcd.ttl(name)['id']:x}")
