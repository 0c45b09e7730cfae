"""Build the plugins' executable: one static file for one architecture.

Usage: launcher.py [--arch amd64|arm64] [--main MODULE] TARGET. It consists of launcher.c, json.c, left_out.c,
the modules that freeze.py writes, and Debian's static libpython and C library of that architecture.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "build"))

from debian import unpacked  # noqa: E402
from tools import run  # noqa: E402

PLUGINS = "cni_plugins.multicall"
SOURCES = ("launcher", "json", "left_out")
COMPILER_OPTIONS = (
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-pie"),
    *("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
)
# Not position-independent, as Debian's own interpreter: its pointers need no relocation at every start. A
# warning of the linker is one of a function that needs the node's own libraries: left_out.c has to have it.
LINKER_OPTIONS = (
    *("-static", "-no-pie", "-s", "-Wl,--fatal-warnings", "-Wl,--build-id=none"),
    *("-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,-z,separate-code"),
)


class Architecture(NamedTuple):
    """An architecture by Debian's name for it.

    Attributes:
        triple: GNU's name, as in /usr/lib/TRIPLE.
        machine: what `uname -m` and readelf call it.
        page: the largest size in bytes of a page of memory that its kernels are built with.
    """

    triple: str
    machine: str
    page: int


ARCHITECTURES = {
    "amd64": Architecture("x86_64-linux-gnu", "X86-64", 4 << 10),
    "arm64": Architecture("aarch64-linux-gnu", "AArch64", 64 << 10),
}
_OWN = {"x86_64": "amd64", "aarch64": "arm64"}


def own_architecture() -> str:
    """Return Debian's name for this machine's architecture.

    Raises:
        SystemExit: the plugins are not built on such a machine.
    """
    machine = os.uname().machine
    if machine not in _OWN:
        sys.exit(f"the plugins cannot be built on {machine}, only on {' and '.join(_OWN)}")
    return _OWN[machine]


def sysroot(arch: str) -> Path:
    """Return the root below which an architecture's libpython, zlib and their headers are.

    Another architecture's are downloaded and unpacked, not installed. Its C library comes with the compiler.
    """
    if arch == own_architecture():
        return Path("/")
    return unpacked(ROOT / f".work/{arch}/libpython", "libpython3.11-dev", "zlib1g-dev", architecture=arch)


def build_launcher(arch: str, target: Path, main: str = PLUGINS) -> None:
    """Compile the executable, link it and check it.

    Args:
        arch: a key of ARCHITECTURES.
        target: the file to write.
        main: the module whose main() it runs; tests have others.

    Raises:
        SystemExit: a step failed, or the executable is not what `check` demands.
    """
    work = ROOT / ".work/launcher" / arch / main
    work.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:  # several tests may build at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _link(arch, target, _compile(arch, work, main))
    check(arch, target)


def _compile(arch: str, work: Path, main: str) -> list[Path]:
    """Compile everything of ours; return the objects."""
    # Another order of a set's elements, by the strings' hashes, would be another file.
    freeze = (sys.executable, ROOT / "build/freeze.py", "--main", main, work / "frozen.h")
    run(*freeze, env={"PYTHONHASHSEED": "0"})
    include = sysroot(arch) / "usr/include"
    objects = []
    for name in SOURCES:
        objects.append(work / f"{name}.o")
        run(
            *(f"{ARCHITECTURES[arch].triple}-gcc", *COMPILER_OPTIONS, f"-ffile-prefix-map={ROOT}=."),
            *("-I", work, "-I", include / "python3.11", "-I", include),
            *("-c", ROOT / f"build/{name}.c", "-o", objects[-1]),
        )
    return objects


def _link(arch: str, target: Path, objects: list[Path]) -> None:
    """Link objects with Debian's libraries."""
    triple, lib = ARCHITECTURES[arch].triple, sysroot(arch) / "usr/lib"
    # zlib is there for binascii.crc32 alone.
    archives = (lib / f"python3.11/config-3.11-{triple}/libpython3.11.a", lib / f"{triple}/libz.a", "-lm")
    page = f"-Wl,-z,max-page-size={ARCHITECTURES[arch].page}"
    run(f"{triple}-gcc", *LINKER_OPTIONS, page, *objects, *archives, "-o", target)


def check(arch: str, file: Path) -> None:
    """Fail unless an executable needs only a kernel, and none of its memory is both writable and executable.

    Raises:
        SystemExit: what is wrong with it.
    """
    expected = ARCHITECTURES[arch]
    header = run("readelf", "--wide", "--file-header", file)
    segments = run("readelf", "--wide", "--program-headers", file)
    wrong = []
    if expected.machine not in header or "EXEC (Executable file)" not in header:
        wrong.append(f"it is no executable for {arch}")
    rows = re.findall(r"^ +([A-Z_]+) +(?:0x\w+ +){5}([R ][W ][E ]) +(\w+)$", segments, re.MULTILINE)
    kinds = {kind for kind, _, _ in rows}
    # Only a dynamic segment can name libraries and a run path.
    wrong += [f"it has a segment {kind}" for kind in ("INTERP", "DYNAMIC") if kind in kinds]
    if "GNU_RELRO" not in kinds:
        wrong.append("nothing of it is made read-only after its start")
    wrong += [f"a segment {kind} is {flags.strip()}" for kind, flags, _ in rows if {"W", "E"} <= {*flags}]
    if "GNU_STACK" not in kinds:
        wrong.append("its stack would be executable")
    loads = [int(align, 16) for kind, _, align in rows if kind == "LOAD"]
    if not loads or min(loads) < expected.page:
        wrong.append(f"it would not start with pages of {expected.page} bytes")
    if wrong:
        sys.exit(f"{file}: {'; '.join(wrong)}")


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", choices=ARCHITECTURES, default=own_architecture())
    parser.add_argument("--main", default=PLUGINS, help="the module whose main() it runs")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    build_launcher(options.arch, options.target, options.main)


if __name__ == "__main__":
    main()
