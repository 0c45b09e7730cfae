"""The index beside the reservations: believed while it is sealed, and never longer."""

from __future__ import annotations

import errno
import os
import posix
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.kernel import files
from cni_plugins.spec.errors import NoAddressError, TeardownError
from ipam.host_local.store import Store
from tests.host_local import addresses, call, config, held

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the directories that are listed from now on."""
    seen: list[str] = []
    listdir = posix.listdir

    def listed(path: str) -> list[str]:
        seen.append(path)
        return listdir(path)

    monkeypatch.setattr(posix, "listdir", listed)
    return seen


def test_no_operation_lists_a_directory_that_only_we_use(tmp_path: Path, listings: list[str]) -> None:
    conf = config(tmp_path, {"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]]})
    call("ADD", conf)
    listings.clear()
    for number in range(20):
        result = call("ADD", conf, f"n{number}")
        call("CHECK", {**conf, "prevResult": result}, f"n{number}")
    for number in range(25):
        call("DEL", conf, f"n{number}")
    assert listings == []
    assert os.listdir(tmp_path / ".index/net") == ["c1:eth0"]


def foreign_add(folder: Path) -> None:
    (folder / "net/10.1.2.50").write_bytes(b"c9\r\neth0")


def foreign_add_in_the_same_tick(folder: Path) -> None:
    """The worst clock: it gives the very times that were there before."""
    before = (folder / "net").stat()
    foreign_add(folder)
    os.utime(folder / "net", ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite(folder: Path) -> None:
    (folder / "net/10.1.2.2").unlink()
    (folder / "net/10.1.2.2").write_bytes(b"c9\r\neth0")


def lose_index(folder: Path) -> None:
    foreign_add(folder)
    shutil.rmtree(folder / ".index")


def damage_index(folder: Path) -> None:
    foreign_add(folder)
    index = folder / ".index/net"
    (index / "c1:eth0").unlink()
    (index / "c1:eth0").write_bytes(b"10.1.2.200")
    (index / "c9:eth0").symlink_to("10.1.2.201")
    (index / "c7:eth0").symlink_to("10.1.2.2")


@pytest.mark.parametrize(
    "change", [foreign_add, foreign_add_in_the_same_tick, rewrite, lose_index, damage_index]
)
@pytest.mark.parametrize("verb", ["DEL", "ADD"])
def test_a_stale_index_is_noticed(
    tmp_path: Path, change: Callable[[Path], None], verb: str, listings: list[str]
) -> None:
    conf = config(tmp_path)
    call("ADD", conf)
    change(tmp_path)
    if verb == "DEL":
        call("DEL", conf, "c9")
        assert set(held(tmp_path)) <= {"10.1.2.2"}
        call("DEL", conf)
        assert held(tmp_path) == {}
    else:
        with pytest.raises(Exception, match="duplicate allocation"):
            call("ADD", conf, "c9")
    assert listings
    listings.clear()
    call("ADD", conf, "c5")
    assert listings == []  # the index is whole again


def test_a_reservation_that_was_written_over_is_not_removed(tmp_path: Path) -> None:
    conf = config(tmp_path)
    call("ADD", conf)
    (tmp_path / "net/10.1.2.2").write_bytes(b"c9\r\neth0")  # no change of the directory
    call("DEL", conf)
    assert held(tmp_path) == {"10.1.2.2": b"c9\r\neth0"}
    call("DEL", conf, "c9")
    assert held(tmp_path) == {}


def test_a_directory_restored_from_a_copy_is_read_again(tmp_path: Path) -> None:
    conf = config(tmp_path)
    call("ADD", conf)
    shutil.copytree(tmp_path / "net", tmp_path / "copy")
    (tmp_path / "copy/10.1.2.3").write_bytes(b"c9\r\neth0")
    shutil.copystat(tmp_path / "net", tmp_path / "copy")
    shutil.rmtree(tmp_path / "net")
    (tmp_path / "copy").rename(tmp_path / "net")
    call("DEL", conf, "c9")
    assert held(tmp_path) == {"10.1.2.2": b"c1\r\neth0"}


def test_an_index_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    conf = config(tmp_path)
    (tmp_path / ".index").write_bytes(b"no directory")
    assert addresses(call("ADD", conf)) == ["10.1.2.2"]
    assert addresses(call("ADD", conf, "c2")) == ["10.1.2.3"]
    call("DEL", conf)
    assert held(tmp_path) == {"10.1.2.3": b"c2\r\neth0"}


def test_empty_reservations_are_free(tmp_path: Path) -> None:
    conf = config(tmp_path, {"subnet": "10.1.2.0/29"}, args={"cni": {"ips": ["10.1.2.4"]}})
    call("ADD", config(tmp_path, {"subnet": "10.1.2.0/29"}), "c0")
    (tmp_path / "net/10.1.2.3").touch()
    (tmp_path / "net/10.1.2.4").touch()
    assert addresses(call("ADD", conf)) == ["10.1.2.4"]
    assert held(tmp_path) == {"10.1.2.2": b"c0\r\neth0", "10.1.2.4": b"c1\r\neth0"}


def test_reservations_emptied_by_a_power_cut_are_found_when_all_seem_taken(tmp_path: Path) -> None:
    conf = config(tmp_path, {"subnet": "10.1.2.0/29"})
    for number in range(5):
        call("ADD", conf, f"c{number}")
    os.truncate(tmp_path / "net/10.1.2.4", 0)
    assert addresses(call("ADD", conf, "c9")) == ["10.1.2.4"]
    call("DEL", conf, "c2")
    assert held(tmp_path)["10.1.2.4"] == b"c9\r\neth0"


@pytest.mark.parametrize("content", [b"", b"junk", b"10.1.2.2\n", b"10.9.9.9", b"\xff" * 5000])
def test_a_damaged_last_reserved_starts_from_the_beginning(tmp_path: Path, content: bytes) -> None:
    conf = config(tmp_path)
    for name in ("c1", "c2"):
        call("ADD", conf, name)
    call("DEL", conf)
    last = tmp_path / "net/last_reserved_ip.0"
    last.write_bytes(content)
    assert addresses(call("ADD", conf, "c3")) == ["10.1.2.2"]
    assert last.read_bytes() == b"10.1.2.2"


def test_last_reserved_when_it_grows_shorter(tmp_path: Path) -> None:
    conf = config(tmp_path, {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.11"})
    for name, expected in (("c1", "9"), ("c2", "10"), ("c1", "11"), ("c1", "9"), ("c1", "11")):
        call("DEL", conf, name)
        assert addresses(call("ADD", conf, name)) == [f"10.1.2.{expected}"]
        assert (tmp_path / "net/last_reserved_ip.0").read_text() == f"10.1.2.{expected}"
    assert sorted(os.listdir(tmp_path / "net")) == ["10.1.2.10", "10.1.2.11", "last_reserved_ip.0", "lock"]


def test_links_and_directories_in_place_of_reservations_are_left_alone(tmp_path: Path) -> None:
    conf = config(tmp_path)
    (tmp_path / "victim").write_bytes(b"c1\r\neth0")
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "10.1.2.2").symlink_to(tmp_path / "victim")
    (folder / "10.1.2.3").mkdir()
    os.mkfifo(folder / "10.1.2.4")
    assert addresses(call("ADD", conf)) == ["10.1.2.5"]
    call("DEL", conf)
    assert (folder / "10.1.2.2").is_symlink()
    assert (tmp_path / "victim").read_bytes() == b"c1\r\neth0"


def test_a_planted_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="Too many levels") as caught:
        call("ADD", config(tmp_path))
    assert caught.value.filename == str(tmp_path / "net/lock")
    assert not (tmp_path / "victim").exists()


def test_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem that knows no O_TMPFILE, as NFS: the same, with a spare name in between."""
    real = posix.open

    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & posix.O_TMPFILE == posix.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return real(path, flags, mode)

    monkeypatch.setattr(posix, "open", refusing)
    conf = config(tmp_path)
    call("ADD", conf)
    (tmp_path / ".index/net/spare").write_bytes(b"left by a dead process")
    call("ADD", conf, "c2")
    assert held(tmp_path) == {"10.1.2.2": b"c1\r\neth0", "10.1.2.3": b"c2\r\neth0"}
    assert sorted(os.listdir(tmp_path / ".index/net")) == ["c1:eth0", "c2:eth0"]
    call("STATUS", conf)
    assert len(os.listdir(tmp_path / "net")) == 4


