"""Leases that ran out, as against those that somebody deleted; what other nodes write into their leases."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.etcd import client as client_module
from flanneld.etcd import codec
from flanneld.etcd.client import Access, Client
from flanneld.etcd.lapsed import GRACE, Held, Lapsed
from flanneld.lease import Added, Lease, LeaseAttrs, Removed
from flanneld.manager import ManagerError

if TYPE_CHECKING:
    from collections.abc import Callable


def held(subnet: int, node: int, etcd_lease: int) -> Held:
    attrs = LeaseAttrs(IPv4Address(f"192.0.2.{node}"), None, "vxlan")
    return Held(Lease(IPv4Network(f"10.5.{subnet}.0/24"), None, attrs), etcd_lease, 1)


ONE, TWO, RESERVED = held(1, 1, 11), held(2, 2, 12), held(3, 3, 0)


class Etcd:
    """Which etcd leases are over, and whether it answers."""

    def __init__(self) -> None:
        self.over: set[int] = set()
        self.answers = True
        self.now = 0.0
        self.lapsed = Lapsed(self.is_over, lambda: self.now)

    async def is_over(self, etcd_lease: int) -> bool:
        if not self.answers:
            raise ManagerError("away")
        assert etcd_lease
        return etcd_lease in self.over


def scenario(steps: Callable[[Etcd], Any]) -> None:
    async def run() -> None:
        etcd = Etcd()
        assert await etcd.lapsed.listed([ONE, TWO, RESERVED]) == []
        await steps(etcd)

    asyncio.run(run())


def test_what_is_deleted_goes_at_once_and_what_ran_out_stays() -> None:
    async def steps(etcd: Etcd) -> None:
        etcd.over = {12}
        gone = [(item.lease.key, None) for item in (ONE, TWO, RESERVED)]
        assert await etcd.lapsed.changed(gone) == [Removed(ONE.lease.key), Removed(RESERVED.lease.key)]
        assert await etcd.lapsed.changed(gone) == [Removed(ONE.lease.key), Removed(RESERVED.lease.key)]
        assert await etcd.lapsed.listed([]) == [TWO.lease]
        again = held(2, 2, 22)
        assert await etcd.lapsed.changed([(again.lease.key, again)]) == [Added(again.lease)]
        assert await etcd.lapsed.listed([again]) == []

    scenario(steps)


@pytest.mark.parametrize(
    ("new", "removed"),
    [(held(2, 9, 99), []), (held(9, 2, 99), [Removed(TWO.lease.key)]), (held(9, 9, 99), None)],
    ids=["another node takes the subnet", "the node takes another subnet", "neither"],
)
def test_what_ran_out_goes_when_something_takes_its_place(new: Held, removed: list[Removed] | None) -> None:
    async def steps(etcd: Etcd) -> None:
        etcd.over = {12}
        assert await etcd.lapsed.changed([(TWO.lease.key, None)]) == []
        assert await etcd.lapsed.changed([(new.lease.key, new)]) == [*(removed or []), Added(new.lease)]
        kept = [] if removed is not None else [TWO.lease]
        assert await etcd.lapsed.listed([ONE, new]) == kept

    scenario(steps)


def test_a_gap_in_the_watch_is_no_reason_to_forget_what_ran_out() -> None:
    async def steps(etcd: Etcd) -> None:
        etcd.over = {11, 12}
        assert await etcd.lapsed.listed([RESERVED]) == [ONE.lease, TWO.lease]
        etcd.now = GRACE
        assert etcd.lapsed.overdue() == []
        etcd.now = GRACE + 1
        assert etcd.lapsed.overdue() == [Removed(ONE.lease.key), Removed(TWO.lease.key)]
        assert await etcd.lapsed.listed([RESERVED]) == []

    scenario(steps)


def test_a_question_without_an_answer_is_asked_again() -> None:
    async def steps(etcd: Etcd) -> None:
        etcd.over, etcd.answers = {12}, False
        new = held(9, 9, 99)
        changes: Any = [(TWO.lease.key, None), (new.lease.key, new)]
        with pytest.raises(ManagerError):
            await etcd.lapsed.changed(changes)
        with pytest.raises(ManagerError):
            await etcd.lapsed.listed([ONE])
        etcd.answers = True
        assert await etcd.lapsed.changed(changes) == [Added(new.lease)]
        assert await etcd.lapsed.listed([ONE, RESERVED, new]) == [TWO.lease]

    scenario(steps)


@pytest.mark.parametrize(
    "value",
    [
        b'{"PublicIP":"192.0.2.1","BackendData":' + b"[" * 100_000,
        b'{"PublicIP":"192.0.2.1","BackendData":' + b'{"a":' * 100_000,
        b'{"PublicIP":' + b"1" * 5000 + b"}",
        b'{"PublicIP":1e999}',
        b'{"PublicIP":"\xff"}',
        b'{"PublicIP":{"a":1}}',
        b"[]",
    ],
)
def test_a_value_that_is_no_lease_is_an_error_that_is_foreseen(value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        codec.decode_attrs(value)


def test_a_certificate_that_is_being_replaced_is_an_error_that_passes() -> None:
    async def steps() -> None:
        client = Client(Access(("https://127.0.0.1:1",), cafile="/nowhere/ca.crt"))
        for ask in (client.renew(1), anext(client.watch(b"/", 1)), client.has_lease(1)):
            with pytest.raises(ManagerError, match=r"cannot be used.*ca\.crt"):
                await ask
        await client.close()

    asyncio.run(steps())


def test_a_connection_that_somebody_else_has_closed_is_an_error_that_passes() -> None:
    async def steps() -> None:
        client = Client(Access(("http://127.0.0.1:1",)))
        with pytest.raises(ManagerError, match="does not answer"):
            await client.has_lease(1)
        channel, _metadata = await client._connect()
        await channel.close()
        with pytest.raises(ManagerError, match="cannot be used"):
            await client.has_lease(1)
        await client.close()

    asyncio.run(steps())


def test_a_connection_closed_while_a_stream_is_opened_is_an_error_that_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """gRPC leaves whoever opens it waiting for ever: the lease would be renewed no more."""
    monkeypatch.setattr(client_module, "_TIMEOUT", 0.5)

    async def steps() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)
            client = Client(Access((f"http://127.0.0.1:{silent.getsockname()[1]}",)))
            renewing = asyncio.create_task(client.renew(1))
            async with asyncio.timeout(60):
                connection, _address = await asyncio.get_running_loop().sock_accept(silent)
                with connection:
                    await client.close()
                    with pytest.raises(ManagerError):
                        await renewing
            await client.close()

    asyncio.run(steps())
