r"""Reservations on disk, in the reference plugin's own format, so that both can serve one directory.

`<dataDir>/<network>/` has a file for every address that is held, named by the address, with the content
`<container id>\r\n<interface>` (the container id alone in files of early versions); `last_reserved_ip.<n>`
with the address that range set n gave last; and `lock`, on which flock(2) is taken by every operation.

A process may be killed anywhere. An address is held exactly while its file exists with its content, and
releasing it is one unlink(2). What else a kill can leave, the next operation finds, because the index is not
sealed then: a spare file of ours, or an empty reservation of the reference, which makes the file first and
fills it afterwards. It does both under the lock, so for whoever has the lock an empty file's writer is dead
and no container was told of the address: it is free.
"""

from __future__ import annotations

import errno
import posix

from cni_plugins.address import parse_address
from cni_plugins.kernel import files
from ipam.host_local.index import Index, key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

DEFAULT_DATA_DIR = "/var/lib/cni/networks"
_TYPE_MASK = 0o170000
_REGULAR = 0o100000
_NOT_READABLE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)


class Store:
    """The reservations of one network, locked from the start until `close`.

    Args:
        data_dir: where networks are kept; empty: the default.
        network: the network's name.
        create: whether to make the network's directory when it is missing.

    Raises:
        FileNotFoundError: the directory is missing and is not to be made.
        OSError: it cannot be made or locked.
    """

    __slots__ = ("_changed", "_index", "_last_length", "_lock", "_scan", "_unnoted", "folder")

    def __init__(self, data_dir: str, network: str, *, create: bool) -> None:
        data_dir = data_dir or DEFAULT_DATA_DIR
        self.folder = f"{data_dir}/{network}"
        files.refuse_link(self.folder)
        path = f"{self.folder}/lock"
        mode = 0o750  # the reference's: whichever comes first makes it
        try:
            self._lock = files.Lock(path, mode)
        except FileNotFoundError:
            if not create:
                raise
            files.make_directory(self.folder)
            self._lock = files.Lock(path, mode)
        self._index = Index(data_dir, network, self.folder)
        self._scan: dict[str, list[str]] | None = None
        self._changed = self._unnoted = False
        self._last_length: dict[int, int] = {}  # -1: no such file

    def close(self) -> None:
        """Seal the index if anything changed, and let the next one in."""
        try:
            if self._changed and not self._unnoted:
                self._index.seal()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        # An exception during the look at the index must not keep the lock in a process that lives on.
        try:
            if not self._index.sealed():
                self.scan()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def scanned(self) -> bool:
        """Whether the reservations themselves were read in this operation."""
        return self._scan is not None

    def scan(self) -> dict[str, list[str]]:
        """Read every reservation, clear away what killed processes left, and rebuild the index.

        Returns:
            the addresses by holder, as `index.key` names it.
        """
        table: dict[str, list[str]] = {}
        for name in sorted(posix.listdir(self.folder)):
            if not is_address(name):
                if name.startswith(".last_reserved_ip.") and name.endswith(".tmp"):
                    posix.unlink(f"{self.folder}/{name}")
                continue
            content = self._content(name)
            if content == b"" and self._is_empty_file(name):
                posix.unlink(f"{self.folder}/{name}")
            elif content is not None:
                container_id, _, ifname = content.decode("utf-8", "surrogateescape").partition("\r\n")
                table.setdefault(key(container_id, ifname), []).append(name)
        self._index.rebuild(table)
        self._changed = True
        self._scan = table
        return table

    def held(self, container_id: str, ifname: str) -> list[str]:
        """Return the addresses reserved for exactly this holder; without ifname, those of early versions."""
        name = key(container_id, ifname)
        if self._scan is None:
            expected = _content(container_id, ifname)
            addresses = self._index.get(name)
            if addresses is not None and all(self._content(address) == expected for address in addresses):
                return addresses
            self.scan()  # someone wrote into a file that was there, or the disk is failing
        assert self._scan is not None
        return self._scan.get(name, [])

    def names(self) -> set[str]:
        """Return the names of all files: every address that is held, and a few more."""
        return set(posix.listdir(self.folder))

    def prepare(self, container_id: str, ifname: str) -> files.NewFile:
        """Return a reservation for this holder that wants only its name, the address.

        Raises:
            OSError: it cannot be written; nothing is left.
        """
        # A spare name, where one is needed, stays out of the directory in which the reference takes every
        # file for a reservation.
        spare = f"{self._index.path}/spare"
        return files.NewFile(self.folder, spare, _content(container_id, ifname), 0o600)

    def place(self, reservation: files.NewFile, address: str) -> bool:
        """Reserve an address; return False when it is taken.

        Raises:
            OSError: the directory cannot be written.
        """
        if not reservation.place(f"{self.folder}/{address}"):
            return False
        self._changed = self._unnoted = True
        return True

    def note(self, container_id: str, ifname: str, addresses: list[str]) -> None:
        """Tell the index of addresses that were placed."""
        name = key(container_id, ifname)
        before = self._known(name)
        self._put(name, before, sorted({*before, *addresses}))
        self._unnoted = False

    def withdraw(self, container_id: str, ifname: str, addresses: list[str]) -> None:
        """Take back reservations that were placed in this operation.

        Raises:
            OSError: some cannot be removed; the others are.
        """
        self._unlink(addresses)
        name = key(container_id, ifname)
        before = self._known(name)  # a scan meanwhile has found them
        self._put(name, before, [address for address in before if address not in addresses])
        self._unnoted = False

    def release(self, name: str, addresses: list[str]) -> None:
        """Remove reservations; one that is gone already is no error.

        Args:
            name: the holder's, from `index.key`.
            addresses: all that `held` or `scan` says it holds.

        Raises:
            OSError: some cannot be removed; the others are.
        """
        self._changed = True
        self._unlink(addresses)
        self._put(name, addresses, [])

    def last(self, index: int) -> bytes | None:
        """Return the address that a range set gave last; None when that is not known, or damaged."""
        text = files.read(f"{self.folder}/last_reserved_ip.{index}")
        self._last_length[index] = -1 if text is None else len(text)
        try:
            return parse_address((text or b"").decode("ascii"))
        except ValueError:
            return None

    def set_last(self, index: int, address: str) -> None:
        """Note which address a range set gave last; `last` was called before.

        Raises:
            OSError: it cannot be written.
        """
        path = f"{self.folder}/last_reserved_ip.{index}"
        if 0 <= self._last_length[index] <= len(address):
            files.overwrite(path, address.encode())
        else:
            files.write_atomic(path, address.encode(), 0o600)

    def _unlink(self, addresses: list[str]) -> None:
        failure: OSError | None = None
        for address in addresses:
            try:
                posix.unlink(f"{self.folder}/{address}")
            except FileNotFoundError:
                continue
            except OSError as error:
                error.add_note(f"cannot release {address}")
                failure = error
        if failure is not None:
            self._index.give_up()
            raise failure

    def _known(self, name: str) -> list[str]:
        return (self._index.get(name) or []) if self._scan is None else self._scan.get(name, [])

    def _put(self, name: str, before: list[str], after: list[str]) -> None:
        if after != before:
            self._index.put(name, after, replace=bool(before))
        if self._scan is not None:
            self._scan[name] = after

    def _is_empty_file(self, name: str) -> bool:
        status = posix.lstat(f"{self.folder}/{name}")
        return status.st_mode & _TYPE_MASK == _REGULAR and status.st_size == 0

    def _content(self, name: str) -> bytes | None:
        """Return a reservation's content without the white space around it, as the reference compares it."""
        try:
            content = files.read(f"{self.folder}/{name}")
        except OSError as error:
            if error.errno in _NOT_READABLE:
                return None  # a directory, a link, a socket: nobody's reservation, but the name is taken
            raise
        return content.strip() if content is not None else None


def is_address(name: str) -> bool:
    """Tell whether a file in the network's directory is named as a reservation."""
    try:
        parse_address(name)
    except ValueError:
        return False
    return True


def _content(container_id: str, ifname: str) -> bytes:
    text = f"{container_id}\r\n{ifname}" if ifname else container_id
    return text.encode("utf-8", "surrogateescape")
