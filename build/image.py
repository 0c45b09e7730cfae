"""Lay out the image's files: the daemon, the plugins, nft and iptables with the libraries that they load.

Usage: image.py [--cni FOLDER] [--flanneld FOLDER] TARGET. It only copies, on a Debian
that has the packages nftables and iptables, so it needs no root; the Dockerfile runs it, and so do the tests
that start what is in the image. There is no shell, no package manager and no loader's cache in TARGET.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import closure
from tools import ROOT

MULTIARCH = sysconfig.get_config_var("MULTIARCH")
LIBRARIES = Path("/usr/lib", MULTIARCH)
"""The folder where Debian's loader looks by itself, in the image as here."""
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
IPTABLES = {"": "nft", "-nft": "nft", "-legacy": "legacy"}
"""What follows `iptables` in the programs' names, and the kernel's interface they are for; as on Debian."""
MAX_BYTES = 120 << 20


def copy(source: Path, target: Path) -> None:
    """Copy what a path leads to, and give it the path's own name."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source.resolve(), target / source.name)


def add_libraries(target: Path) -> None:
    """Copy each library that the system's programs ask for; the bundles below `opt` bring theirs.

    Raises:
        SystemExit: this machine has no such library.
    """
    place = target / LIBRARIES.relative_to("/")
    waiting = [elf for _path, elf in closure.elves(target / "usr")]
    while waiting:
        for name in waiting.pop().needed:
            if (place / name).exists():
                continue
            if not (LIBRARIES / name).exists():
                sys.exit(f"there is no {LIBRARIES / name}, which a program of the image asks for")
            copy(LIBRARIES / name, place)
            added = closure.read(place / name)
            waiting += [added] if added else []


def add_copyrights(target: Path) -> None:
    """Copy what Debian says of the licences of everything that came from its packages."""
    sources = set()
    for path in target.rglob("*"):
        for source in (Path("/", path.relative_to(target)), LIBRARIES / path.name):
            if path.is_file() and not path.is_symlink() and source.is_file():
                real = str(source.resolve())
                sources |= {real, real.removeprefix("/usr")}  # packages name some by the links in the root
    # It fails where one is of no package, as the certificates, which a script has put together.
    said = subprocess.run(["dpkg-query", "-S", *sorted(sources)], check=False, capture_output=True, text=True)
    for package in {"ca-certificates", *(line.split(":")[0] for line in said.stdout.splitlines())}:
        place = target / "usr/share/doc" / package
        place.mkdir(parents=True)
        shutil.copy2(f"/usr/share/doc/{package}/copyright", place)


def lay_out(target: Path, cni: Path, flanneld: Path) -> None:
    """Fill the target, which must not exist."""
    target.mkdir(parents=True)
    for name, place in LINKS.items():
        (target / place).mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(place)
    for folder in ("etc", "run", "tmp"):
        (target / folder).mkdir()
    (target / "tmp").chmod(0o1777)
    (target / "etc/passwd").write_text("root:x:0:0:root:/:/nonexistent\n")
    (target / "etc/group").write_text("root:x:0:\n")
    copy(CERTIFICATES, target / CERTIFICATES.parent.relative_to("/"))
    shutil.copy2(ROOT / "LICENSE", target / "LICENSE")

    # Where kube-flannel's image has them, so that a manifest for it finds them.
    for bundle, name in ((cni, "cni-plugins"), (flanneld, "flanneld")):
        stamp = shutil.ignore_patterns(".built")  # make's
        shutil.copytree(bundle, target / "opt" / name, symlinks=True, ignore=stamp)
    (target / "opt/bin").mkdir()
    for name in ("flanneld", "install-cni", "install-conf"):
        (target / "opt/bin" / name).symlink_to("../flanneld/flanneld")

    sbin = target / "usr/sbin"
    copy(Path("/usr/sbin/nft"), sbin)
    # flanneld chooses between the two where it starts: flanneld/traffic/iptables.py.
    for kind in sorted(set(IPTABLES.values())):
        copy(Path(f"/usr/sbin/xtables-{kind}-multi"), sbin)
    for variant, kind in IPTABLES.items():
        for name, action in itertools.product(("iptables", "ip6tables"), ("", "-restore", "-save")):
            (sbin / f"{name}{variant}{action}").symlink_to(f"xtables-{kind}-multi")
    shutil.copytree(LIBRARIES / "xtables", target / LIBRARIES.relative_to("/") / "xtables", symlinks=True)

    add_libraries(target)
    nft = closure.read(sbin / "nft")
    if nft is None or not nft.loader:
        sys.exit("nft names no loader")
    loader = Path(nft.loader)
    copy(loader, target / "usr" / loader.parent.relative_to("/"))
    add_copyrights(target)


def main() -> None:
    """Lay the files out and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cni", type=Path, default=ROOT / "dist/cni")
    parser.add_argument("--flanneld", type=Path, default=ROOT / "dist/flanneld")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    lay_out(options.target, options.cni, options.flanneld)
    size = sum(path.lstat().st_size for path in options.target.rglob("*"))
    if size > MAX_BYTES:
        sys.exit(f"{options.target} has {size >> 20} MiB, above {MAX_BYTES >> 20}")
    print(f"{options.target}: {size / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    main()
