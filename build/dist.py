"""Make the archives of a release: `make dist`.

Usage: dist.py [--target dist]. From the folders that are built (dist/cni and
dist/flanneld for this machine's architecture, dist/arm64/… or dist/amd64/… for the other) it makes

    cni-plugins-linux-amd64-v0.1.0.tgz            the plugins' names at the top, as in the reference's archive
    cni-plugins-linux-amd64-v0.1.0.tgz.sha256     for `sha256sum --check`
    cni-plugins-linux-amd64-v0.1.0.cdx.json       what is in it (CycloneDX)

and the same for flanneld. Nothing in them depends on the folder, time, user, umask or locale of the build:
times are SOURCE_DATE_EPOCH, or the commit's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from archive import NAMES, commit_time, folders, git, pack, write  # noqa: E402
from contents import Part, parts  # noqa: E402
from launcher import own_architecture  # noqa: E402
from sbom import document  # noqa: E402

from cni_plugins import VERSION  # noqa: E402
from cni_plugins.install import BUNDLED_RUNTIME  # noqa: E402
from cni_plugins.preflight import machine_of  # noqa: E402

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""The kernel's name of each architecture."""
STAMP = ".built"  # make's


def check(folder: Path, architecture: str) -> None:
    """Fail if a program is for another architecture than the archive's name will say."""
    for path in folder.rglob("*"):
        if (
            path.is_file()
            and os.access(path, os.X_OK)
            and machine_of(str(path)) not in ("", MACHINES[architecture])
        ):
            sys.exit(f"{path} is for {machine_of(str(path))}, not for {architecture}")


def members(folder: Path, found: list[Part], epoch: int) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return an archive's members, in their order.

    Names that are links come last, so that they never lead to something that is not unpacked yet. They are
    symbolic links, since not every file system has others; there are no hard links.
    """
    runtime = BUNDLED_RUNTIME if (folder / BUNDLED_RUNTIME).is_dir() else ""
    files: dict[str, bytes] = {name: (ROOT / name).read_bytes() for name in ("LICENSE", "README.md")}
    for part in found:
        for name, text in part.licences.items():
            files["/".join(filter(None, (runtime, "licenses", f"{part.name}-{part.version}", name)))] = text
    modes = dict.fromkeys(files, 0o644)
    links = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            links[name] = os.readlink(path)
        elif path.is_file() and name != STAMP:
            files[name] = path.read_bytes()
            modes[name] = 0o755 if path.stat().st_mode & 0o111 else 0o644
    directories = {str(parent) for name in (*files, *links) for parent in Path(name).parents} - {"."}
    made = []
    for name in (*sorted({*directories, *files}), *sorted(links)):
        member = tarfile.TarInfo(f"./{name}")
        member.mtime, member.uname, member.gname = epoch, "root", "root"
        content = files.get(name, b"")
        if name in links:
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, links[name], 0o777
        elif name in directories:
            member.type, member.mode = tarfile.DIRTYPE, 0o755
        else:
            member.size, member.mode = len(content), modes[name]
        made.append((member, content))
    return made


def release(folder: Path, arch: str, kind: str, target: Path, epoch: int, commit: str) -> None:
    """Write a folder's archive, its sum and its list of contents.

    Args:
        folder: what was built.
        arch: the architecture that it was built for.
        kind: one of NAMES.
        target: where the files go.
        epoch: the time of the archive's members.
        commit: what was built.
    """
    check(folder, arch)
    found = parts(folder, arch)
    stem = f"{NAMES[kind]}-linux-{arch}-v{VERSION}"
    archive = f"{stem}.tgz"
    content = pack(members(folder, found, epoch))
    digest = hashlib.sha256(content).hexdigest()
    said = document(archive, digest, VERSION, commit, epoch, found, ROOT / "build/requirements.lock")
    write(target / archive, content)
    write(target / f"{archive}.sha256", f"{digest}  {archive}\n".encode())
    write(target / f"{stem}.cdx.json", said.encode())
    print(f"{os.path.relpath(target / archive)}: {len(content) / (1 << 20):.1f} MiB, sha256 {digest}")


def main() -> None:
    """Make an archive of every folder that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    epoch = commit_time()
    commit = os.environ.get("COMMIT") or git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    options.target.mkdir(parents=True, exist_ok=True)
    found = folders(ROOT / "dist", own_architecture())
    if not found:
        sys.exit("there is nothing to archive: `make build build-flanneld` comes first")
    for (kind, architecture), folder in found.items():
        release(folder, architecture, kind, options.target, epoch, commit)


if __name__ == "__main__":
    main()
