"""The timers of a lease that is held (RFC 2131, section 4.4.5), with a clock that jumps."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from ipam.dhcp.daemon.lease import Lease, LeaseError
from ipam.dhcp.daemon.packet import DISCOVER, NAK, RELEASE, REQUEST
from ipam.dhcp.daemon.store import Store
from tests.dhcp_server import (
    ADDRESS,
    HARDWARE,
    OTHER,
    SERVER,
    START,
    Network,
    answer,
    bound,
    friendly,
    now,
    run,
    saved,
)

if TYPE_CHECKING:
    from pathlib import Path

SECOND = bytes((10, 1, 2, 4))


def test_it_is_renewed_with_its_server_then_with_any_then_lost(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        await bound(tmp_path, network)
        first = len(network.sent)
        network.answers = lambda _sent: []
        await asyncio.sleep(560)
        assert (len(network.sent), network.open) == (first + 1, 0)
        await asyncio.sleep(439)
        tries = network.sent[first:]
        assert {each.kind for each in tries} == {REQUEST}
        assert all(each.message.ciaddr == ADDRESS and 54 not in each.message.options for each in tries)
        assert all(50 not in each.message.options for each in tries)
        renewing = [each.when - START for each in tries if each.server]
        rebinding = [each.when - START for each in tries if not each.server]
        assert {each.server for each in tries} == {SERVER, b""}
        assert {each.hardware for each in tries} == {HARDWARE, b""}
        assert 475 <= renewing[0] <= 500
        assert renewing[-1] < 875 <= rebinding[0] < 880
        assert len(renewing) >= 3
        assert len(rebinding) >= 3
        assert network.addresses == []
        await asyncio.sleep(2)
        assert network.addresses == ["-10.1.2.3/24"]
        assert network.sent[-1].kind == DISCOVER
        assert network.sent[-1].message.options[50] == ADDRESS

    run(main())


@pytest.mark.parametrize("when", [600, 900])
def test_an_answer_renews_it(tmp_path: Path, when: int) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        network.answers = lambda sent: friendly(sent) if sent.when >= START + when else []
        await asyncio.sleep(999)
        assert made._held is not None
        assert made._held.expiry > START + when + 1000
        assert network.addresses == []
        (kept,) = Store(str(tmp_path / "leases")).load()
        assert kept.start == made._held.start

    run(main())


def test_after_its_end_it_is_asked_for_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        network.answers = lambda _sent: []
        await asyncio.sleep(10_000)
        with pytest.raises(LeaseError, match="lost"):
            await made.result()
        assert len(network.of(DISCOVER)) > 100
        network.answers = lambda sent: friendly(sent, address=SECOND)
        await asyncio.sleep(300)
        assert network.addresses == ["-10.1.2.3/24", "+10.1.2.4/24"]
        assert str((await made.result()).ips[0].address) == "10.1.2.4/24"
        (kept,) = Store(str(tmp_path / "leases")).load()
        assert kept.configured

    run(main())


def test_a_refused_address_is_given_up_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        await bound(tmp_path, network)
        network.answers = lambda sent: [answer(sent, NAK)] if any(sent.message.ciaddr) else friendly(sent)
        await asyncio.sleep(501)
        assert network.addresses == ["-10.1.2.3/24", "+10.1.2.3/24"]
        assert network.of(DISCOVER)[-1].message.options[50] == ADDRESS

    run(main())


def test_another_address_when_it_is_renewed(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        network.answers = lambda sent: friendly(sent, address=SECOND)
        await asyncio.sleep(501)
        assert network.addresses == ["-10.1.2.3/24", "+10.1.2.4/24"]
        assert str((await made.result()).ips[0].address) == "10.1.2.4/24"

    run(main())


def test_another_server_cannot_refuse_what_one_gave(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        network.answers = lambda sent: [answer(sent, NAK, server=OTHER), answer(sent, NAK, server=b"")]
        await asyncio.sleep(870)
        assert network.addresses == []
        network.answers = friendly
        await asyncio.sleep(30)
        assert made._held is not None
        assert made._held.expiry > START + 1870

    run(main())


def test_a_lease_for_ever_is_never_renewed(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network(lambda sent: friendly(sent, lease=0xFFFFFFFF))
        made = await bound(tmp_path, network)
        await asyncio.sleep(1e6)
        assert len(network.sent) == 2
        await made.release()
        assert network.sent[-1].kind == RELEASE

    run(main())


@pytest.mark.parametrize("seconds", [1, 5])
def test_the_shortest_leases_are_renewed_in_time(tmp_path: Path, seconds: int) -> None:
    async def main() -> None:
        network = Network(lambda sent: friendly(sent, lease=seconds))
        await bound(tmp_path, network)
        await asyncio.sleep(1000)
        assert network.addresses == []
        assert len(network.sent) <= 1002

    run(main())


def test_a_renewal_that_cannot_be_noted_is_one(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        os.rename(tmp_path / "leases", tmp_path / "away")
        await asyncio.sleep(5000)
        assert network.addresses == []
        assert made._held is not None
        assert made._held.expiry > now()

    run(main())


def test_a_container_that_is_gone_keeps_its_lease_until_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        network, ended = Network(), list[Lease]()
        made = await bound(tmp_path, network, ended)
        network.gone = True
        await asyncio.sleep(990)
        assert ended == []
        assert saved(tmp_path) == [made.record.name]
        await asyncio.sleep(20)
        assert ended == [made]
        assert len(network.sent) == 2

    run(main())
