"""Notes that a DEL or a GC looks for without knowing whether there are any."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from cni_plugins.attach import masquerade, spoofcheck
from cni_plugins.kernel import iptables, netlink, notes
from cni_plugins.spec.request import Request

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

ATTACHMENT = ("net", "c1", "eth0")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))


def test_whether_there_is_one(tmp_path: Path) -> None:
    assert not notes.exists("masquerade", ATTACHMENT)
    notes.begin("masquerade", ATTACHMENT).close()
    assert notes.exists("masquerade", ATTACHMENT)
    assert not notes.exists("masquerade", ("net", "c" * 250, "eth0"))
    (tmp_path / "file").touch()
    assert not notes.exists("file", ATTACHMENT)
    (tmp_path / "loop").symlink_to("loop")
    assert notes.exists("loop", ATTACHMENT)


@pytest.fixture
def _no_netfilter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without nfnetlink, and without iptables' older interface, whose files only root may read."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(netlink.Netlink, "__init__", refuse)
    monkeypatch.setattr(iptables, "_LEGACY_TABLES", dict.fromkeys((4, 6), str(tmp_path / "tables")))


@pytest.mark.usefixtures("_no_netfilter")
@pytest.mark.parametrize("configured", [False, True])
def test_gc_where_the_kernel_has_no_nf_tables(configured: bool) -> None:
    notes.write("masquerade", ATTACHMENT, ["5"])
    notes.write("masquerade", ("other", "c1", "eth0"), ["5"])
    request = Request({"CNI_COMMAND": "GC"}, {"cniVersion": "1.1.0", "name": "net"})
    masquerade.gc(request, set(), configured=configured)
    assert notes.attachments("masquerade") == [("other", "c1", "eth0")]


@pytest.mark.usefixtures("_no_netfilter")
@pytest.mark.parametrize("rules", [masquerade, spoofcheck])
def test_del_where_the_kernel_has_no_nf_tables(rules: ModuleType) -> None:
    """There can be rules of the older iptables only; an ADD that found this out has left its note."""
    notes.begin(rules.__name__.rpartition(".")[2], ATTACHMENT).close()
    env = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
    request = Request(env, {"cniVersion": "1.1.0", "name": "net"})
    for _again in range(2):
        rules.remove(request)
        assert notes.attachments("masquerade") == notes.attachments("spoofcheck") == []
