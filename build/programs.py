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
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import closure
from tools import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Iterable

LIB = "lib"
SYSTEM = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH"))
_FLAGS = (
    *(
        "-Os",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-tree-loop-distribute-patterns",
    ),
    *(
        "-fno-asynchronous-unwind-tables",
        "-fno-pie",
        "-no-pie",
        "-nostdlib",
        "-static",
        "-s",
        "-Wl,--build-id=none",
    ),
)
"""Without a C library: nothing that the compiler would call in one."""


def source_date() -> str:
    """Return the time of a build's files, in seconds since 1970: SOURCE_DATE_EPOCH, or the commit's."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "0"  # an archive of the source has no commits


def collect(spec: str, work: Path) -> Path:
    """Let PyInstaller make the programs of a spec; return the folder with them and everything they load.

    Args:
        spec: a file in build/.
        work: a folder for what it makes.
    """
    print("PyInstaller …", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    environment = {**os.environ, "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": source_date()}
    run(
        *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
        *("--workpath", work / "pyinstaller", "--distpath", work / "dist", ROOT / "build" / spec),
        cwd=ROOT,
        env=environment,
    )
    (made,) = (work / "dist").iterdir()
    return made


def assemble(
    collected: Path, target: Path, names: Iterable[str], *, cc: str = "", system: Path = SYSTEM
) -> None:
    """Make a folder of programs of what PyInstaller has collected.

    Args:
        collected: see `collect`; it is moved.
        target: the folder, which must not exist.
        names: the programs.
        cc: the compiler for the architecture; the machine's own if it is empty.
        system: where Debian's libraries of that architecture are.
    """
    closure.add_c_library(collected, system)
    target.mkdir(parents=True)
    collected.rename(target / LIB)
    for name in names:
        run(cc or os.environ.get("CC", "gcc"), *_FLAGS, ROOT / "build/program.c", "-o", target / name)
