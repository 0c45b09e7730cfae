"""With the reference's own host-local in the same directory: each sees what the other did."""

from __future__ import annotations

import multiprocessing
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.errors import CNIError
from tests.host_local import addresses, call, config, held, peer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peer
DUAL = {
    "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}],
}


def test_both_write_the_same_bytes(tmp_path: Path) -> None:
    trees = []
    for which in ("ours", "theirs"):
        conf = config(tmp_path / which, DUAL, cniVersion="1.0.0")
        results: list[dict[str, Any]] = [
            call("ADD", conf, container) if which == "ours" else peer("ADD", conf, container)[1]
            for container in ("c1", "c2")
        ]
        call("DEL", conf) if which == "ours" else peer("DEL", conf)
        folder = tmp_path / which / "net"
        # The reference always has the key dns, empty or not.
        shapes = [{key: value for key, value in result.items() if value} for result in results]
        lock_mode = (folder / "lock").stat().st_mode
        trees.append((shapes, {entry.name: entry.read_bytes() for entry in folder.iterdir()}, lock_mode))
    assert trees[0] == trees[1]


def test_each_continues_where_the_other_stopped(tmp_path: Path) -> None:
    conf = config(tmp_path, DUAL)
    got = []
    for number in range(8):
        result = call("ADD", conf, f"c{number}") if number % 2 else peer("ADD", conf, f"c{number}")[1]
        got.append(addresses(result))
    assert got == [[f"10.1.2.{number}", f"2001:db8::{number:x}"] for number in range(2, 10)]
    for number in range(8):  # each deletes the other's
        prev = {"ips": [{"address": f"10.1.2.{number + 2}/24"}]}
        if number % 2:
            assert peer("CHECK", {**conf, "prevResult": prev}, f"c{number}")[0] == 0
            assert peer("DEL", conf, f"c{number}")[0] == 0
            assert peer("CHECK", {**conf, "prevResult": prev}, f"c{number}")[0] == 1
        else:
            call("CHECK", {**conf, "prevResult": prev}, f"c{number}")
            call("DEL", conf, f"c{number}")
    assert held(tmp_path) == {}


def test_both_refuse_a_second_add_and_an_exhausted_range_alike(tmp_path: Path) -> None:
    conf = config(tmp_path, {"subnet": "10.1.2.0/29"})
    peer("ADD", conf, "c1")
    for number in range(2, 6):
        call("ADD", conf, f"c{number}")
    for container in ("c1", "c5", "c9"):
        with pytest.raises(CNIError) as caught:
            call("ADD", conf, container)
        status, answer = peer("ADD", conf, container)
        assert (status, answer["msg"]) == (1, caught.value.msg)


def test_gc_of_what_the_reference_left(tmp_path: Path) -> None:
    conf = config(tmp_path, DUAL)
    call("ADD", conf, "ours")
    peer("ADD", conf, "theirs")
    peer("ADD", conf, "alive")
    call("GC", {**conf, "cni.dev/valid-attachments": [{"containerID": "alive", "ifname": "eth0"}]})
    assert set(held(tmp_path).values()) == {b"alive\r\neth0"}
    assert peer("ADD", conf, "theirs")[0] == 0


def churn(data_dir: Path, own: int) -> str:
    conf = config(data_dir, {"subnet": "10.1.2.0/26"})
    for number in range(12):
        container = f"p{own}-{number}"
        if own % 2:
            (address,) = addresses(call("ADD", conf, container))
        else:
            status, result = peer("ADD", conf, container)
            assert status == 0, result
            (address,) = addresses(result)
        content = (data_dir / "net" / address).read_bytes()
        assert content == f"{container}\r\neth0".encode()
        if number < 11:
            # Crosswise, so that either's idea of what is there is always out of date.
            if number % 2:
                call("DEL", conf, container)
            else:
                assert peer("DEL", conf, container)[0] == 0
            assert (
                not (data_dir / "net" / address).exists()
                or (data_dir / "net" / address).read_bytes() != content
            )
    return address


def test_racing_each_other(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        kept = pool.starmap(churn, [(tmp_path, own) for own in range(8)], chunksize=1)
    assert len(set(kept)) == 8
    assert set(held(tmp_path)) == set(kept)
    for own in range(8):
        call("DEL", config(tmp_path), f"p{own}-11")
    assert held(tmp_path) == {}
    shutil.rmtree(tmp_path / "net")
    assert peer("ADD", config(tmp_path))[0] == 0
    call("DEL", config(tmp_path))
    assert held(tmp_path) == {}
