"""Lay out the image's files: the daemon, the plugins, nft and iptables with the libraries that they load.

Usage: image.py [--arch amd64|arm64] [--cni FOLDER] [--flanneld FOLDER] TARGET. For this machine's
architecture, nft and iptables are those of the machine, a Debian that has the packages. For another one, the
packages are downloaded and unpacked. Files are only copied, so it needs no root. The Dockerfile runs it, and
so do the tests that start what is in the image. There is no shell, no package manager and no loader's cache
in TARGET.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import closure
import contents
import dpkg
from debian import unpacked
from launcher import ARCHITECTURES, own_architecture
from tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = ("ca-certificates", "iptables", "nftables")
LINKS = ("bin", "lib", "lib64", "sbin")
"""Names in the root that lead to those in /usr, as on Debian."""
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
IPTABLES = {"": "nft", "-nft": "nft", "-legacy": "legacy"}
"""What follows `iptables` in the programs' names, and the kernel's interface they are for; as on Debian."""
MAX_BYTES = 120 << 20


def built(arch: str, name: str) -> Path:
    """Return where the build puts a bundle."""
    return ROOT / ("dist" if arch == own_architecture() else f"dist/{arch}") / name


class Layout:
    """The files of an image.

    Args:
        arch: its architecture.
        target: the folder to fill, which must not exist.
        machine: take nft and iptables from this machine, a Debian that has them. Otherwise Debian's packages
            are downloaded and unpacked.
    """

    def __init__(self, arch: str, target: Path, *, machine: bool) -> None:
        self.arch = arch
        self.target = target
        self.libraries = Path("usr/lib", ARCHITECTURES[arch].triple)
        """The folder where Debian's loader looks by itself."""
        place = ROOT / f".work/image/{arch}"
        self._root = (
            dpkg.MACHINE if machine else unpacked(place, *PACKAGES, architecture=arch, dependencies=True)
        )
        self._copied: set[str] = set()
        target.mkdir(parents=True)

    def fill(self, bundles: dict[str, Path]) -> None:
        """Add everything; the bundles are named as their folders in /opt."""
        self.add_system()
        self.add_bundles(bundles)
        self.add_programs()
        self.add_copyrights(bundles.values())

    def find(self, path: Path) -> Path | None:
        """Return where Debian has a file that belongs below /usr; packages have some without that."""
        places = (self._root / path, self._root / path.relative_to("usr"))
        return next((place for place in places if place.exists()), None)

    def copy(self, path: Path) -> Path:
        """Copy what a path below /usr leads to, and give it the path's own name; return the copy.

        Raises:
            SystemExit: Debian has no such file.
        """
        source = self.find(path)
        if source is None:
            sys.exit(f"there is no {self._root / path}, which the image needs")
        while source.is_symlink() and source.readlink().is_absolute():  # in an unpacked root it leads out
            source = self._root / source.readlink().relative_to("/")
        target = self.target / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source.resolve(), target)
        inside = f"/{source.resolve().relative_to(self._root.resolve())}"
        self._copied |= {inside, inside.removeprefix("/usr")}
        return target

    def add_system(self) -> None:
        """Make the folders and files that every system has, and certificates."""
        for name in LINKS:
            (self.target / "usr" / name).mkdir(parents=True, exist_ok=True)
            (self.target / name).symlink_to(f"usr/{name}")
        for name in ("etc", "run", "tmp"):
            (self.target / name).mkdir()
        (self.target / "tmp").chmod(0o1777)
        (self.target / "etc/passwd").write_text("root:x:0:0:root:/:/nonexistent\n")
        (self.target / "etc/group").write_text("root:x:0:\n")
        shutil.copy2(ROOT / "LICENSE", self.target / "LICENSE")
        found = sorted((self._root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
        if not found:
            sys.exit(f"there are no certificates in {self._root}, which the image needs")
        (self.target / CERTIFICATES).parent.mkdir(parents=True)
        (self.target / CERTIFICATES).write_bytes(b"".join(path.read_bytes() for path in found))

    def add_bundles(self, bundles: dict[str, Path]) -> None:
        """Copy what was built to where kube-flannel's image has it, so that a manifest for it finds it."""
        for name, bundle in bundles.items():
            stamp = shutil.ignore_patterns(".built")  # make's
            shutil.copytree(bundle, self.target / "opt" / name, symlinks=True, ignore=stamp)
        (self.target / "opt/bin").mkdir()
        for name in ("flanneld", "install-cni", "install-conf"):
            (self.target / "opt/bin" / name).symlink_to("../flanneld/flanneld")

    def add_programs(self) -> None:
        """Copy nft and both kinds of iptables, with the libraries and the loader that they ask for."""
        sbin = Path("usr/sbin")
        nft = closure.read(self.copy(sbin / "nft"))
        if nft is None or not nft.loader:
            sys.exit("nft names no loader")
        self.copy(Path("usr", nft.loader[1:]))
        # flanneld chooses between the two where it starts: flanneld/traffic/iptables.py.
        for kind in sorted(set(IPTABLES.values())):
            self.copy(sbin / f"xtables-{kind}-multi")
        for variant, kind in IPTABLES.items():
            for name, action in itertools.product(("iptables", "ip6tables"), ("", "-restore", "-save")):
                (self.target / sbin / f"{name}{variant}{action}").symlink_to(f"xtables-{kind}-multi")
        extensions = self.libraries / "xtables"
        for path in sorted((self._root / extensions).iterdir()):
            if path.is_symlink():
                (self.target / extensions / path.name).symlink_to(path.readlink())
            else:
                self.copy(extensions / path.name)
        self._add_libraries()

    def _add_libraries(self) -> None:
        waiting = [elf for _path, elf in closure.elves(self.target / "usr")]
        while waiting:
            for name in waiting.pop().needed:
                if not (self.target / self.libraries / name).exists():
                    added = closure.read(self.copy(self.libraries / name))
                    waiting += [added] if added else []

    def add_copyrights(self, bundles: Iterable[Path]) -> None:
        """Copy the licences of everything that is others' work, in the bundles and beside them."""
        packages = {*dpkg.owners(self._root, self._copied).values()}
        texts = {package.name: {"copyright": package.copyright()} for package in packages}
        certificates = self._root / "usr/share/doc/ca-certificates/copyright"
        texts["ca-certificates"] = {"copyright": certificates.read_bytes()}
        for bundle in bundles:
            for part in contents.parts(bundle, self.arch):
                name = part.name if part.kind == "deb" else f"python-{part.name}"
                texts.setdefault(name, part.licences)
        for name, files in texts.items():
            place = self.target / "usr/share/doc" / name
            place.mkdir(parents=True)
            for file, text in files.items():
                (place / file).write_bytes(text)


def main() -> None:
    """Lay the files out and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", choices=ARCHITECTURES, default=own_architecture())
    parser.add_argument("--cni", type=Path, help="what build.py made (default: where it puts it)")
    parser.add_argument("--flanneld", type=Path, help="what flanneld.py made (default: where it puts it)")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    bundles = {
        "cni-plugins": options.cni or built(options.arch, "cni"),
        "flanneld": options.flanneld or built(options.arch, "flanneld"),
    }
    Layout(options.arch, options.target, machine=options.arch == own_architecture()).fill(bundles)
    size = sum(path.lstat().st_size for path in options.target.rglob("*"))
    if size > MAX_BYTES:
        sys.exit(f"{options.target} has {size >> 20} MiB, above {MAX_BYTES >> 20}")
    print(f"{options.target}: {size / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    main()
