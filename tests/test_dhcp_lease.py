"""The timers of RFC 2131, with a clock that jumps."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ipam.dhcp.daemon.lease import Lease, LeaseError
from ipam.dhcp.daemon.packet import ACK, ANY, DISCOVER, NAK, OFFER, RELEASE, REQUEST, Message
from ipam.dhcp.daemon.store import Store
from tests.dhcp_server import (
    ADDRESS,
    HARDWARE,
    MAC,
    OTHER,
    SERVER,
    START,
    Network,
    Sent,
    answer,
    friendly,
    lease,
    now,
    record,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path

SECOND = bytes((10, 1, 2, 4))


async def bound(tmp_path: Path, network: Network, ended: list[Lease] | None = None) -> Lease:
    """Get a lease of 1000 s."""
    made = lease(tmp_path, network, ended if ended is not None else [])
    made.start()
    await made.result()
    return made


def saved(tmp_path: Path) -> list[str]:
    return sorted(name for name in os.listdir(tmp_path / "leases") if "." not in name)


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


class TestRestart:
    """A daemon that was killed, and started again."""

    def test_in_time_it_goes_on(self, tmp_path: Path) -> None:
        async def main() -> None:
            network = Network()
            await (await bound(tmp_path, network)).abandon()
            (kept,) = Store(str(tmp_path / "leases")).load()
            await asyncio.sleep(100)
            again = lease(tmp_path, network, [], kept)
            again.start()
            assert str((await again.result()).ips[0].address) == "10.1.2.3/24"
            await asyncio.sleep(370)
            assert len(network.sent) == 2
            await asyncio.sleep(40)
            assert network.sent[-1].message.ciaddr == ADDRESS
            assert network.sent[-1].hardware == HARDWARE

        run(main())

    @pytest.mark.parametrize("kind", [ACK, NAK, 0])
    def test_after_its_end_it_is_asked_for_again(self, tmp_path: Path, kind: int) -> None:
        async def main() -> None:
            network = Network()
            await (await bound(tmp_path, network)).abandon()
            (kept,) = Store(str(tmp_path / "leases")).load()
            await asyncio.sleep(2000)
            again = lease(tmp_path, network, [], kept)

            def answers(sent: Sent) -> list[Message]:
                if sent.kind == REQUEST and 54 not in sent.message.options:
                    return [answer(sent, kind)] if kind else []
                return friendly(sent)

            network.answers = answers
            again.start()
            await asyncio.sleep(15)
            reboot = network.sent[2].message
            assert (reboot.kind, reboot.options[50], reboot.ciaddr) == (REQUEST, ADDRESS, ANY)
            assert 54 not in reboot.options
            changes = [] if kind == ACK else ["-10.1.2.3/24", "+10.1.2.3/24"]
            assert network.addresses == changes
            assert (await again.result()).ips

        run(main())

    def test_one_that_was_lost_is_still_asked_for(self, tmp_path: Path) -> None:
        async def main() -> None:
            network = Network()
            made = await bound(tmp_path, network)
            network.answers = lambda _sent: []
            await asyncio.sleep(1001)
            await made.abandon()
            (kept,) = Store(str(tmp_path / "leases")).load()
            again = lease(tmp_path, network, [], kept)
            network.answers = friendly
            again.start()
            await asyncio.sleep(5)
            assert (await again.result()).ips
            assert network.addresses[-1] == "+10.1.2.3/24"

        run(main())

    def test_other_boots_and_damaged_files_are_forgotten(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        for name in ("a", "b", "c"):
            store.save(record(container_id=name))
        one, two, three = (record(container_id=name).name for name in ("a", "b", "c"))
        (tmp_path / one).write_text((tmp_path / one).read_text().replace(store._boot, "another"))
        (tmp_path / two).write_text("{")
        (tmp_path / f"{three}.release").touch()
        (tmp_path / f"{two}.release").touch()
        (tmp_path / f".{three}.7.tmp").touch()
        (tmp_path / "0123456789012345678901234567890123456789").write_text('{"a": 1}')
        assert [each.container_id for each in store.load()] == ["c"]
        assert sorted(os.listdir(tmp_path)) == [three, f"{three}.release"]
        assert store.release_asked(three)
        store.remove(three)
        assert os.listdir(tmp_path) == []
