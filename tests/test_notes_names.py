"""Notes of what an ADD made: their files' names, of attachments of any length."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.kernel import files, notes

if TYPE_CHECKING:
    from pathlib import Path

KIND = "portmap"
SHORT = ("net", "c1", "eth0")
LONG = ("net", "c" * 250, "eth0")
OTHER = ("net", "c" * 249 + "d", "eth0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(notes, "FOLDER", str(tmp_path))
    return tmp_path / KIND


def hashed(attachment: tuple[str, str, str]) -> str:
    return "#" + hashlib.sha512(":".join(attachment).encode()).hexdigest()


def attachment_of(length: int) -> tuple[str, str, str]:
    """Return an attachment whose name has so many bytes, one of them a letter of two."""
    return "net", "c" * (length - len("net::eth\u00e9".encode())), "eth\u00e9"


@pytest.mark.parametrize("attachment", [SHORT, attachment_of(250), attachment_of(255)])
def test_a_name_that_a_file_can_have(folder: Path, attachment: tuple[str, str, str]) -> None:
    """The format of earlier versions."""
    notes.write(KIND, attachment, ["a", "b"])
    notes.write(KIND, attachment, ["one", "two"])
    assert [path.name for path in folder.iterdir()] == [":".join(attachment)]
    assert (folder / ":".join(attachment)).read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("attachment", [LONG, OTHER, attachment_of(256), ("n" * 300, "c" * 5000, "eth0")])
def test_a_longer_one(folder: Path, attachment: tuple[str, str, str]) -> None:
    for lines in (["a", "b"], ["1"]):
        notes.write(KIND, attachment, lines)
        assert [path.name for path in folder.iterdir()] == [hashed(attachment)]
        assert notes.read(KIND, attachment) == lines
        assert notes.exists(KIND, attachment)
        assert notes.path(KIND, attachment) == str(folder / hashed(attachment))
    assert notes.handles(KIND, attachment) == [1]
    notes.begin(KIND, attachment).close()
    assert notes.read(KIND, attachment) == ["1"]
    assert notes.attachments(KIND) == [attachment]
    for _again in range(2):
        notes.remove(KIND, attachment)
        assert notes.read(KIND, attachment) is None
        assert not notes.exists(KIND, attachment)
    assert list(folder.iterdir()) == []


def test_several(folder: Path) -> None:
    for attachment in (SHORT, LONG, OTHER):
        notes.begin(KIND, attachment).close()
        assert notes.read(KIND, attachment) == []
        assert notes.handles(KIND, attachment) is None
    with notes.lock(KIND):
        (folder / f".{hashed(LONG)}.tmp").touch()
        notes.sweep(KIND)
    assert sorted(notes.attachments(KIND)) == sorted((SHORT, LONG, OTHER))
    notes.remove(KIND, LONG)
    assert sorted(notes.attachments(KIND)) == sorted((SHORT, OTHER))


def test_claims(folder: Path) -> None:
    notes.claim(KIND, b"\x0a\1\2\3", LONG)
    assert notes.claimed(KIND, b"\x0a\1\2\3") == LONG
    notes.release(KIND, b"\x0a\1\2\3")
    assert notes.claimed(KIND, b"\x0a\1\2\3") is None
    assert not folder.exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"net:c1:eth0\n", b"\xff\xfe\n", ":".join(OTHER).encode()])
def test_one_that_does_not_say_whose_it_is(folder: Path, content: bytes) -> None:
    notes.begin(KIND, LONG).close()
    (folder / hashed(LONG)).write_bytes(content)
    assert notes.attachments(KIND) == []
    assert notes.read(KIND, LONG) == []
    notes.remove(KIND, LONG)
    assert list(folder.iterdir()) == []


def test_one_that_leads_elsewhere_or_cannot_be_read(folder: Path) -> None:
    climbing = ("net", "../" * 90 + "c1", "eth0")
    notes.begin(KIND, SHORT).close()
    (folder / hashed(climbing)).write_text(":".join(climbing) + "\n")
    (folder / hashed(LONG)).mkdir()
    assert notes.attachments(KIND) == [SHORT]


@given(st.integers(1, 600))
def test_what_waits_to_replace_a_file_has_a_name_that_fits(length: int) -> None:
    name = files.temporary_name("/folder/" + "n" * length)
    assert name.startswith("/folder/.")
    assert files.name_fits(name)
    assert length > 250 or name == f"/folder/.{'n' * length}.tmp"


def test_a_file_whose_name_is_too_long_is_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / ("n" * 256))
    assert files.read(path) is None
    files.remove(path)
    with pytest.raises(OSError, match="File name too long"):
        files.write_atomic(path, b"")
