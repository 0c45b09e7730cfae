"""Where the daemon keeps its leases, and how a plugin leaves word while no daemon runs.

For each lease there is a file in a folder beside the daemon's socket (`/run/cni/dhcp/` for
`/run/cni/dhcp.sock`), named by a hash of the attachment. A file of that name with `.release` at its end asks
for its release. A daemon that starts first listens, then looks for those; a plugin that nobody answers first
writes one, then asks once more: so one of the two sees the other.
"""

from __future__ import annotations

import posix
from _sha512 import sha512  # type: ignore[import-not-found]

from cni_plugins.kernel import files
from cni_plugins.spec.codec import decode
from cni_plugins.spec.errors import DecodeError

DEFAULT_SOCKET = "/run/cni/dhcp.sock"
RELEASE = ".release"
_HASH_LENGTH = 40


def folder_of(socket_path: str) -> str:
    """Return the folder of a daemon's leases."""
    base = socket_path.removesuffix(".sock")
    return base if base != socket_path else f"{socket_path}.leases"


def name_of(container_id: str, network: str, ifname: str) -> str:
    """Return the name of an attachment's file; none of the three can hold a slash."""
    text = f"{container_id}/{network}/{ifname}"
    digest: str = sha512(text.encode("utf-8", "surrogateescape")).hexdigest()
    return digest[:_HASH_LENGTH]


def is_lease(name: str) -> bool:
    """Tell whether a file of the folder is a lease."""
    return len(name) == _HASH_LENGTH and "." not in name


def ask_release(folder: str, name: str) -> bool:
    """Ask for the release of a lease, if there is one; tell whether there is.

    Raises:
        OSError: the request cannot be written.
    """
    files.refuse_link(folder)
    if files.read(f"{folder}/{name}") is None:
        return False
    with files.NewFile(folder, files.temporary_name(f"{folder}/{name}{RELEASE}"), b"") as note:
        note.place(f"{folder}/{name}{RELEASE}")
    return True


def leases(folder: str, network: str) -> dict[str, tuple[str, str]]:
    """Return a network's leases: name of the file to container id and interface name."""
    try:
        names = posix.listdir(folder)
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        data = files.read(f"{folder}/{name}") if is_lease(name) else None
        if not data:
            continue
        try:
            record = decode(data, name)
        except DecodeError:
            continue  # not a daemon's; it says so when it starts
        if isinstance(record, dict) and record.get("network") == network:
            found[name] = (str(record.get("container_id")), str(record.get("ifname")))
    return found
