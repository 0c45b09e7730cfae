"""The programs that PyInstaller makes, with what lets them run on any node.

PyInstaller collects the interpreter, its extensions and the libraries of a program, and puts the modules into
an archive behind its bootloader. Here the C library is added to the folder, and each program gets a static
executable that starts it (program.c):

    <bundle>/cnictl              static, what people and other programs start
    <bundle>/lib/cnictl.bin      PyInstaller's; `lib/flanneld` could be the folder of a package
    <bundle>/lib/ld-linux-….so   the loader and the C library, with everything else
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import arm64
import closure
from launcher import ARCHITECTURES, own_architecture
from tools import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LIB = "lib"
_FLAGS = (
    *("-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector", "-fno-pie"),
    *("-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables"),
    *("-no-pie", "-nostdlib", "-static", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
)
"""Without a C library: nothing that the compiler would call in one."""
_PIPS = ("INSTALLER", "RECORD", "REQUESTED")
"""What pip notes of an installation: RECORD has the hash of scripts that name the environment's folder."""


def source_date() -> str:
    """Return the time of a build's files, in seconds since 1970: SOURCE_DATE_EPOCH, or the commit's.

    A source without commits, or a machine without git, gets the first second of 1970.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "0"
    return done.stdout.strip() or "0"


def collect(spec: str, arch: str, work: Path) -> Path:
    """Let PyInstaller make the programs of a spec; return the folder with them and everything they load.

    Args:
        spec: a file in build/.
        arch: a key of ARCHITECTURES.
        work: a folder for what it makes.
    """
    own = arch == own_architecture()
    print(f"PyInstaller for {arch}{'' if own else ', under qemu, which takes minutes'} …", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    env = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": source_date()}
    if own:
        run(
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
            *("--workpath", work / "pyinstaller", "--distpath", work / "dist", ROOT / "build" / spec),
            cwd=ROOT,
            env={**os.environ, **env, "PYINSTALLER_CONFIG_DIR": str(work / "cache")},
        )
    elif arch == "arm64":
        arm64.pyinstaller(spec, work, env)
    else:
        sys.exit(f"the programs for {arch} can only be built on {arch}")
    (made,) = (work / "dist").iterdir()
    for path in made.glob("*.dist-info/*"):
        if path.name in _PIPS:
            path.unlink()
    return made


def make(spec: str, arch: str, target: Path, names: Iterable[str]) -> None:
    """Make a folder of programs.

    Args:
        spec: a file in build/.
        arch: a key of ARCHITECTURES.
        target: the folder, which must not exist.
        names: the programs.
    """
    triple = ARCHITECTURES[arch].triple
    collected = collect(spec, arch, ROOT / ".work/programs" / arch / Path(spec).stem)
    system = Path("/") if arch == own_architecture() else arm64.root()
    # In a root without links from /lib to /usr/lib, packages have files in both.
    closure.add_c_library(collected, [system / "usr/lib" / triple, system / "lib" / triple])
    target.mkdir(parents=True)
    collected.rename(target / LIB)
    page = f"-Wl,-z,max-page-size={ARCHITECTURES[arch].page}"
    for name in names:
        run(f"{triple}-gcc", *_FLAGS, page, ROOT / "build/program.c", "-o", target / name)


def runner(arch: str, folder: Path) -> Callable[..., str]:
    """Return what runs a folder's programs, by their path in it, as tools.run does; under qemu if need be."""
    if arch == own_architecture():
        return lambda name, *arguments, **how: run(folder / name, *arguments, **how)
    inside = {"/bundle": folder.resolve()}
    return lambda name, *arguments, **how: arm64.emulate(
        arm64.root(), f"/bundle/{name}", *arguments, mounts=inside, **how
    )
