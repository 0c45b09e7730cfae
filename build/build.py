"""Build dist/cni: one runtime folder, and one name per plugin that leads into it.

Usage: build.py [--target FOLDER]. Steps: freeze the plugins' modules, compile their launcher, let PyInstaller
collect the interpreter, cnictl and the dhcp daemon, put the names beside them, check what came out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cni_plugins import VERSION  # noqa: E402
from cni_plugins.multicall import DAEMONS, MODULES  # noqa: E402
from cni_plugins.spec.result import VERSIONS  # noqa: E402

RUNTIME = "cni-runtime"
GLIBC_FLOOR = (2, 36)  # Debian 12: what its libpython and the C library's headers ask for
MAX_BYTES = 30 << 20


def run(*argv: str | Path, **kwargs: Any) -> str:
    """Run a program; show its output only when it fails."""
    command = [str(arg) for arg in argv]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, check=False, **kwargs
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


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
    print(f"{os.path.relpath(target)}: {len(MODULES)} plugins and cnictl, {needs}")


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
    launcher(work / "launcher", runtime)
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
    check(target)


if __name__ == "__main__":
    main()
