"""Notes of what an ADD made, so that DEL need not search: small files, gone at a reboot as rules are.

A note is a help and no authority: it can be missing (a Go plugin did the ADD, /run was cleared), and whoever
reads one checks against the kernel what it says. An attachment is its network, container id and interface
name, as the request checked them: none of the three can hold a colon or a slash. The three are the note's
name; where that is longer than a file's can be, its hash is, and the first line says what it hides.
"""

from __future__ import annotations

import errno
import posix
from _sha512 import sha512  # type: ignore[import-not-found]

from cni_plugins.kernel import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

FOLDER = "/run/cni"
MASQUERADE = "masquerade"
SPOOFCHECK = "spoofcheck"
"""Kinds that a DEL looks for before it loads what made them."""
_HANDLE_DIGITS = 19
_NO_NOTE = (errno.ENOENT, errno.ENOTDIR)
_AT_ONCE = 512
"""Bytes of a file that one write(2) puts there or does not, whoever is killed: less than any page."""
_HASHED = "#"
"""What a name begins with that is a hash; no network's does."""


def path(kind: str, attachment: tuple[str, str, str]) -> str:
    """Return the file of a note, whether there is one or not."""
    return f"{FOLDER}/{kind}/{_name(attachment)}"


def write(kind: str, attachment: tuple[str, str, str], lines: list[str]) -> None:
    """Leave a note, or replace the one that is there.

    Args:
        kind: what it is about: the folder's name ("portmap").
        attachment: whose.
        lines: what to note.

    Raises:
        OSError: it cannot be written.
    """
    files.refuse_link(f"{FOLDER}/{kind}")
    place = path(kind, attachment)
    data = _text(attachment, lines)
    try:
        files.write_atomic(place, data)
    except FileNotFoundError:
        _make_folder(kind)
        files.write_atomic(place, data)


def sweep(kind: str) -> None:
    """Throw away what killed processes left that were replacing a note; for the holder of the lock."""
    for folder in (f"{FOLDER}/{kind}", f"{FOLDER}/{kind}-addresses"):
        files.refuse_link(folder)
        try:
            names = posix.listdir(folder)
        except FileNotFoundError:
            continue
        for name in names:
            if name.startswith("."):
                posix.unlink(f"{folder}/{name}")


class Begun:
    """A note that was there before what it is about; a context manager that lets go of its file.

    Attributes:
        older: the lines of the note that an earlier ADD left, which stands; None: there was none.
    """

    __slots__ = ("_attachment", "_fd", "_kind", "_written", "older")

    def __init__(self, kind: str, attachment: tuple[str, str, str], lines: list[str]) -> None:
        self._kind, self._attachment = kind, attachment
        self._written = _text(attachment, lines)
        self.older: list[str] | None = None
        self._fd = -1
        if _name(attachment).startswith(_HASHED) or len(self._written) > _AT_ONCE:
            self.older = read(kind, attachment)
            if self.older is None:
                write(kind, attachment, lines)
            return
        try:
            self._fd = _create(kind, path(kind, attachment))
        except FileExistsError:
            self.older = read(kind, attachment)
            return
        if self._written:
            try:
                posix.write(self._fd, self._written)
            except OSError as error:
                self.close()
                remove(kind, attachment)
                error.add_note(f"cannot write {path(kind, attachment)}")
                raise

    def fill(self, lines: list[str]) -> None:
        """Note all that there is to note now.

        Raises:
            OSError: it cannot be written.
        """
        data = _text(self._attachment, lines)
        if self._fd < 0 or len(data) > _AT_ONCE or not data.startswith(self._written):
            write(self._kind, self._attachment, lines)
            return
        try:
            posix.write(self._fd, data[len(self._written) :])
        except OSError as error:
            error.add_note(f"cannot write {path(self._kind, self._attachment)}")
            raise
        self._written = data

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin(kind: str, attachment: tuple[str, str, str], lines: list[str] | None = None) -> Begun:
    """Leave a note, unless there is one: for what can only be noted once it is made.

    Whoever finds it without what `fill` adds searches.

    Args:
        kind: what it is about.
        attachment: whose.
        lines: what is known already.

    Raises:
        OSError: it cannot be written, or the one that is there not be read.
    """
    files.refuse_link(f"{FOLDER}/{kind}")
    return Begun(kind, attachment, lines or [])


def read(kind: str, attachment: tuple[str, str, str]) -> list[str] | None:
    """Return the lines of an attachment's note; None when there is none.

    Raises:
        OSError: it cannot be read.
    """
    data = files.read(path(kind, attachment))
    if data is None:
        return None
    lines = data.decode("utf-8", "replace").splitlines()
    return lines[1:] if _name(attachment).startswith(_HASHED) else lines


