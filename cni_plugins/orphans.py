"""Programs that outlive the plugin that started them: the attachment's next call waits for their end.

A runtime kills a plugin that takes too long. The program that it had started, iptables or a delegate, runs
on, and would finish its part of the ADD after the DEL that follows: what it made would stay, as it does with
the reference. That it should die with its parent (prctl(2), PR_SET_PDEATHSIG) is no remedy: a delegate's own
children have another parent, and a request that the kernel is at work on is carried out all the same. So
programs hold a lock together with who started them. It is one of an open file description (fcntl(2),
F_OFD_SETLKW), which lasts until the last process that inherited it has ended.

Each attachment has a byte of one file to lock, at an offset that is made of hashes of its names: none waits
for another, and nothing has to be removed. The file comes with the first program that is started, or with the
first GC; before, there is none to look at.

A network has a byte, too, its gate: GC holds it, and an ADD waits there before it begins, since GC could take
what it makes for something left behind. ADDs that began before the GC are in `adding`.
"""

from __future__ import annotations

import fcntl
import posix
from _sha512 import sha512  # type: ignore[import-not-found]
from _struct import Struct

from cni_plugins.lazy import Lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from cni_plugins import adding

    Group = tuple[str, str]
    Member = tuple[str, str]
else:
    adding = Lazy("cni_plugins.adding")

FOLDER = "/run/cni"
PATH = f"{FOLDER}/children.lock"

_FLOCK = Struct("hhqqi4x")
_SEEK_SET = 0
_MEMBER_BITS = 31
_GROUP_BITS = 31
_GATES = 1 << (_MEMBER_BITS + _GROUP_BITS)
_RUNS = "a program that an earlier call started still runs: waiting for its end"
_WORKS = "a call of the network, or a program that one started, still runs: waiting for its end"
_COLLECTS = "a GC of the network still runs: waiting for its end"


class Lock:
    """An attachment's lock, inherited by every program that is started meanwhile; a context manager.

    Leaving it lets the next one in even while such a program runs: only who is killed leaves the lock to it.

    Args:
        path: the file.
        group: who works on it, and its network.
        member: the container and the interface.
        say: is told that another holder's end is waited for, however long that takes: a runtime kills what
            it does not want to wait for.
        create: make the file when it is missing.
        gate: wait for a GC of the network first.

    Raises:
        FileNotFoundError: there is no such file, or no such folder to make it in.
        OSError: it cannot be opened or locked.
    """

    __slots__ = ("_fd", "_offset")

    def __init__(
        self,
        path: str,
        group: Group,
        member: Member,
        say: Callable[[str], object],
        *,
        create: bool,
        gate: bool = False,
    ) -> None:
        self._offset = _offset(group, member)
        self._fd = _open(path, posix.O_CREAT if create else 0)
        posix.set_inheritable(self._fd, True)
        try:
            if gate:
                _take(self._fd, _gate(group), say, _COLLECTS, fcntl.F_RDLCK)
                _set(self._fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _gate(group))
            _take(self._fd, self._offset, say, _RUNS)
        except OSError:
            posix.close(self._fd)
            raise

    def release(self) -> None:
        """Let the next one in."""
        try:
            _set(self._fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, self._offset)
        finally:
            posix.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Gate:
    """The gate of a network, shut: every ADD of it that begins waits until it opens; a context manager.

    Args:
        path: the file, which is made when it is missing.
        group: who works on it, and the network.
        say: is told of a wait.

    Raises:
        FileNotFoundError: there is no folder to make it in.
        OSError: it cannot be opened or locked.
    """

    __slots__ = ("_fd", "_group", "_say")

    def __init__(self, path: str, group: Group, say: Callable[[str], object]) -> None:
        self._group, self._say = group, say
        self._fd = _open(path, posix.O_CREAT)
        try:
            _take(self._fd, _gate(group), say, _COLLECTS)
        except OSError:
            posix.close(self._fd)
            raise

    def settle(self, but: Collection[Member] = ()) -> None:
        """Wait for everybody who works on some attachment of the network now.

        Args:
            but: attachments that are not waited for.

        Raises:
            OSError: a lock cannot be taken.
        """
        passed = {_offset(self._group, member) for member in but}
        first = _first(self._group)
        ranges = [(first, first + (1 << _MEMBER_BITS))]
        while ranges:
            start, end = ranges.pop()
            held = _FLOCK.pack(fcntl.F_WRLCK, _SEEK_SET, start, end - start, 0)
            kind, _whence, at, _length, _pid = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, held))
            if kind == fcntl.F_UNLCK:
                continue
            if at not in passed:
                _take(self._fd, at, self._say, _WORKS)
                _set(self._fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, at)
            # Which of several the kernel names first is not said.
            ranges += [each for each in ((start, at), (at + 1, end)) if each[0] < each[1]]

    def release(self) -> None:
        """Open it."""
        posix.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _open(path: str, flags: int) -> int:
    try:
        return posix.open(path, flags | posix.O_RDWR | posix.O_CLOEXEC | posix.O_NOFOLLOW, 0o600)
    except OSError as error:
        error.add_note("failed to open the lock of running programs")
        raise


