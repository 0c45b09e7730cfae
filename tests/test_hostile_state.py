"""State that somebody spoilt: what once ended in a fault, or reached files of others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.attach import homecoming
from cni_plugins.kernel import files, notes
from cni_plugins.plugins import tuning
from cni_plugins.rules.portmap_note import Note
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CNIError
from conflist.cache import Attachment, Cache
from conflist.load import load_network
from ipam.dhcp import notes as dhcp
from ipam.host_local.index import Index
from ipam.host_local.store import Store
from tests import hostile
from tests.calls import variables
from tests.host_local import call as ask
from tests.host_local import config

if TYPE_CHECKING:
    from pathlib import Path

ATTACHMENT = ("net", "c1", "eth0")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no plugin has to do with."""
    made = tmp_path / "outside"
    made.mkdir()
    for name in ("precious", "net", "lock", ".x.tmp"):
        (made / name).write_text("mine")
    return made


def untouched(folder: Path) -> bool:
    return {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("precious", "net", "lock", ".x.tmp"), "mine"
    )


@pytest.mark.parametrize("link", [".index", ".index/net"])
def test_an_index_that_is_a_link(tmp_path: Path, outside: Path, link: str) -> None:
    """To rebuild the index is to clear its folder."""
    data = tmp_path / "data"
    (data / link).parent.mkdir(parents=True)
    (data / link).symlink_to(outside)
    assert ask("ADD", config(data))["ips"]
    ask("DEL", config(data))
    assert untouched(outside)
    assert not (data / link).is_symlink()


def test_a_network_folder_that_is_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "net").symlink_to(outside)
    with pytest.raises(OSError, match="it is a symbolic link; remove it"):
        Store(str(tmp_path / "data"), "net", create=True)
    assert untouched(outside)


def test_a_folder_of_notes_that_is_a_link(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))
    (tmp_path / "portmap").symlink_to(outside)
    for act in (
        lambda: notes.write("portmap", ATTACHMENT, ["x"]),
        lambda: notes.remove("portmap", ATTACHMENT),
        lambda: notes.lock("portmap"),
        lambda: notes.sweep("portmap"),
        lambda: dhcp.ask_release(str(tmp_path / "portmap"), "net"),
    ):
        with pytest.raises(OSError, match="it is a symbolic link"):
            act()
    assert untouched(outside)
    files.refuse_link(str(tmp_path / "nothing"))


@pytest.mark.parametrize("line", ["9" * 20, "9" * 5000, "-1", "x", "", "\u0663"])
def test_a_handle_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))
    notes.write("masquerade", ATTACHMENT, ["5", line])
    assert notes.handles("masquerade", ATTACHMENT) is None


def test_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))
    assert notes.handles("masquerade", ATTACHMENT) is None
    notes.write("masquerade", ATTACHMENT, ["5", "9" * 19])
    assert notes.handles("masquerade", ATTACHMENT) == [5, int("9" * 19)]


@pytest.mark.parametrize(
    "line",
    [
        "rule 4 hostports 99999999999999999999",
        "rule 4 hostports -1",
        "rule 5 hostports 1",
        f"rule 4 {'x' * 300} 1",
        "udp 65536 any",
        f"udp {'9' * 5000} any",
        "udp \u0663 any",
    ],
)
def test_a_note_of_portmap_that_no_kernel_takes(line: str) -> None:
    assert Note.parse(["backend nftables", "address 10.1.2.3", line]) is None
    assert Note.parse(["backend nftables", "rule 6 hostports 18446744073709551615"]) is not None


@pytest.mark.parametrize("path", ["precious", "", "x\0y", "c1_eth0.json", "{folder}/precious"])
def test_a_note_of_tuning_that_names_another_file(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))
    monkeypatch.chdir(outside)
    notes.write("tuning-stashes", ATTACHMENT, [path.format(folder=outside)])
    tuning._forget(ATTACHMENT)
    assert untouched(outside)
    assert notes.attachments("tuning-stashes") == []


def test_an_allow_list_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its expressions would be tried for seconds."""
    listed = tmp_path / "allowlist.conf"
    monkeypatch.setattr(tuning, "_ALLOWLIST", str(listed))

    def refusal(verb: str) -> dict[str, Any]:
        raw = hostile.valid("tuning", verb, str(tmp_path), "1.1.0")
        del raw["mtu"], raw["mac"]  # STATUS would try whether their notes have a place on this machine
        with pytest.raises((CNIError, OSError)) as caught:
            skel.serve(tuning.PLUGIN, variables(verb, str(tmp_path)), raw)
        return skel.as_cni_error(caught.value).to_json("1.1.0")

    listed.write_bytes(b"\n" * tuning._LONGEST_LIST)
    assert "is not allowed" in str(refusal("ADD")["msg"])
    for size in (tuning._LONGEST_LIST + 1, 1 << 20):
        listed.write_bytes(b"a" * size)
        said = refusal("ADD")
        assert said["code"] == 100
        assert f"cannot read {listed}: longer than {tuning._LONGEST_LIST} bytes" in str(said["msg"])
        said = refusal("STATUS")
        assert (said["code"], "longer than" in str(said["msg"])) == (50, True)


def test_a_cache_whose_draft_is_a_link(tmp_path: Path, outside: Path) -> None:
    attachment = Attachment("c1", netns="/no")
    attachment.network, attachment.result = "net", {"cniVersion": "1.0.0"}
    cache = Cache(str(tmp_path))
    cache.write(attachment)
    draft = files.temporary_name(cache.path("net", "c1", "eth0"))
    os.symlink(outside / "precious", draft)
    cache.write(attachment)
    assert untouched(outside)
    assert cache.read("net", "c1", "eth0")


def test_files_that_never_end_or_never_begin(tmp_path: Path) -> None:
    """A FIFO would be waited for, a device read for ever."""
    results = tmp_path / "results"
    results.mkdir()
    os.mkfifo(results / "net-c1-eth0")
    (results / "net-c2-eth0").symlink_to("/dev/zero")
    cache = Cache(str(tmp_path))
    assert cache.attachments() == []
    assert cache.read("net", "c2", "eth0") is None
    os.mkfifo(tmp_path / "10-a.conflist")
    (tmp_path / "20-b.conflist").symlink_to("/dev/zero")
    with pytest.raises(Exception, match=r"10-a\.conflist"):
        load_network(str(tmp_path), "net")


def test_a_last_address_that_is_a_fifo(tmp_path: Path) -> None:
    """What was given last is written over, not waited for."""
    os.mkfifo(tmp_path / "last_reserved_ip.0")
    with pytest.raises(OSError, match="No such device or address"):
        files.overwrite(str(tmp_path / "last_reserved_ip.0"), b"10.1.2.3")


def test_an_index_that_is_in_order_has_no_link_removed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    index = Index(str(tmp_path), "net", str(tmp_path / "net"))
    index.rebuild({"c1:eth0": ["10.1.2.3"]})
    index.rebuild({"c1:eth0": ["10.1.2.3"]})
    assert index.get("c1:eth0") == ["10.1.2.3"]


@pytest.mark.parametrize("lines", [[], ["dev7"], ["dev7", "", "up", "veth", "more"], ["a/b", "", "up", ""]])
def test_a_note_of_host_device_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))
    notes.write(homecoming.KIND, ATTACHMENT, lines)
    assert homecoming._noted(ATTACHMENT) is None
