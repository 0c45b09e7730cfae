"""The cache of attachments, in libcni's own file format, so that either can read the other's.

`<folder>/results/<network>-<container id>-<interface name>` holds what DEL, CHECK and GC need when the
runtime that did the ADD is gone: the list as it was then, the arguments and the final result. Where that is
longer than a file's name can be, or is another attachment's, too (all three can hold hyphens), the name is a
hash: what a file is about, it says itself.
"""

from __future__ import annotations

import binascii
import os
from _sha512 import sha512  # type: ignore[import-not-found]  # hashlib brings in OpenSSL

from cni_plugins.kernel import files
from cni_plugins.spec.codec import MAX_BYTES, decode, encode
from cni_plugins.spec.errors import CNIError, DecodeError, InvalidConfigError, InvalidEnvironmentError
from cni_plugins.spec.request import ifname_problem, valid_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DEFAULT_FOLDER = "/var/lib/cni"
KIND = "cniCacheV1"
_HASHED = "#"
"""What a name begins with that is a hash; no network's does."""
_LOCK = "cnictl.lock"
"""Beside `results`, where libcni looks at every file."""


class Attachment:
    """One container's interface on a network: what a runtime asks for, and what came of it.

    Attributes:
        container_id: CNI_CONTAINERID.
        ifname: the interface's name in the container.
        netns: path of the container's namespace; may be empty for DEL.
        args: CNI_ARGS as pairs.
        capabilities: capability name to its value, for `runtimeConfig`.
        network: the network's name, once known.
        config: the text of the list it was added with.
        result: the final result of its ADD.
    """

    __slots__ = ("args", "capabilities", "config", "container_id", "ifname", "netns", "network", "result")

    def __init__(
        self,
        container_id: str,
        ifname: str = "eth0",
        netns: str = "",
        args: Sequence[tuple[str, str]] = (),
        capabilities: dict[str, Any] | None = None,
    ) -> None:
        self.container_id = container_id
        self.ifname = ifname
        self.netns = netns
        self.args = list(args)
        self.capabilities = capabilities or {}
        self.network = ""
        self.config = b""
        self.result: dict[str, Any] | None = None


class Cache:
    """The attachments that are known on this node.

    Args:
        folder: where `results` is; libcni's own is /var/lib/cni.
    """

    def __init__(self, folder: str = DEFAULT_FOLDER) -> None:
        self.folder = os.path.join(folder, "results")

    def path(self, network: str, container_id: str, ifname: str) -> str:
        """Return the file of an attachment.

        Raises:
            InvalidConfigError: the network's name could lead out of the folder.
            InvalidEnvironmentError: the container id or the interface name could.
        """
        check_names(network, container_id, ifname)
        path = os.path.join(self.folder, f"{network}-{container_id}-{ifname}")
        whole = f"{network}:{container_id}:{ifname}"  # none of the three can hold a colon
        hashed = os.path.join(self.folder, _HASHED + sha512(os.fsencode(whole)).hexdigest())
        if not files.name_fits(path) or os.path.lexists(hashed):
            return hashed
        return path if _owner(path) in (None, (network, container_id, ifname)) else hashed

    def lock_path(self) -> str:
        """Return the file that runners lock, a part of it for each attachment."""
        return f"{os.path.dirname(self.folder)}/{_LOCK}"

    def make_folder(self) -> None:
        """Make the folder, if it is missing.

        Raises:
            OSError: it cannot be made.
        """
        _make_folders(self.folder)

    def write(self, attachment: Attachment) -> None:
        """Store an attachment, whole or not at all.

        Raises:
            CNIError: its names are invalid.
            OSError: it cannot be written.
        """
        path = self.path(attachment.network, attachment.container_id, attachment.ifname)
        body: dict[str, Any] = {
            "kind": KIND,
            "containerId": attachment.container_id,
            "config": binascii.b2a_base64(attachment.config, newline=False).decode(),
            "ifName": attachment.ifname,
            "networkName": attachment.network,
            "netns": attachment.netns,
            "cniArgs": [list(pair) for pair in attachment.args],
            "capabilityArgs": attachment.capabilities,
            "result": attachment.result,
        }
        for key in ("netns", "cniArgs", "capabilityArgs", "result"):
            if not body[key]:
                del body[key]
        self.make_folder()
        files.write_atomic(path, encode(body))

    def read(self, network: str, container_id: str, ifname: str) -> Attachment | None:
        """Return an attachment; None if there is no file of it, or none that can be read.

        A file older than libcni 0.8 holds the bare result: the attachment has nothing else then.

        Raises:
            CNIError: the names are invalid, or the file is neither form.
        """
        path = self.path(network, container_id, ifname)
        try:
            data = files.read(path, MAX_BYTES)
        except OSError:
            return None
        if data is None:
            return None
        try:
            raw = _object(data, path)
            if raw.get("kind") == KIND:
                return _attachment(raw, path)
        except DecodeError as error:
            error.details = "DEL the container, for which the file is not needed, and ADD it again"
            raise
        attachment = Attachment(container_id, ifname)
        attachment.network = network
        attachment.result = raw
        return attachment

    def identity(self, attachment: Attachment) -> object:
        """Return what tells an attachment from a later one of the same names; None of one that is gone."""
        try:
            status = os.stat(self.path(attachment.network, attachment.container_id, attachment.ifname))
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def remove(self, network: str, container_id: str, ifname: str) -> None:
        """Forget an attachment; one that is not there is no error.

        Raises:
            CNIError: the names are invalid.
            OSError: the file cannot be removed.
        """
        files.remove(self.path(network, container_id, ifname))

    def damaged(self) -> list[str]:
        """Return the paths of files that cannot be read as attachments, or as the results of old versions."""
        found = []
        for name in _names(self.folder):
            path = os.path.join(self.folder, name)
            try:
                raw = _object(files.read(path, MAX_BYTES) or b"", path)
                if raw.get("kind") == KIND:
                    _attachment(raw, path)
            except (OSError, CNIError):
                found.append(path)
        return found

    def attachments(self, container_id: str = "") -> list[Attachment]:
        """Return every attachment, or one container's; files that hold none are passed over."""
        found = []
        for name in _names(self.folder):
            path = os.path.join(self.folder, name)
            if container_id and f"-{container_id}-" not in name and not name.startswith(_HASHED):
                continue
            try:
                raw = _object(files.read(path, MAX_BYTES) or b"", path)
                if raw.get("kind") != KIND:
                    continue
                attachment = _attachment(raw, path)
            except (OSError, CNIError):
                continue
            if attachment.ifname and attachment.network and container_id in ("", attachment.container_id):
                found.append(attachment)
        return found


