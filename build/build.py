"""Build dist/cni: one runtime folder, and one name per plugin that leads into it.

Usage: build.py [--target FOLDER]. Steps: freeze the plugins' modules, compile their launcher, let PyInstaller
make cnictl and the dhcp daemon (programs.py), put the names beside them, check what came out (closure.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import closure
import programs
from tools import ROOT, run

sys.path.insert(0, str(ROOT))

from cni_plugins import VERSION
from cni_plugins.multicall import DAEMONS, MODULES
from cni_plugins.spec.result import VERSIONS

RUNTIME = "cni-runtime"
PROGRAMS = ("cnictl", *DAEMONS.values())
MAX_BYTES = 32 << 20


def launcher(work: Path, runtime: Path) -> None:
    """Compile the plugins' executable with the static libpython that is PyInstaller's, too."""
    work.mkdir(parents=True, exist_ok=True)
    print(run(sys.executable, ROOT / "build/freeze.py", work / "frozen.h").strip())
    dynload = next((runtime / "lib").glob("**/lib-dynload")).relative_to(runtime / "lib")
    library = Path(sysconfig.get_config_var("LIBPL"), sysconfig.get_config_var("LIBRARY"))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    run(
        os.environ.get("CC", "gcc"),
        *("-O2", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-s"),
        *("-I", work, "-I", sysconfig.get_path("include"), f'-DDYNLOAD="{dynload}"', f'-DSUFFIX="{suffix}"'),
        *(ROOT / "build/launcher.c", "-o", runtime / "cni", library),
        # Not position-independent, as Debian's own interpreter; the extensions find its functions in it.
        *("-no-pie", "-Wl,--export-dynamic", "-Wl,-z,relro,-z,now"),
        *("-Wl,-Bstatic", "-lexpat", "-lz", "-Wl,-Bdynamic", "-lm"),
    )


def size_of(target: Path, most: int) -> str:
    """Return how large a folder of programs is, for people; fail if it is larger than is promised."""
    size = sum(path.lstat().st_size for path in target.rglob("*"))
    if size > most:
        sys.exit(f"{target} has {size >> 20} MiB, above {most >> 20}")
    return f"{size / (1 << 20):.1f} MiB"


def check(target: Path) -> None:
    """Fail unless the bundle keeps its promises: size, nothing asked of the node, every name answers."""
    size = size_of(target, MAX_BYTES)
    runtime = target / RUNTIME
    closure.check(runtime / programs.LIB, [runtime / name for name in PROGRAMS])
    for name in MODULES:
        answer = run(target / name, env={"CNI_COMMAND": "VERSION"}, input="{}")
        if VERSIONS[-1] not in answer:
            sys.exit(f"{name} does not answer VERSION: {answer}")
    run(target / "cnictl", "--version", env={})
    for name in DAEMONS:
        run(target / name, "daemon", "--help", env={})
    print(f"{os.path.relpath(target)}: {len(MODULES)} plugins and cnictl, {size}")


def main() -> None:
    """Build the bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=ROOT / "dist/cni")
    target = parser.parse_args().target
    work = ROOT / ".work"
    run(sys.executable, ROOT / "build/compile_config.py", "--check")
    collected = programs.collect("cni.spec", work / "programs")
    runtime = work / "runtime"
    shutil.rmtree(runtime, ignore_errors=True)
    programs.assemble(collected, runtime, PROGRAMS)
    launcher(work / "launcher", runtime)
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
