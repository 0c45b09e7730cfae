"""What the files of a bundle ask of a node, as readelf says, and the check that they ask for nothing.

A program that a node starts must be static. All other files are opened by the bundle's own loader, and what
they ask for must be in the bundle, too. Then it does not matter which C library the node has, or whether it
has one.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

C_LIBRARY = (
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
)
"""The C library's parts. PyInstaller leaves them out, because it expects the node's."""
BY_NAME = ("libgcc_s.so.1",)
"""What the C library itself opens when a thread ends (pthread_exit), so that no file asks for it."""
_PRELOAD = b"/etc/ld.so.preload\0"


@dataclass(frozen=True)
class Elf:
    """What an ELF file asks for.

    Attributes:
        needed: the libraries, by name.
        loader: the path of the program that the kernel starts it with; empty: none.
        folders: where it has the loader look first; `$ORIGIN` is its own folder.
    """

    needed: tuple[str, ...]
    loader: str
    folders: tuple[str, ...]


def read(path: Path) -> Elf | None:
    """Return what a file asks for; None of a file that is not ELF.

    Raises:
        SystemExit: readelf cannot read it.
    """
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return None
    command = ("readelf", "--wide", "--dynamic", "--program-headers", path)
    said = run(*command, env={**os.environ, "LC_ALL": "C"})
    loader = re.search(r"program interpreter: (.*)\]", said)
    return Elf(
        tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", said)),
        loader[1] if loader else "",
        tuple(
            folder
            for found in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", said)
            for folder in found.split(":")
        ),
    )


def elves(folder: Path) -> Iterator[tuple[Path, Elf]]:
    """Yield the ELF files below a folder, with what they ask for."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and (elf := read(path)) is not None:
            yield path, elf


def _found(name: str, path: Path, elf: Elf, lib: Path) -> bool:
    """Tell whether the loader finds a library of a file in the bundle, when it is told to look in `lib`."""
    own = [folder.replace("$ORIGIN", str(path.parent)) for folder in elf.folders]
    return any(os.path.exists(f"{folder}/{name}") for folder in (*own, lib))


def add_c_library(lib: Path, places: Sequence[Path]) -> None:
    """Put the loader and the parts of the C library that files ask for into a bundle's folder of libraries.

    Args:
        lib: the folder, as PyInstaller has made it.
        places: where Debian's libraries of that architecture are.

    Raises:
        SystemExit: there is no such library, or the loader is not as expected.
    """
    files = list(elves(lib))
    asked = {name for path, elf in files for name in elf.needed if not _found(name, path, elf, lib)}
    names = {*BY_NAME, "libc.so.6", *(asked & set(C_LIBRARY))}
    loaders = {os.path.basename(elf.loader) for _path, elf in files if elf.loader}
    if len(loaders) != 1:
        sys.exit(f"the programs in {lib} name {len(loaders)} loaders: {', '.join(sorted(loaders))}")
    for name in sorted(names):
        _copy(name, places, lib)
    (loader,) = loaders
    _copy(loader, places, lib)
    _ignore_preload(lib / loader)


def _copy(name: str, places: Sequence[Path], folder: Path) -> None:
    for place in places:
        if (place / name).exists():
            shutil.copy((place / name).resolve(), folder / name)
            return
    sys.exit(f"there is no {name} in {', '.join(map(str, places))}")


def _ignore_preload(loader: Path) -> None:
    """Have a loader ignore the list of libraries that the node's programs load first.

    These need the node's C library. There is no option for this: the list's path in the loader is made empty.
    """
    content = loader.read_bytes()
    if content.count(_PRELOAD) != 1:
        sys.exit(f"{loader} does not name {_PRELOAD.decode()} once")
    loader.write_bytes(content.replace(_PRELOAD, b"\0" + _PRELOAD[1:]))


def check(lib: Path, started: Iterable[Path]) -> None:
    """Fail if a file of a bundle asks for something of the node.

    Args:
        lib: the bundle's folder of libraries, in which its own loader looks.
        started: the programs that a node's kernel starts.

    Raises:
        SystemExit: with everything that is asked for.
    """
    wrong = []
    for path in started:
        elf = read(path)
        if elf is None or elf.loader or elf.needed:
            wrong.append(f"{path} is not a static program: {elf}")
    for path, elf in elves(lib):
        wrong += [
            f"{path} asks for {name}, which is not in {lib}"
            for name in elf.needed
            if not _found(name, path, elf, lib)
        ]
        if strays := [folder for folder in elf.folders if not folder.startswith("$ORIGIN")]:
            wrong.append(f"{path} looks for libraries in {', '.join(strays)}")
    if wrong:
        sys.exit("\n".join(wrong))
