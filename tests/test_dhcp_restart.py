"""A DHCP daemon that was killed, and started again, with a clock that jumps."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from ipam.dhcp.daemon.packet import ACK, ANY, NAK, REQUEST, Message
from ipam.dhcp.daemon.store import Store
from tests.dhcp_server import (
    ADDRESS,
    HARDWARE,
    Network,
    Sent,
    answer,
    bound,
    friendly,
    lease,
    record,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_in_time_it_goes_on(tmp_path: Path) -> None:
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
def test_after_its_end_it_is_asked_for_again(tmp_path: Path, kind: int) -> None:
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


def test_one_that_was_lost_is_still_asked_for(tmp_path: Path) -> None:
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


def test_other_boots_and_damaged_files_are_forgotten(tmp_path: Path) -> None:
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
