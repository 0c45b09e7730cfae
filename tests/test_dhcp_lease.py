"""How a lease is got and given back (RFC 2131), with a clock that jumps."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ipam.dhcp.daemon.lease import Lease, LeaseError
from ipam.dhcp.daemon.packet import ANY, DISCOVER, NAK, OFFER, RELEASE, REQUEST
from ipam.dhcp.daemon.store import Store
from tests.dhcp_server import (
    ADDRESS,
    MAC,
    SERVER,
    START,
    Network,
    answer,
    bound,
    friendly,
    lease,
    now,
    run,
    saved,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_four_messages_make_a_lease(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        assert now() == START
        assert [each.kind for each in network.sent] == [DISCOVER, REQUEST]
        discover, request = (each.message for each in network.sent)
        assert discover.options[61] == request.options[61] == b"\0c1/net/eth0"
        assert discover.options[55] == b"\3\1"
        assert (discover.chaddr, discover.ciaddr, discover.xid) == (MAC, ANY, request.xid)
        assert (request.options[50], request.options[54], request.ciaddr) == (ADDRESS, SERVER, ANY)
        result = (await made.result()).to_json("1.1.0")
        assert result["ips"] == [{"address": "10.1.2.3/24", "gateway": "10.1.0.1"}]
        (kept,) = Store(str(tmp_path / "leases")).load()
        assert kept.accepted
        mode = os.stat(tmp_path / "leases" / kept.name).st_mode & 0o777
        assert (mode, os.stat(tmp_path / "leases").st_mode & 0o777) == (0o600, 0o700)
        assert network.open == 0

    run(main())


def test_nobody_answers(tmp_path: Path) -> None:
    async def main() -> None:
        network, ended = Network(lambda _sent: []), list[Lease]()
        made = lease(tmp_path, network, ended)
        made.start()
        with pytest.raises(LeaseError, match="no DHCP server"):
            await made.result()
        assert now() == pytest.approx(START + 208)
        await asyncio.sleep(0)
        assert ended == [made]
        times = [each.when - START for each in network.sent]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap < 1.4 for gap in gaps[:2])
        assert all(1 <= gap <= 3 for gap in gaps[2:6])
        for gap, usual in zip(gaps[6:], (4, 8, 16, 32, 62), strict=False):
            assert usual - 1 <= gap <= usual + 1
        assert len({each.message.xid for each in network.sent}) == 1
        assert network.sent[-1].message.secs == int(times[-1])

    run(main())


HOSTILE = {
    "another transaction": {"xid": 1},
    "another client": {"chaddr": bytes(6)},
    "a request": {"op": 1},
    "no address": {"address": ANY},
    "loopback": {"address": bytes((127, 0, 0, 1))},
    "no server": {"server": b""},
    "no lease time": {"lease": 0},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_answers_that_count_for_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    async def main() -> None:
        network = Network(lambda sent: friendly(sent, **change))
        made = lease(tmp_path, network, [])
        made.start()
        await asyncio.sleep(100)
        assert network.of(REQUEST) == []
        network.answers = friendly
        await made.result()

    run(main())


def test_a_server_that_offers_and_refuses_does_not_keep_us_busy(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network(lambda sent: [answer(sent, OFFER if sent.kind == DISCOVER else NAK)])
        made = lease(tmp_path, network, [])
        made.start()
        with pytest.raises(LeaseError):
            await made.result()
        assert len(network.sent) < 500

    run(main())


def test_an_offer_that_is_not_kept_is_not_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network(lambda sent: [answer(sent, OFFER)] if sent.kind == DISCOVER else [])
        made = lease(tmp_path, network, [])
        made.start()
        await asyncio.sleep(15)
        assert len({each.message.xid for each in network.sent}) == 2
        assert len(network.of(REQUEST)) > 3
        network.answers = friendly
        await made.result()

    run(main())


def test_release(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network()
        made = await bound(tmp_path, network)
        await asyncio.gather(made.release(), made.release())
        (last,) = network.of(RELEASE)
        assert (last.message.ciaddr, last.message.options[54], last.server) == (ADDRESS, SERVER, SERVER)
        assert last.message.options[61] == b"\0c1/net/eth0"
        assert set(last.message.options) == {53, 54, 61}
        assert saved(tmp_path) == []

    run(main())


def test_a_release_while_it_is_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network(lambda sent: [answer(sent, OFFER)] if sent.kind == DISCOVER else [])
        made = lease(tmp_path, network, [])
        made.start()
        await asyncio.sleep(1)
        assert len(saved(tmp_path)) == 1
        waiting = asyncio.create_task(made.result())
        await asyncio.sleep(0)
        await made.release()
        with pytest.raises(LeaseError, match="given up"):
            await waiting
        assert len(network.of(RELEASE)) == 1
        assert saved(tmp_path) == []

    run(main())


def test_no_lease_without_a_place_to_note_it(tmp_path: Path) -> None:
    async def main() -> None:
        network = Network(friendly)
        made = lease(tmp_path, network, [])
        os.rmdir(tmp_path / "leases")
        made.start()
        with pytest.raises(LeaseError, match="No such file"):
            await made.result()
        assert network.of(REQUEST) == []

    run(main())
