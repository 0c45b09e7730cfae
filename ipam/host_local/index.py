"""Which addresses a container holds, without reading every reservation.

The reservations are the truth (`store`); this is a shortcut through them, beside them: in
`<dataDir>/.index/<network>/` a symbolic link `<container id>:<interface>` leads to `<address>[,<address>…]`.
No network's name begins with a dot, and the reference plugin, which reads every file below a network's own
directory, never comes here. A link is made and read by one system call each and is never half written.

Anyone may change the reservations at any time: a Go plugin, an operator with rm. So the index is believed
only while both directories carry the seal of our last operation:

- the network's directory has a modification time that `seal` set, two seconds before its change time.
  Whatever adds or removes a file there makes the kernel set both to one value, so that even a change in the
  same clock tick, on a filesystem that counts whole seconds, or with the clock set back, breaks the seal;
- the index's directory has the same modification time, and, as its access time, the other's change time,
  which no program can set: a directory restored from an archive does not match either.

The seal is broken by the first step of every operation, and put on after its last one: a process killed in
between leaves it broken. Someone who writes into an existing reservation does not break it; therefore the
content is always compared as well (`store`).
"""

from __future__ import annotations

import posix
from _sha512 import sha512  # type: ignore[import-not-found]  # hashlib's core, without hashlib

from cni_plugins.kernel import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_NAME = 255
_AGE = 2_000_000_000
"""How far back the seal's time lies, in ns: more than any filesystem's granularity."""


def key(container_id: str, ifname: str) -> str:
    """Return the name of a holder's link. Older reservations have no interface name.

    Identifiers have no colon and interface names neither, so the name is theirs alone. One that is no file
    name, since the reservation was written by hand or the identifier is very long, is hashed.
    """
    name = f"{container_id}:{ifname}"
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > _LONGEST_NAME or "/" in name or "\0" in name or not name[0].isalnum():
        return f"#{sha512(raw).hexdigest()}"
    return name


class Index:
    """The index of one network; to be used under its lock only.

    Args:
        data_dir: where networks are kept.
        network: the network's name.
        folder: its directory, which exists.
    """

    __slots__ = ("_folder", "_usable", "path")

    def __init__(self, data_dir: str, network: str, folder: str) -> None:
        self.path = f"{data_dir}/.index/{network}"
        self._folder = folder
        self._usable = True

    def sealed(self) -> bool:
        """Tell whether nobody changed anything since the last `seal`."""
        try:
            ours = posix.lstat(self.path)
        except OSError:
            return False
        theirs = posix.stat(self._folder)
        return (
            theirs.st_mtime_ns < theirs.st_ctime_ns  # no file was added or removed since a seal
            and ours.st_mtime_ns == theirs.st_mtime_ns
            and ours.st_atime_ns == theirs.st_ctime_ns
        )

    def seal(self) -> None:
        """Vouch for the index, unless a step of this operation could not be written to it."""
        if not self._usable:
            return
        try:
            # The time of the change that is sealed: asking the clock itself takes longer, since the module
            # reads the time zone first.
            stamp = posix.stat(self._folder).st_ctime_ns - _AGE
            posix.utime(self._folder, ns=(stamp, stamp))
            status = posix.stat(self._folder)
            posix.utime(self.path, ns=(status.st_ctime_ns, status.st_mtime_ns))
        except OSError:
            self._usable = False  # not our directory: the next operation reads the reservations

    def give_up(self) -> None:
        """Leave the index unsealed: it does not say what is there."""
        self._usable = False

    def get(self, name: str) -> list[str] | None:
        """Return what a link leads to: nothing when there is no such link, None when it cannot be read."""
        try:
            return posix.readlink(f"{self.path}/{name}").split(",")
        except FileNotFoundError:
            return []
        except OSError:
            return None

    def put(self, name: str, addresses: list[str], *, replace: bool) -> None:
        """Make a link lead to these addresses; remove it when there are none.

        Args:
            name: the holder's, from `key`.
            addresses: what it holds now.
            replace: whether there is such a link already.
        """
        path = f"{self.path}/{name}"
        try:
            if replace:
                posix.unlink(path)
            if addresses:
                posix.symlink(",".join(addresses), path)
        except OSError:
            self._usable = False  # no space, or too long a list: without a seal the index does no harm

    def rebuild(self, table: Mapping[str, list[str]]) -> None:
        """Make the index say what the table says; links that are right already are left alone."""
        try:
            for folder in (self.path.rpartition("/")[0], self.path):
                _remove_link(folder)
            files.make_directory(self.path, 0o700)
            present = set(posix.listdir(self.path))
            for name in present - table.keys():
                posix.unlink(f"{self.path}/{name}")
        except OSError:
            self._usable = False
            return
        for name, addresses in table.items():
            if name not in present:
                self.put(name, addresses, replace=False)
            elif self.get(name) != addresses:
                self.put(name, addresses, replace=True)
            if not self._usable:
                return


def _remove_link(path: str) -> None:
    """Remove a symbolic link in the place of a directory of ours: what it leads to is not to be cleared."""
    try:
        posix.readlink(path)
    except OSError:  # EINVAL: it is none
        return
    posix.unlink(path)
