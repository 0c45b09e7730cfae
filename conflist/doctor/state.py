"""What plugins keep in files, by attachment: notes below /run/cni, leases of dhcp, stashes of tuning."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_plugins.address import format_address
from cni_plugins.kernel import files
from cni_plugins.kernel import notes as system
from cni_plugins.rules.firewall import Note
from cni_plugins.spec.codec import decode
from cni_plugins.spec.errors import CNIError
from ipam.dhcp import notes as dhcp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

YOUNG = 60.0
"""Seconds in which an ADD is over: what is younger may belong to one that has not been cached yet."""
LEASE = "dhcp"
_STASHES = "tuning-stashes"
_STASH_DIR = "/run/cni/tuning"
_STASH_END = ".json"


@dataclass(frozen=True)
class Kept:
    """A file of an attachment.

    Attributes:
        kind: the folder's name for a note; LEASE.
        network: its name.
        container_id: the container.
        ifname: its interface.
        path: the file.
        young: an ADD that still runs may have made it.
        netns: the namespace's path, where the file says it.
        addresses: the container's, where the file says them.
        tells: paths of other files that it tells of.
    """

    kind: str
    network: str
    container_id: str
    ifname: str
    path: str
    young: bool
    netns: str = ""
    addresses: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()


def is_young(path: str) -> bool:
    """Tell whether a file may be of an ADD that still runs."""
    try:
        return time.time() - os.stat(path).st_mtime < YOUNG
    except OSError:
        return True  # gone meanwhile: whoever has it works


def notes() -> Iterator[Kept]:
    """Return the notes of all networks."""
    for kind in _names(system.FOLDER):
        if kind.endswith("-addresses") or not os.path.isdir(f"{system.FOLDER}/{kind}"):
            continue  # claims go with the notes of firewall
        for attachment in sorted(system.attachments(kind)):
            path = system.path(kind, attachment)
            try:
                lines = system.read(kind, attachment)
            except OSError:
                continue
            note = Note.parse(lines) if kind == "firewall" else None
            held = tuple(format_address(each.address) for each in note.addresses) if note else ()
            tells = tuple(lines or ()) if kind == _STASHES else ()
            yield Kept(kind, *attachment, path, is_young(path), addresses=held, tells=tells)


def leases(network: str, plugins: Iterable[dict[str, Any]]) -> Iterator[Kept]:
    """Return the leases that dhcp's daemon has for a network.

    Args:
        network: its name.
        plugins: its plugin objects.
    """
    sockets = set()
    for plugin in plugins:
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == "dhcp":
            sockets.add(str(ipam.get("daemonSocketPath") or dhcp.DEFAULT_SOCKET))
    for folder in sorted(map(dhcp.folder_of, sockets)):
        for name in filter(dhcp.is_lease, _names(folder)):
            path = f"{folder}/{name}"
            try:
                record = decode(files.read(path) or b"", path)
            except (OSError, CNIError):
                continue  # the daemon says so when it starts
            if isinstance(record, dict) and record.get("network") == network:
                container, ifname, netns = (
                    str(record.get(key) or "") for key in ("container_id", "ifname", "netns")
                )
                yield Kept(LEASE, network, container, ifname, path, is_young(path), netns)


def is_awaited(lease: Kept) -> bool:
    """Tell whether a lease only waits for a daemon that releases it."""
    return os.path.exists(f"{lease.path}{dhcp.RELEASE}")


def stashes(plugins: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Return the files of tuning's, each with its name: container id, `_`, interface name."""
    folders = {str(each.get("dataDir") or _STASH_DIR) for each in plugins if each.get("type") == "tuning"}
    for folder in sorted(folders):
        for name in _names(folder):
            if name.endswith(_STASH_END) and not name.startswith("."):
                yield f"{folder}/{name}", name.removesuffix(_STASH_END)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
