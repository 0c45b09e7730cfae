"""Build dist/cni: one runtime folder, and one name per plugin that leads into it.

Usage: build.py [--target FOLDER]. Steps: let PyInstaller collect the interpreter, cnictl and the dhcp daemon,
build the plugins' executable (launcher.py), put the names beside them, check what came out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

from launcher import build_launcher, own_architecture
from tools import ROOT, run

sys.path.insert(0, str(ROOT))

from cni_plugins import VERSION
from cni_plugins.multicall import DAEMONS, MODULES
from cni_plugins.spec.result import VERSIONS

RUNTIME = "cni-runtime"
GLIBC_FLOOR = (2, 36)  # Debian 12's, for cnictl and the dhcp daemon: the plugins ask for none
MAX_BYTES = 30 << 20


def needed_glibc(folder: Path) -> tuple[int, int]:
    """Return the newest glibc version that any file of the bundle asks for."""
    newest = (0, 0)
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        for found in re.finditer(r"GLIBC_(\d+)\.(\d+)", run("readelf", "-W", "--version-info", path)):
            newest = max(newest, (int(found[1]), int(found[2])))
    return newest


def needs_of(target: Path, most: int) -> str:
    """Return what a folder of programs needs, size and C library; fail when that is more than is promised."""
    size = sum(path.lstat().st_size for path in target.rglob("*"))
    if size > most:
        sys.exit(f"{target} has {size >> 20} MiB, above {most >> 20}")
    glibc = needed_glibc(target)
    if glibc > GLIBC_FLOOR:
        sys.exit(f"{target} needs glibc {glibc}, above {GLIBC_FLOOR}")
    return f"{size / (1 << 20):.1f} MiB, glibc >= {glibc[0]}.{glibc[1]}"


def check(target: Path) -> None:
    """Fail unless the bundle keeps its promises: size, C library, every name answers."""
    needs = needs_of(target, MAX_BYTES)
    for name in MODULES:
        answer = run(target / name, env={"CNI_COMMAND": "VERSION"}, input="{}")
        if VERSIONS[-1] not in answer:
            sys.exit(f"{name} does not answer VERSION: {answer}")
    run(target / "cnictl", "--version", env={})
    for name in DAEMONS:
        run(target / name, "daemon", "--help", env={})
    size = (target / RUNTIME / "cni").stat().st_size / (1 << 20)
    plugins = f"{len(MODULES)} plugins in one static file of {size:.1f} MiB"
    print(f"{os.path.relpath(target)}: {plugins}; with cnictl and the dhcp daemon {needs}")


def main() -> None:
    """Build the bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=ROOT / "dist/cni")
    target = parser.parse_args().target
    work = ROOT / ".work"
    run(sys.executable, ROOT / "build/compile_config.py", "--check")
    print("PyInstaller …", flush=True)
    run(
        *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
        *("--workpath", work / "pyinstaller", "--distpath", work / "dist", ROOT / "build/cni.spec"),
        cwd=ROOT,
    )
    runtime = work / "dist/runtime"
    print("the plugins' executable …", flush=True)
    build_launcher(own_architecture(), runtime / "cni")
    shutil.copytree(ROOT / "ipam/dhcp/systemd", runtime / "systemd")
    (runtime / "VERSION").write_text(VERSION + "\n")
    # Whoever runs from the old folder keeps it until the new one has its name.
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    runtime.rename(fresh / RUNTIME)
    for name in MODULES:
        (fresh / name).symlink_to(f"{RUNTIME}/cni")
    (fresh / "cnictl").symlink_to(f"{RUNTIME}/cnictl")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    check(target)


if __name__ == "__main__":
    main()
