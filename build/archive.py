"""What the archives of a release and of the image share: nothing of the building machine is in them."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

from launcher import ARCHITECTURES
from tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {"cni": "cni-plugins", "flanneld": "flanneld"}
"""A built folder to its archive's name."""


def git(*arguments: str) -> str:
    """Return what git says of this repository.

    Raises:
        SystemExit: this is no repository, as in an unpacked source archive.
    """
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {arguments[0]}: {done.stderr.strip()}\nwithout git, set SOURCE_DATE_EPOCH and COMMIT")
    return done.stdout.strip()


def commit_time() -> int:
    """Return SOURCE_DATE_EPOCH, or the commit's time, in seconds since 1970."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git("show", "--no-patch", "--format=%ct", "HEAD"))


def folders(dist: Path, own: str) -> dict[tuple[str, str], Path]:
    """Return the built folders, by kind and architecture."""
    found = {}
    for architecture in sorted(ARCHITECTURES):
        for kind in NAMES:
            path = (dist if architecture == own else dist / architecture) / kind
            if path.is_dir():
                found[kind, architecture] = path
    return found


def pack(found: list[tuple[tarfile.TarInfo, bytes]], *, compressed: bool = True) -> bytes:
    """Return a tar archive, compressed without a time or a name in the header, as `gzip -n` does it."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in found:
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(whole.getvalue(), compresslevel=9, mtime=0) if compressed else whole.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file that is whole when it has its name."""
    spare = path.with_name(f"{path.name}.new")
    spare.write_bytes(content)
    spare.chmod(0o644)
    spare.rename(path)