def test_the_lock_is_released_when_the_first_look_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("ADD", config(tmp_path))
    foreign_add(tmp_path)

    def broken(path: str) -> list[str]:
        raise OSError(errno.EIO, "I/O error", path)

    with monkeypatch.context() as patch:
        patch.setattr(posix, "listdir", broken)
        with pytest.raises(OSError, match="I/O error"):
            call("DEL", config(tmp_path))
    call("DEL", config(tmp_path))
    assert list(held(tmp_path)) == ["10.1.2.50"]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, ending: str) -> None:
    """Make a system call fail with EPERM for one path, as an immutable file does."""
    real = getattr(posix, name)

    def refusing(path: str, *args: Any, **more: Any) -> Any:
        if path.endswith(ending):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        return real(path, *args, **more)

    monkeypatch.setattr(posix, name, refusing)


def test_what_cannot_be_released_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    conf = config(tmp_path, {"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]]})
    for container in ("c1", "c2", "c3"):
        call("ADD", conf, container)
    with monkeypatch.context() as patch:
        refuse(patch, "unlink", "/10.1.2.2")
        with pytest.raises(PermissionError) as caught:
            call("DEL", conf)
        assert caught.value.__notes__ == ["cannot release 10.1.2.2"]
        assert sorted(held(tmp_path)) == ["10.1.2.2", "10.1.2.3", "10.1.2.4", "fd00::3", "fd00::4"]
        with pytest.raises(TeardownError) as both:
            call("GC", {**conf, "cni.dev/valid-attachments": [{"containerID": "c3", "ifname": "eth0"}]})
        assert both.value.msg == ("host-local: cannot release 10.1.2.2 of c1:eth0: Operation not permitted")
        assert "released 10.1.2.3, fd00::3 of c2:eth0" in capfd.readouterr().err
    call("DEL", conf)
    assert sorted(held(tmp_path)) == ["10.1.2.4", "fd00::4"]


def test_a_reservation_that_goes_while_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("ADD", config(tmp_path))
    real = posix.unlink
    with monkeypatch.context() as patch:
        patch.setattr(posix, "unlink", lambda path: (real(path), real(path)))
        call("DEL", config(tmp_path))
    assert held(tmp_path) == {}


def test_a_directory_that_cannot_be_sealed_is_read_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listings: list[str]
) -> None:
    refuse(monkeypatch, "utime", "/net")  # what the kernel says to those who do not own it
    call("ADD", config(tmp_path))
    listings.clear()
    call("DEL", config(tmp_path))
    assert listings
    assert held(tmp_path) == {}


def test_an_index_that_is_full_is_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listings: list[str]
) -> None:
    call("ADD", config(tmp_path))
    foreign_add(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(posix, "symlink", lambda _target, path: refused(path))
        call("ADD", config(tmp_path), "c2")
    listings.clear()
    call("DEL", config(tmp_path), "c2")
    assert listings
    assert sorted(held(tmp_path)) == ["10.1.2.2", "10.1.2.50"]


def refused(path: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def test_a_draft_left_by_a_killed_process_is_removed(tmp_path: Path) -> None:
    call("ADD", config(tmp_path))
    (tmp_path / "net/.last_reserved_ip.0.77.tmp").write_bytes(b"10.1")
    call("DEL", config(tmp_path))
    assert held(tmp_path) == {}


def test_a_scan_between_two_sets_is_undone_with_the_rest(tmp_path: Path) -> None:
    """The second set is exhausted: the first one's address is in the index already when it is taken back."""
    conf = config(tmp_path, {"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.2.0.0/30"}]]})
    call("ADD", conf)
    with pytest.raises(NoAddressError):
        call("ADD", conf, "c2")
    assert os.listdir(tmp_path / ".index/net") == ["c1:eth0"]
    assert sorted(held(tmp_path)) == ["10.1.2.2", "10.2.0.2"]


