"""Files that hold state: read whole, replaced whole, made whole, locked.

A process can be killed between any two system calls, so that a name never leads to half a file: content is
written to a file without that name, which then gets it in one step.
"""

from __future__ import annotations

import errno
import fcntl
import posix
from _sha512 import sha512  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_CREATE = posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
_TYPE_MASK, _DIRECTORY, _SYMBOLIC_LINK = 0o170000, 0o040000, 0o120000
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR)
"""What open(2) says where O_TMPFILE is unknown: to the filesystem, or to the kernel."""
_NO_SUCH = (errno.ENOENT, errno.ENAMETOOLONG)
_USUAL = 4096
"""Bytes that most files have fewer of: room for more would be mapped and unmapped at each read(2)."""
_NAME_MAX = 255
"""Bytes of a file's name (linux/limits.h)."""


def name_fits(path: str) -> bool:
    """Tell whether a file can have the name that a path ends with: container ids are of any length."""
    return len(path.rpartition("/")[2].encode("utf-8", "surrogateescape")) <= _NAME_MAX


def read(path: str, limit: int = 1 << 20, *, follow: bool = False) -> bytes | None:
    """Return a file's content, or None when it does not exist.

    Args:
        path: the file; where the name is longer than a file's can be, there is none.
        limit: the longest content that is accepted, in bytes.
        follow: whether the name may be a symbolic link, as /etc/resolv.conf often is.

    Raises:
        OSError: it cannot be read, or is longer (EFBIG).
    """
    # O_NONBLOCK: a FIFO of that name must not hold us up
    flags = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | (0 if follow else posix.O_NOFOLLOW)
    try:
        fd = posix.open(path, flags)
    except OSError as error:
        if error.errno in _NO_SUCH:
            return None
        raise _about(error, "read", path) from None
    parts = []
    size, step = 0, _USUAL
    try:
        while size <= limit and (part := posix.read(fd, min(step, limit + 1 - size))):
            parts.append(part)
            size += len(part)
            step = limit + 1 if len(part) == step else _USUAL
    except OSError as error:
        raise _about(error, "read", path) from None
    finally:
        posix.close(fd)
    if size > limit:
        raise _about(OSError(errno.EFBIG, f"longer than {limit} bytes"), "read", path)
    return b"".join(parts)


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Make or replace a file; whoever reads it sees the old content or the new, never a part.

    A kill can leave the new content beside the old one, under a hidden name: the next call takes it away, and
    so does `remove`.

    Raises:
        OSError: it cannot be written; the old content stands.
    """
    folder = path.rpartition("/")[0]
    with NewFile(folder, temporary_name(path), data, mode) as made:
        if not made.place(path):
            made.replace(path)


def create(path: str, mode: int = 0o600) -> int:
    """Make an empty file, which has its name from the start; return a descriptor to write to.

    Raises:
        FileExistsError: something has the name.
        OSError: it cannot be made.
    """
    try:
        return posix.open(path, _CREATE | posix.O_EXCL | posix.O_WRONLY, mode)
    except OSError as error:
        raise _about(error, "make", path) from None


def temporary_name(path: str) -> str:
    """Return the name under which what shall replace a file waits beside it."""
    folder, slash, name = path.rpartition("/")
    spare = f"{folder}{slash}.{name}.tmp"
    if name_fits(spare):
        return spare
    return f"{folder}{slash}.{sha512(name.encode('utf-8', 'surrogateescape')).hexdigest()}.tmp"


def remove(path: str) -> None:
    """Remove a file that `write_atomic` made, and what a killed writer left; none there is no error.

    Raises:
        OSError: it cannot be removed.
    """
    for name in (path, temporary_name(path)):
        try:
            posix.unlink(name)
        except OSError as error:
            if error.errno in _NO_SUCH:
                continue
            raise _about(error, "remove", path) from None


def overwrite(path: str, data: bytes) -> None:
    """Put new content over a file's old one of the same length or less, in one write(2).

    For content that is rewritten at every call and must be no longer than one page: a rename over a file
    makes ext4 start writing to the disk at once (mount option auto_da_alloc), which takes longer than all the
    rest of a call.

    Raises:
        OSError: it cannot be written.
    """
    try:
        # A FIFO in its place would be waited for.
        fd = posix.open(path, posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            posix.pwrite(fd, data, 0)
        finally:
            posix.close(fd)
    except OSError as error:
        raise _about(error, "write", path) from None


def make_directory(path: str, mode: int = 0o755) -> None:
    """Make a directory and those above it that are missing. One that exists is left as it is.

    Raises:
        OSError: it cannot be made, or another kind of file has its name.
    """
    try:
        posix.mkdir(path, mode)
    except FileNotFoundError:
        above = path.rstrip("/").rpartition("/")[0]
        if not above:
            raise
        make_directory(above, mode)
        make_directory(path, mode)
    except FileExistsError as error:
        if posix.stat(path).st_mode & _TYPE_MASK != _DIRECTORY:
            raise _about(error, "make the directory", path) from None
    except OSError as error:
        raise _about(error, "make the directory", path) from None


def refuse_link(folder: str) -> None:
    """Fail when a directory that only this suite has is a symbolic link: what is in it is not ours.

    Raises:
        OSError: ELOOP: it is one.
    """
    try:
        mode = posix.lstat(folder).st_mode
    except FileNotFoundError:
        return
    if mode & _TYPE_MASK == _SYMBOLIC_LINK:
        raise _about(OSError(errno.ELOOP, "it is a symbolic link; remove it"), "use", folder)


def nearest(folder: str) -> str:
    """Return a directory, or the nearest above it that exists: there the rest would be made."""
    try:
        posix.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return nearest(folder.rpartition("/")[0] or "/")
    return folder


def try_writing(folder: str) -> None:
    """Write a byte to a nameless file in a directory: nothing stays, whatever happens.

    Raises:
        OSError: a file could not be made there: no space, no permission, a read-only filesystem.
    """
    try:
        NewFile(folder, temporary_name(f"{folder}/probe"), b"\n").close()
    except OSError as error:
        raise _about(error, "write in", folder) from None


class Lock:
    """An exclusive flock(2) on a file, held until `release` or the process's end.

    Args:
        path: the file; made when it is missing.
        mode: permissions of a file that is made.
        inherit: programs started meanwhile hold it too: one that outlives us, when we are killed, keeps
            others out until it has done its work.
        wait: for another holder to let go; else that is an error.

    Raises:
        BlockingIOError: another holds it, and `wait` is false.
        FileNotFoundError: its directory does not exist.
        OSError: it cannot be opened for writing, or locked.
    """

    __slots__ = ("_fd",)

    def __init__(self, path: str, mode: int = 0o600, *, inherit: bool = False, wait: bool = True) -> None:
        try:
            self._fd = posix.open(path, _CREATE | posix.O_RDWR, mode)
        except OSError as error:
            raise _about(error, "open the lock", path) from None
        try:
            posix.set_inheritable(self._fd, inherit)
            fcntl.flock(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            posix.close(self._fd)
            raise _about(error, "lock", path) from None

    def release(self) -> None:
        """Let the next one in."""
        posix.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class NewFile:
    """A file that is complete before it has a name.

    It has none at all (O_TMPFILE), so that a kill leaves nothing; where the filesystem knows no such files
    (NFS, overlayfs before Linux 6.1) it waits under a spare name.

    Args:
        folder: the directory it will be in.
        spare: a path on the same filesystem, for filesystems without O_TMPFILE, and for `replace`. A file of
            that name is taken to be a dead process's and is replaced.
        data: its content.
        mode: its permissions.

    Raises:
        OSError: it cannot be made; nothing is left.
    """

    __slots__ = ("_fd", "_name", "_source", "_spare")

    def __init__(self, folder: str, spare: str, data: bytes, mode: int = 0o600) -> None:
        self._name = spare
        self._spare = ""
        try:
            self._fd = posix.open(folder, posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC, mode)
            self._source = f"/proc/self/fd/{self._fd}"
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise _about(error, "make a file in", folder) from None
            self._open_spare(spare, mode)
        try:
            _write(self._fd, data)
        except OSError as error:
            self.close()
            raise _about(error, "make a file in", folder) from None

    def _open_spare(self, spare: str, mode: int) -> None:
        try:
            self._fd = posix.open(spare, _CREATE | posix.O_WRONLY | posix.O_NONBLOCK | posix.O_TRUNC, mode)
        except OSError as error:
            raise _about(error, "make", spare) from None
        self._spare = self._source = spare

    def place(self, path: str) -> bool:
        """Give it a name with link(2); return False when something has that name already.

        Raises:
            OSError: the directory cannot be written.
        """
        try:
            # With a src_dir_fd Python calls linkat(2) with AT_SYMLINK_FOLLOW, which /proc/self/fd needs.
            posix.link(self._source, path, src_dir_fd=self._fd)
        except FileExistsError:
            return False
        except OSError as error:
            raise _about(error, "make", path) from None
        return True

    def replace(self, path: str) -> None:
        """Give it the name of a file that exists, in its place.

        Raises:
            OSError: the directory cannot be written.
        """
        try:
            if not self._spare:
                self._take_spare_name()
            posix.rename(self._name, path)
        except OSError as error:
            raise _about(error, "write", path) from None
        self._spare = ""

    def _take_spare_name(self) -> None:
        try:
            posix.link(self._source, self._name, src_dir_fd=self._fd)
        except FileExistsError:  # a dead process's
            posix.unlink(self._name)
            posix.link(self._source, self._name, src_dir_fd=self._fd)
        self._spare = self._name

    def close(self) -> None:
        """Let go of it; without a name it is gone."""
        posix.close(self._fd)
        if self._spare:
            posix.unlink(self._spare)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def _about(error: OSError, doing: str, path: str) -> OSError:
    """Complete an error: read(2) and write(2) do not know the path, link(2) names the wrong one."""
    if not hasattr(error, "__notes__"):
        error.add_note(f"cannot {doing} {path}")
    error.filename, error.filename2 = path, None
    return error
