"""Build this commit twice, in unlike surroundings, and compare the archives: `make reproduce`.

The two builds differ in the length of their folders' names, umask, time zone, locale and host name, and each
installs its own Python packages. What differs is listed, down to the files in an archive.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".work/reproduce"
MAKE = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp('make', ['make', 'dist'])"
"""Run in a UTS namespace, whose host name is its own."""


class Surroundings(NamedTuple):
    """What may be different where somebody else builds the same commit."""

    folder: str
    umask: int
    host: str
    environment: dict[str, str]


BUILDS = (
    Surroundings("a", 0o022, "first", {"TZ": "UTC", "LC_ALL": "C.UTF-8"}),
    Surroundings(
        "another-folder-with-a-longer-name", 0o077, "second.example", {"TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    ),
)


def build(where: Surroundings, commit: str) -> Path:
    """Build a commit; return the folder with the archives.

    Raises:
        CalledProcessError: it failed, and said why.
    """
    folder = WORK / where.folder
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", commit], check=True)
    print(f"building in {folder} …", flush=True)

    subprocess.run(
        ["unshare", "--uts", sys.executable, "-c", MAKE, where.host],
        check=True,
        cwd=folder,
        env={**os.environ, **where.environment},
        umask=where.umask,
    )
    return folder / "dist"


def contents(path: Path) -> dict[str, tuple[object, ...]]:
    """Return an archive's members, each with all that the archive says of it."""
    with tarfile.open(path) as archive:
        return {
            member.name: (
                *(member.type, member.mode, member.uid, member.gid, member.uname, member.gname),
                *(member.mtime, member.linkname),
                (file.read() if (file := archive.extractfile(member)) and member.isreg() else b""),
            )
            for member in archive
        }


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of what differs between two folders of archives, with the members of an archive."""
    found = []
    for name in sorted({path.name for folder in (one, other) for path in folder.iterdir() if path.is_file()}):
        pair = [folder / name for folder in (one, other)]
        if not all(path.exists() for path in pair):
            found.append(f"{name}: only one build made it")
        elif pair[0].read_bytes() != pair[1].read_bytes():
            found.append(name)
            if name.endswith(".tgz"):
                left, right = (contents(path) for path in pair)
                found += [
                    f"{name}: {member}"
                    for member in sorted({*left, *right})
                    if left.get(member) != right.get(member)
                ]
                if list(left) != list(right):
                    found.append(f"{name}: the order of its members")
    return found


def main() -> None:
    """Build twice and compare."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    found = differences(*(build(where, commit) for where in BUILDS))
    if found:
        sys.exit("\n".join([f"two builds of {commit} differ (they stay in {WORK}):", *found]))
    made = sorted(path.name for path in (WORK / BUILDS[0].folder / "dist").iterdir() if path.is_file())
    shutil.rmtree(WORK)
    print(f"two builds of {commit} are equal byte for byte: {', '.join(made)}")


if __name__ == "__main__":
    main()
