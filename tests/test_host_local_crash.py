"""Killed anywhere, and many at once: no address twice, none lost, nothing left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.errors import CNIError
from tests.host_local import addresses, call, config, held

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

RANGES = {"ranges": [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.11"}], [{"subnet": "fd00::/64"}]]}


def killed_before_system_call(number: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that kills itself before its n-th system call; tell whether it got that far."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count(_frame: FrameType, event: str, function: Any) -> None:
            nonlocal seen
            if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl"):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        work()
        sys.setprofile(None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def drain(conf: dict[str, Any], tmp_path: Path, containers: list[str]) -> None:
    """Delete everything as a runtime would after a crash, and look for rests."""
    for container in containers:
        call("DEL", conf, container)
    assert held(tmp_path) == {}
    index = tmp_path / ".index/net"
    assert not index.exists() or os.listdir(index) == []


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_before_any_system_call(tmp_path: Path, verb: str, foreign: bool) -> None:
    for number in range(1, 200):
        folder = tmp_path / f"{number}"
        conf = config(folder, RANGES)
        for container in ("c0", "c1", "c2"):
            call("ADD", conf, container)
        for container in ("c3", "c4", "c5", "c6", "c7", "c0"):  # c0's new address makes the text longer
            call("DEL", conf, container)
            call("ADD", conf, container)
        if verb == "ADD":
            call("DEL", conf)
        if foreign:
            (folder / "net/10.1.2.200").write_bytes(b"c9\r\neth0")
        went = killed_before_system_call(number, lambda c=conf: call(verb, c))  # type: ignore[misc]
        for name, content in held(folder).items():
            # A replaced last_reserved_ip may leave its draft; reservations are whole.
            assert content.endswith(b"\r\neth0") or name.startswith(".last_reserved_ip."), name
        if verb == "ADD":
            call("DEL", conf)
            assert len(addresses(call("ADD", conf))) == 2
        drain(conf, folder, [f"c{index}" for index in range(10)])
        if not went:
            break
    else:
        pytest.fail("never finished")
    assert number > 10


def churn(data_dir: Path, own: int, rounds: int) -> list[str]:
    """Add and delete in turn; return the addresses that are kept, after checks of each on the way."""
    conf = config(data_dir, {"subnet": "10.1.0.0/16", "rangeEnd": "10.1.0.120"})
    kept = []
    for number in range(rounds):
        container = f"p{own}-{number}"
        (address,) = addresses(call("ADD", conf, container))
        content = (data_dir / "net" / address).read_bytes()
        if content != f"{container}\r\neth0".encode():
            raise AssertionError(f"{address} of {container} has {content!r}")
        if number == rounds - 1:
            kept.append(address)
        else:
            call("DEL", conf, container)
    return kept


def test_fifty_processes_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(50) as pool:
        kept = pool.starmap(churn, [(tmp_path, own, 6) for own in range(50)], chunksize=1)
    given = Counter(address for addresses_ in kept for address in addresses_)
    assert len(given) == 50
    assert set(held(tmp_path)) == set(given)
    conf = config(tmp_path)
    drain(conf, tmp_path, [f"p{own}-5" for own in range(50)])


def test_killed_at_random_while_others_go_on(tmp_path: Path) -> None:
    chance = random.Random(7)
    conf = config(tmp_path, RANGES)
    containers = [f"c{number}" for number in range(8)]
    for _ in range(40):
        victims = []
        for container in chance.sample(containers, 3):
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(CNIError):
                    while True:
                        call("DEL", conf, container)
                        call("ADD", conf, container)
                os._exit(0)
            victims.append(pid)
        time.sleep(chance.random() / 100)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for name, content in held(tmp_path).items():
            assert content.endswith(b"\r\neth0") or name.startswith(".last_reserved_ip."), name
    drain(conf, tmp_path, containers)
