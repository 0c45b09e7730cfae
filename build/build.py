"""Build dist/cni: one runtime folder, and one name per plugin that leads into it.

Usage: build.py [--arch amd64|arm64] [--target FOLDER]. Steps: let PyInstaller make cnictl and the dhcp daemon
(programs.py), build the plugins' executable (launcher.py), put the names beside them, check what came out
(closure.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import closure
import programs
from launcher import ARCHITECTURES, build_launcher, own_architecture
from tools import ROOT, run

sys.path.insert(0, str(ROOT))

from cni_plugins import VERSION
from cni_plugins.multicall import DAEMONS, MODULES
from cni_plugins.spec.result import VERSIONS

RUNTIME = "cni-runtime"
PROGRAMS = ("cnictl", *DAEMONS.values())
MAX_BYTES = 30 << 20


def size_of(target: Path, most: int) -> str:
    """Return how large a folder of programs is, for people; fail if it is larger than is promised."""
    size = sum(path.lstat().st_size for path in target.rglob("*"))
    if size > most:
        sys.exit(f"{target} has {size >> 20} MiB, above {most >> 20}")
    return f"{size / (1 << 20):.1f} MiB"


def default_target(arch: str, name: str) -> Path:
    """Return where a bundle for an architecture goes, if no folder is named."""
    return ROOT / ("dist" if arch == own_architecture() else f"dist/{arch}") / name


def check(target: Path, arch: str) -> None:
    """Fail unless the bundle keeps its promises: size, nothing asked of the node, every name answers."""
    size = size_of(target, MAX_BYTES)
    runtime = target / RUNTIME
    closure.check(runtime / programs.LIB, [runtime / name for name in ("cni", *PROGRAMS)])
    start = programs.runner(arch, target)
    for name in MODULES:
        answer = start(name, env={"CNI_COMMAND": "VERSION"}, input="{}")
        if VERSIONS[-1] not in answer:
            sys.exit(f"{name} does not answer VERSION: {answer}")
    start("cnictl", "--version", env={})
    for name in DAEMONS:
        start(name, "daemon", "--help", env={})
    plugins = f"{len(MODULES)} plugins in one static file"
    print(f"{os.path.relpath(target)}: {plugins}, cnictl and the dhcp daemon, {size}")


def main() -> None:
    """Build the bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", choices=ARCHITECTURES, default=own_architecture())
    parser.add_argument("--target", type=Path, help="dist/cni, or dist/ARCH/cni for another architecture")
    options = parser.parse_args()
    arch: str = options.arch
    target: Path = options.target or default_target(arch, "cni")
    work = ROOT / ".work"
    run(sys.executable, ROOT / "build/compile_config.py", "--check")
    runtime = work / f"runtime-{arch}"
    shutil.rmtree(runtime, ignore_errors=True)
    programs.make("cni.spec", arch, runtime, PROGRAMS)
    print(f"the plugins' executable for {arch} …", flush=True)
    build_launcher(arch, runtime / "cni")
    shutil.copytree(ROOT / "ipam/dhcp/systemd", runtime / "systemd")
    (runtime / "VERSION").write_text(VERSION + "\n")
    for name in ("install.py", "preflight.py"):
        shutil.copyfile(ROOT / "cni_plugins" / name, runtime / name)
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
    check(target, arch)


if __name__ == "__main__":
    main()
