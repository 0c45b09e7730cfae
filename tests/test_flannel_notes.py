"""flannel as a process: what it keeps of an ADD for the calls that follow, and how it goes by it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.flannel import BOTH, V4, text

if TYPE_CHECKING:
    from tests.flannel import Flannel


def test_without_the_daemon(flannel: Flannel) -> None:
    """Section 5, "Error": 11 is to be tried again, 50 is STATUS's not available."""
    assert (added := flannel.call("ADD")).code == 11
    assert str(flannel.env) in added.json["msg"]
    assert "there is no such file" in added.json["msg"]
    assert (status := flannel.call("STATUS")).code == 50
    assert status.json["msg"] == added.json["msg"]
    assert flannel.call("DEL").status == 0
    gc = flannel.call("GC", valid=[])
    assert (gc.status, gc.stderr) == (0, "")
    assert not flannel.notes.exists()


def test_the_note_is_exactly_the_delegates_configuration(flannel: Flannel) -> None:
    flannel.env.write_text(text(BOTH))
    assert flannel.call("STATUS").status == 0
    answer = flannel.call("ADD")
    assert [ip["address"] for ip in answer.json["ips"]] == ["10.244.3.2/24", "fd00:10:0:3::2/64"]
    note = flannel.notes / "c1"
    assert json.loads(note.read_bytes()) == {
        "type": "host-local",
        "name": "net",
        "cniVersion": "1.1.0",
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "dataDir": str(flannel.addresses.parent),
            "ranges": [[{"subnet": "10.244.3.0/24"}], [{"subnet": "fd00:10:0:3::/64"}]],
            "routes": [{"dst": "10.244.0.0/16"}, {"dst": "fd00:10::/48"}],
        },
    }
    assert note.stat().st_mode & 0o777 == 0o600
    assert flannel.notes.stat().st_mode & 0o777 == 0o700


def test_del_goes_by_the_note(flannel: Flannel) -> None:
    flannel.env.write_text(text(V4))
    assert flannel.call("ADD").status == 0
    flannel.env.unlink()
    assert flannel.held() == ["10.244.3.2"]
    for _turn in range(2):
        answer = flannel.call("DEL", delegate={"type": "no-such-plugin"})
        assert (answer.status, answer.stdout, answer.stderr) == (0, b"", "")
        assert flannel.held() == []
        assert list(flannel.notes.iterdir()) == []


def test_a_failed_add_leaves_no_note(flannel: Flannel) -> None:
    flannel.env.write_text(text({**V4, "FLANNEL_SUBNET": "10.244.3.1/32"}))
    assert flannel.call("ADD").status == 1
    assert list(flannel.notes.iterdir()) == []
    flannel.env.write_text(text(V4))
    assert flannel.call("ADD", delegate={"type": "no-such-plugin"}).code == 103
    assert list(flannel.notes.iterdir()) == []


@pytest.mark.parametrize(("length", "fits"), [(250, True), (255, True), (256, False), (4000, False)])
def test_a_long_container_id(flannel: Flannel, length: int, fits: bool) -> None:
    """The note's name is the reference's: the id, and so no longer than a file's can be."""
    flannel.env.write_text(text(V4))
    container = "c" * length
    answers = [flannel.call("ADD", container) for _again in range(2)]
    result = answers[0].json
    if fits:
        assert answers[0].status == 0
        assert [path.name for path in flannel.notes.iterdir()] == [container]
        assert flannel.call("CHECK", container, prevResult=result).status == 0
    else:
        assert [each.code for each in answers] == [4, 4]
        assert "too long: it is part of the name of the file" in answers[0].json["msg"]
        assert not flannel.notes.exists()
        assert flannel.call("CHECK", container, prevResult={"cniVersion": "1.1.0"}).code == 101
    for _again in range(2):
        assert flannel.call("DEL", container).status == 0
    assert flannel.held() == []
    assert not flannel.notes.exists() or list(flannel.notes.iterdir()) == []


def test_a_failed_add_of_an_attached_container_keeps_its_note(flannel: Flannel) -> None:
    flannel.env.write_text(text(V4))
    assert flannel.call("ADD").status == 0
    before = (flannel.notes / "c1").read_bytes()
    flannel.env.write_text(text({**V4, "FLANNEL_MTU": "1300"}))
    assert flannel.call("ADD").status == 1
    assert (flannel.notes / "c1").read_bytes() == before


@pytest.mark.parametrize("half", [b"", b'{"type": "host-lo', b"[]", b"{}", b'{"type": 1}'])
def test_half_a_note_of_a_killed_writer(half: bytes, flannel: Flannel) -> None:
    flannel.env.write_text(text(V4))
    assert flannel.call("ADD").status == 0
    (flannel.notes / "c1").write_bytes(half)
    answer = flannel.call("DEL")
    assert (answer.status, answer.stdout) == (0, b"")
    assert f"going by {flannel.env}" in answer.stderr
    assert flannel.held() == []
    assert list(flannel.notes.iterdir()) == []


def test_check_needs_the_note(flannel: Flannel) -> None:
    flannel.env.write_text(text(V4))
    result = flannel.call("ADD").json
    assert flannel.call("CHECK", prevResult=result).status == 0
    (flannel.addresses / "10.244.3.2").unlink()
    assert flannel.call("CHECK", prevResult=result).code == 101
    (flannel.notes / "c1").unlink()
    missing = flannel.call("CHECK", prevResult=result)
    assert (missing.code, str(flannel.notes / "c1") in missing.json["msg"]) == (101, True)
