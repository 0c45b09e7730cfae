"""The plugin while no daemon runs, its options, and the daemon's flags; leases are in integration/."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.schema import validate
from ipam.dhcp import notes, options
from ipam.dhcp.daemon import main
from ipam.dhcp.daemon.client import Patience
from ipam.dhcp.daemon.store import Store
from tests.calls import Answer, call, variables
from tests.dhcp_server import record

if TYPE_CHECKING:
    from pathlib import Path


def conf(folder: Path, **keys: Any) -> dict[str, Any]:
    ipam = {"type": "dhcp", "daemonSocketPath": str(folder / "d.sock"), **keys}
    return {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam}


def dhcp(folder: str, verb: str, given: dict[str, Any]) -> Answer:
    return call(f"{folder}/dhcp", variables(verb, folder), given)


def test_without_a_daemon(suite_bin: str, tmp_path: Path) -> None:
    answer = dhcp(suite_bin, "ADD", conf(tmp_path))
    assert (answer.status, answer.code) == (1, 11)
    assert "dhcp daemon not answering on" in answer.json["msg"]
    assert "dhcp daemon" in answer.json["details"]
    answer = dhcp(suite_bin, "STATUS", conf(tmp_path))
    assert (answer.status, answer.code) == (1, 51)
    assert "dhcp daemon not answering on" in answer.json["msg"]
    answer = dhcp(suite_bin, "DEL", conf(tmp_path))
    assert (answer.status, answer.stdout) == (0, b"")
    answer = dhcp(suite_bin, "GC", {**conf(tmp_path), "cni.dev/valid-attachments": []})
    assert (answer.status, answer.stdout) == (0, b"")
    assert os.listdir(tmp_path) == []


def test_del_and_gc_leave_word_for_the_next_daemon(suite_bin: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "d"))
    names = {}
    for container, network in (("c1", "net"), ("c2", "net"), ("gone", "net"), ("c4", "other")):
        made = record(container_id=container, network=network)
        store.save(made)
        names[container] = made.name
    answer = dhcp(suite_bin, "DEL", conf(tmp_path))
    assert answer.status == 0
    assert "the next one releases" in answer.stderr
    assert [each for each in names if store.release_asked(names[each])] == ["c1"]
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    answer = dhcp(suite_bin, "GC", {**conf(tmp_path), "cni.dev/valid-attachments": valid})
    assert answer.status == 0
    assert [each for each in names if store.release_asked(names[each])] == ["c1", "gone"]


def test_a_socket_that_a_killed_daemon_left(suite_bin: str, sockets: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(sockets / "d.sock"))
    assert dhcp(suite_bin, "STATUS", conf(sockets)).code == 51
    assert dhcp(suite_bin, "DEL", conf(sockets)).status == 0
    with main.bind(str(sockets / "d.sock")) as ours:
        assert os.stat(sockets / "d.sock").st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="another daemon"):
            main.bind(str(sockets / "d.sock"))
        assert ours.getsockname() == str(sockets / "d.sock")


def test_status_looks_at_options(suite_bin: str, tmp_path: Path) -> None:
    answer = dhcp(suite_bin, "STATUS", conf(tmp_path, request=[{"option": "colour"}]))
    assert answer.code == 7
    assert "colour" in answer.json["msg"]


def prepared(cni_args: str = "", **keys: Any) -> tuple[dict[int, bytes], list[int]]:
    return options.prepare(validate("DhcpIPAM", keys), cni_args)


def test_options() -> None:
    assert prepared() == ({}, [3, 1])
    assert prepared(request=[{"option": "6"}, {"option": "domain-name"}]) == ({}, [6, 15, 3, 1])
    assert prepared(request=[{"skipDefault": True}, {"option": "routers"}]) == ({}, [3])
    assert prepared(request=[{"skipDefault": True}]) == ({}, [])
    given = [
        {"option": "host-name", "value": "a", "fromArg": "K8S_POD_NAME"},
        {"option": "60", "value": "class"},
        {"option": "dhcp-client-identifier", "fromArg": "ID"},
    ]
    assert prepared("ID=;K8S_POD_NAME=pod", provide=given)[0] == {12: b"pod", 60: b"class"}
    assert prepared("", provide=given)[0] == {12: b"a", 60: b"class"}


@pytest.mark.parametrize(
    "keys",
    [
        {"provide": [{"option": "", "value": "a"}]},
        {"provide": [{"option": "255", "value": "a"}]},
        {"provide": [{"option": "0", "value": "a"}]},
        {"provide": [{"option": "-1", "value": "a"}]},
        {"provide": [{"option": "53", "value": "a"}]},
        {"provide": [{"option": "12", "value": "a" * 256}]},
        {"request": [{"option": "256"}]},
        {"request": [{"option": "\u0661"}]},
    ],
)
def test_options_that_are_none(keys: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError, match=r"ipam\.(provide|request)\[0\]"):
        prepared(**keys)


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_flags(dashes: str) -> None:
    usual = main.parse([])
    assert (usual.socketpath, usual.hostprefix, usual.pidfile) == ("/run/cni/dhcp.sock", "", "")
    assert usual.patience == Patience(10, 62, 208)
    flags = (
        "socketpath=/a pidfile=/b hostprefix=/c broadcast timeout=1m30s resendmax=1.5s resendtimeout=500ms"
    )
    found = main.parse([dashes + flag for flag in flags.split()])
    assert (found.socketpath, found.pidfile, found.hostprefix, found.broadcast) == ("/a", "/b", "/c", True)
    assert (found.patience.timeout, found.patience.resend_max, found.patience.resend_timeout) == (
        90,
        1.5,
        0.5,
    )
    assert main.parse([f"{dashes}socketpath", "/a"]).socketpath == "/a"
    assert not main.parse([f"{dashes}broadcast=false"]).broadcast


@pytest.mark.parametrize(
    "flag", ["-timeout=5", "-timeout=0s", "-timeout=-1s", "-pidfile=here", "-broadcast=2", "-socket=/a", "x"]
)
def test_wrong_flags(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.parse([flag])
    assert caught.value.code == 2
    assert "usage: dhcp daemon" in capsys.readouterr().err


def test_where_leases_are() -> None:
    assert notes.folder_of("/run/cni/dhcp.sock") == "/run/cni/dhcp"
    assert notes.folder_of("/run/x") == "/run/x.leases"
    assert notes.is_lease(notes.name_of("c1", "net", "eth0"))
    assert not notes.is_lease(notes.name_of("c1", "net", "eth0") + notes.RELEASE)
