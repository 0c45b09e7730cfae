"""A container image made without a registry: Debian's static busybox in a docker archive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BUSYBOX = "/bin/busybox"
NAME = "localhost/busybox:test"
PORT = 8080
"""The TCP port on which SERVE listens."""
SLEEP = (BUSYBOX, "sleep", "1000000")
SERVE = (BUSYBOX, "httpd", "-f", "-p", str(PORT), "-h", "/www")
PAGE = "/www/index.html"


def write_archive(path: str) -> None:
    """Write the image in the format of `docker save`.

    Its command sleeps, so that it serves as a pod's pause image too.

    Raises:
        FileNotFoundError: busybox-static is not installed.
    """
    if not os.access(BUSYBOX, os.X_OK):
        raise FileNotFoundError(f"{BUSYBOX} is missing: install busybox-static")
    _write(path, NAME, _layer(), {"Cmd": list(SLEEP)})


def write_folder_archive(path: str, folder: str, name: str) -> None:
    """Write an image that has a folder's files, all of them root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        layer.add(folder, "", filter=_owned_by_root)
    _write(path, name, buffer.getvalue(), {})


def _write(path: str, name: str, layer: bytes, settings: Mapping[str, object]) -> None:
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", layer)
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "www"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(folder)
        layer.add(BUSYBOX, BUSYBOX.lstrip("/"))
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _architecture() -> str:
    """Return this machine's name in the words of the image format, which are Go's."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