def _take(fd: int, offset: int, say: Callable[[str], object], why: str, kind: int = fcntl.F_WRLCK) -> None:
    try:
        _set(fd, fcntl.F_OFD_SETLK, kind, offset)
    except BlockingIOError:
        say(why)
        _set(fd, fcntl.F_OFD_SETLKW, kind, offset)


def _set(fd: int, command: int, kind: int, offset: int) -> None:
    fcntl.fcntl(fd, command, _FLOCK.pack(kind, _SEEK_SET, offset, 1, 0))


def _offset(group: Group, member: Member) -> int:
    return _first(group) + _hash(member, _MEMBER_BITS)


def _gate(group: Group) -> int:
    return _GATES + _hash(group, _GROUP_BITS)


def _first(group: Group) -> int:
    return _hash(group, _GROUP_BITS) << _MEMBER_BITS


def _hash(names: tuple[str, str], bits: int) -> int:
    digest: bytes = sha512("\0".join(names).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 64 - bits


class _Call:
    """The call that this process carries out: whose it is, and the lock once there is one."""

    names: tuple[Group, Member] | None = None
    lock: Lock | Gate | None = None
    say: Callable[[str], object]


def begin(command: str, group: Group, member: Member, say: Callable[[str], object]) -> list[Member]:
    """Begin a call: wait for programs that killed ones before it have left running.

    Args:
        command: the verb; ADD and DEL wait for the attachment's, GC for the network's; ADD for a GC, too.
        group: the plugin and its network.
        member: the container and the interface.
        say: is told of a wait, and of what keeps others from waiting for us.

    Returns:
        On GC: the attachments that are being made, which it has to spare.
    """
    _Call.say = staticmethod(say)
    spared: list[Member] = []
    try:
        if command == "GC":
            spared = _begin_gc(group, say)
        elif command in ("ADD", "DEL"):
            _Call.names = (group, member)
            _Call.lock = Lock(PATH, group, member, say, create=False, gate=command == "ADD")
    except FileNotFoundError:
        return spared  # no plugin of this node has started a program yet
    except OSError as error:
        say(f"programs that an earlier call left running are not waited for: {PATH}: {error.strerror}")
    return spared


def _begin_gc(group: Group, say: Callable[[str], object]) -> list[Member]:
    try:
        _Call.lock = gate = Gate(PATH, group, say)
    except FileNotFoundError:
        return adding.attachments()  # no folder: what else the plugins note is not there either
    except OSError as error:
        say(f"ADDs that begin during this GC are not kept waiting: {PATH}: {error.strerror}")
        return adding.attachments()
    # Whoever passed before the gate was shut is seen here; it may be none of this network's.
    spared = adding.attachments()
    gate.settle(spared)
    return spared


def expect() -> None:
    """Make sure that the program that is about to be started is waited for, whatever becomes of us.

    Where no lock can be made, it is started all the same: without a kill, nobody needs one.
    """
    if _Call.names is None or _Call.lock is not None:
        return
    try:
        try:
            _Call.lock = Lock(PATH, *_Call.names, _Call.say, create=True)
        except FileNotFoundError:
            posix.mkdir(FOLDER, 0o755)
            _Call.lock = Lock(PATH, *_Call.names, _Call.say, create=True)
    except OSError as error:
        _Call.say(f"programs that outlive this call would not be waited for: {PATH}: {error.strerror}")


def end() -> None:
    """End the call: what it started has ended."""
    lock, _Call.names, _Call.lock = _Call.lock, None, None
    try:
        if lock is not None:
            lock.release()
    except OSError as error:  # it ends with us, or with what we started
        _Call.say(f"cannot unlock {PATH}: {error.strerror}")