def test_an_unreadable_reservation_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("ADD", config(tmp_path))
    refuse(monkeypatch, "open", "/10.1.2.2")
    with pytest.raises(PermissionError) as caught:
        call("DEL", config(tmp_path))
    assert caught.value.__notes__ == [f"cannot read {tmp_path}/net/10.1.2.2"]


def test_an_unreadable_index_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("ADD", config(tmp_path))
    call("ADD", config(tmp_path), "c2")
    with monkeypatch.context() as patch:
        refuse(patch, "readlink", "/c1:eth0")
        call("DEL", config(tmp_path))
    assert list(held(tmp_path)) == ["10.1.2.3"]
    call("DEL", config(tmp_path), "c2")
    assert held(tmp_path) == {}


def test_what_cannot_be_withdrawn_does_not_hide_why_or_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    conf = config(
        tmp_path,
        {"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "fd01::/64"}]]},
    )
    with monkeypatch.context() as patch:
        refuse(patch, "unlink", "/10.1.2.2")
        real = posix.link

        def full(source: str, path: str, **more: Any) -> None:
            if path.endswith("/fd01::2"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, path)
            real(source, path, **more)

        patch.setattr(posix, "link", full)
        with pytest.raises(OSError, match="No space left on device"):
            call("ADD", conf)
    assert list(held(tmp_path)) == ["10.1.2.2"]
    assert "undoing a failed ADD: cannot release 10.1.2.2: " in capfd.readouterr().err
    call("DEL", conf)
    assert held(tmp_path) == {}


def test_files(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    assert files.read(path) is None
    files.write_atomic(path, b"12345")
    assert files.read(path) == b"12345"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="longer than 4 bytes"):
        files.read(path, 4)
    files.overwrite(path, b"abcdef")
    assert files.read(path) == b"abcdef"
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(OSError, match="levels of symbolic"):
        files.read(str(tmp_path / "link"))
    assert files.read(str(tmp_path / "link"), follow=True) == b"abcdef"
    with pytest.raises(IsADirectoryError) as caught:
        files.write_atomic(str(tmp_path), b"x")
    assert caught.value.__notes__ == [f"cannot write {tmp_path}"]
    files.make_directory(str(tmp_path / "x/y/z"))
    files.make_directory(str(tmp_path / "x/y/z"))
    with pytest.raises(FileExistsError):
        files.make_directory(path)
    with pytest.raises(NotADirectoryError):
        files.make_directory(path + "/b")
    assert sorted(os.listdir(tmp_path)) == ["a", "link", "x"]


def test_store_of_a_missing_network(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Store(str(tmp_path), "net", create=False)
    assert os.listdir(tmp_path) == []