def check_names(network: str, container_id: str, ifname: str) -> None:
    """Refuse names that the specification forbids; they could lead out of the folder.

    Raises:
        InvalidConfigError: the network's name.
        InvalidEnvironmentError: the container id or the interface name.
    """
    if not valid_identifier(network):
        raise InvalidConfigError(f"invalid network name {network!r}")
    if not valid_identifier(container_id):
        raise InvalidEnvironmentError(f"invalid container id {container_id!r}")
    problem = ifname_problem(ifname)
    if problem:
        raise InvalidEnvironmentError(f"interface name {ifname!r} {problem}")


def _owner(path: str) -> tuple[str, str, str] | None:
    """Return whose a file is; None of one that is not there, or does not say so."""
    try:
        raw = _object(files.read(path, MAX_BYTES) or b"", path)
        if raw.get("kind") != KIND:
            return None
        found = _attachment(raw, path)
    except (OSError, CNIError):
        return None
    return (found.network, found.container_id, found.ifname) if found.network else None


def _names(folder: str) -> list[str]:
    """Return the names of files in a folder, but those of drafts."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _object(data: bytes, path: str) -> dict[str, Any]:
    raw = decode(data, path)
    if not isinstance(raw, dict):
        raise DecodeError(f"{path} is no cached attachment")
    return raw


def _attachment(raw: dict[str, Any], path: str) -> Attachment:
    shape = {
        "containerId": str,
        "config": str,
        "ifName": str,
        "networkName": str,
        "netns": str,
        "cniArgs": list,
        "capabilityArgs": dict,
        "result": dict,
    }
    given = {key: value for key, value in raw.items() if value is not None}
    for key, kind in shape.items():
        if key in given and not isinstance(given[key], kind):
            raise DecodeError(f"{path}: {key} has another type than in the format {KIND}")
    attachment = Attachment(given.get("containerId", ""), given.get("ifName", ""), given.get("netns", ""))
    attachment.network = given.get("networkName", "")
    attachment.result = given.get("result")
    attachment.capabilities = given.get("capabilityArgs", {})
    try:
        attachment.args = [(str(key), str(value)) for key, value in given.get("cniArgs", [])]
        attachment.config = binascii.a2b_base64(given.get("config", ""), strict_mode=True)
    except (TypeError, ValueError) as error:
        raise DecodeError(f"{path} is no cached attachment: {error}") from None
    return attachment


def _make_folders(path: str) -> None:
    """Make a folder and those above it, all for root alone, as libcni does."""
    parent = os.path.dirname(path)
    if parent and not os.path.isdir(parent):
        _make_folders(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
