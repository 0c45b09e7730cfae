"""The leases on disk, so that a daemon that is started again knows them (see `ipam.dhcp.notes`)."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

from cni_plugins.kernel import files
from ipam.dhcp import notes
from ipam.dhcp.daemon.bound import Bound
from ipam.dhcp.daemon.packet import Message

_log = logging.getLogger(__name__)
_BOOT = "/proc/sys/kernel/random/boot_id"


@dataclass(slots=True)
class Record:
    """All that must be known of a lease to go on with it.

    Attributes:
        container_id: the container.
        network: the network's name.
        ifname: the interface in the container.
        netns: the namespace's path.
        namespace: its identity.
        mac: the interface's hardware address, in hexadecimal as everything that is bytes.
        options: what every message has.
        broadcast: have answers broadcast.
        priority: metric of the routes.
        message: the acknowledgement, or the offer that was accepted.
        hardware: where it came from.
        start: when it was asked for, in seconds since the boot (CLOCK_BOOTTIME).
        accepted: the message is an acknowledgement, and the plugin was told of it.
        configured: the interface has, or will get, the address.
        boot: which boot.
    """

    container_id: str
    network: str
    ifname: str
    netns: str
    namespace: str
    mac: str
    options: dict[str, str]
    broadcast: bool
    priority: int
    message: str = ""
    hardware: str = ""
    start: float = 0.0
    accepted: bool = False
    configured: bool = True
    boot: str = ""

    @property
    def name(self) -> str:
        """The name of its file."""
        return notes.name_of(self.container_id, self.network, self.ifname)

    @property
    def who(self) -> str:
        """What a log calls it."""
        return f"{self.container_id}/{self.network}/{self.ifname}"

    def note(self, held: Bound, *, accepted: bool) -> None:
        """Take over what a server said."""
        self.message = held.message.encode().hex()
        self.hardware = held.hardware.hex()
        self.start = held.start
        self.accepted = accepted

    def bound(self) -> Bound | None:
        """Return what a server said; None when none has.

        Raises:
            ValueError: the record is damaged.
        """
        if not self.message:
            return None
        return Bound.of(Message.decode(bytes.fromhex(self.message)), bytes.fromhex(self.hardware), self.start)


class Store:
    """A folder of records.

    Args:
        folder: made with permissions 0700 when it is missing.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        files.refuse_link(folder)
        files.make_directory(folder, 0o700)
        with open(_BOOT, encoding="ascii") as file:
            self._boot = file.read().strip()

    def save(self, record: Record) -> None:
        """Write a record, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        record.boot = self._boot
        files.write_atomic(f"{self._folder}/{record.name}", json.dumps(asdict(record)).encode())

    def remove(self, name: str) -> None:
        """Forget a record, and a request to release it."""
        for path in (f"{self._folder}/{name}", f"{self._folder}/{name}{notes.RELEASE}"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def release_asked(self, name: str) -> bool:
        """Tell whether a plugin asked for a lease's release while no daemon ran."""
        return os.path.exists(f"{self._folder}/{name}{notes.RELEASE}")

    def load(self) -> list[Record]:
        """Return the records of this boot; what is of an earlier one, or of a killed daemon, is removed."""
        found = []
        for name in sorted(os.listdir(self._folder)):
            path = f"{self._folder}/{name}"
            if name.endswith(".tmp"):
                os.unlink(path)
                continue
            if not notes.is_lease(name):
                continue
            try:
                record = _parse(files.read(path) or b"")
                record.bound()
            except (ValueError, TypeError) as error:
                _log.warning("%s is no lease, and is removed: %s", path, error)
                self.remove(name)
                continue
            if record.boot == self._boot:
                found.append(record)
            else:
                self.remove(name)  # its container ended with that boot
        for name in os.listdir(self._folder):
            lease = name.removesuffix(notes.RELEASE)
            if name != lease and not os.path.exists(f"{self._folder}/{lease}"):
                os.unlink(f"{self._folder}/{name}")
        return found


def _parse(data: bytes) -> Record:
    fields: Any = json.loads(data)
    if not isinstance(fields, dict):
        raise TypeError("not an object")
    return Record(**fields)