def exists(kind: str, attachment: tuple[str, str, str]) -> bool:
    """Tell whether an attachment has a note, at the cost of an lstat(2).

    One that cannot be looked at counts: who reads it learns why.
    """
    try:
        posix.lstat(path(kind, attachment))
    except OSError as error:
        return error.errno not in _NO_NOTE
    return True


def handles(kind: str, attachment: tuple[str, str, str]) -> list[int] | None:
    """Return the handles of nftables rules that a note lists; None when there is none, or it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    return handles_in(read(kind, attachment))


def handles_in(lines: list[str] | None) -> list[int] | None:
    """Return the handles that a note's lines list; None when there are none, or it is damaged."""
    if not lines or not all(is_handle(line) for line in lines):
        return None
    return [int(line) for line in lines]


def is_handle(text: str) -> bool:
    """Tell whether a text is a number that a rule can have: 64 bits."""
    return text.isascii() and text.isdigit() and len(text) <= _HANDLE_DIGITS


def remove(kind: str, attachment: tuple[str, str, str]) -> None:
    """Throw a note away; one that is gone already is no error."""
    files.refuse_link(f"{FOLDER}/{kind}")
    files.remove(path(kind, attachment))


def attachments(kind: str) -> list[tuple[str, str, str]]:
    """Return every attachment that has a note of this kind."""
    try:
        names = posix.listdir(f"{FOLDER}/{kind}")
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        whole = _hidden(kind, name) if name.startswith(_HASHED) else name
        network, *rest = whole.split(":")
        if network and len(rest) == 2 and not name.startswith("."):  # what is being written has a dot first
            found.append((network, rest[0], rest[1]))
    return found


def lock(kind: str) -> files.Lock:
    """Keep other processes of ours out while what notes of a kind are about changes; a context manager.

    A program that was started meanwhile holds it until its end, even if we are killed.
    """
    files.refuse_link(f"{FOLDER}/{kind}")
    place = f"{FOLDER}/{kind}/lock"
    try:
        return files.Lock(place, inherit=True)
    except FileNotFoundError:
        _make_folder(kind)
        return files.Lock(place, inherit=True)


def claim(kind: str, address: bytes, attachment: tuple[str, str, str]) -> None:
    """Note whose an address is, in place of whoever had it.

    For rules that do not say themselves whose they are: an address can have passed to another container
    before the one that had it is deleted.

    Raises:
        OSError: it cannot be written.
    """
    write(f"{kind}-addresses", _claim(address), [":".join(attachment)])


def claimed(kind: str, address: bytes) -> tuple[str, str, str] | None:
    """Return the attachment that claimed an address last; None when none has.

    Raises:
        OSError: it cannot be read.
    """
    lines = read(f"{kind}-addresses", _claim(address))
    parts = lines[0].split(":") if lines else []
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None


def release(kind: str, address: bytes) -> None:
    """Throw a claim away; whoever holds the lock has seen whose it is.

    Raises:
        OSError: it cannot be removed.
    """
    remove(f"{kind}-addresses", _claim(address))


def _text(attachment: tuple[str, str, str], lines: list[str]) -> bytes:
    said = [":".join(attachment), *lines] if _name(attachment).startswith(_HASHED) else lines
    return "".join(f"{line}\n" for line in said).encode()


def _make_folder(kind: str) -> None:
    files.make_directory(FOLDER)
    files.make_directory(f"{FOLDER}/{kind}", 0o700)


def _create(kind: str, place: str) -> int:
    """Make an empty file; return its descriptor. One that exists, whatever it is, is an error (EEXIST)."""
    try:
        return files.create(place)
    except FileNotFoundError:
        _make_folder(kind)
        return files.create(place)


def _claim(address: bytes) -> tuple[str, str, str]:
    return "address", address.hex(), ""


def _name(attachment: tuple[str, str, str]) -> str:
    whole = ":".join(attachment)
    return whole if files.name_fits(whole) else _hash(whole)


def _hash(whole: str) -> str:
    return f"{_HASHED}{sha512(whole.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _hidden(kind: str, name: str) -> str:
    """Return the name that a note's hash hides; empty when the note does not say so."""
    try:
        data = files.read(f"{FOLDER}/{kind}/{name}") or b""
    except OSError:
        return ""  # damaged: it must not keep others from GC, and its DEL goes by the hash
    whole = data.partition(b"\n")[0].decode("utf-8", "surrogateescape")
    return whole if _hash(whole) == name and "/" not in whole else ""
