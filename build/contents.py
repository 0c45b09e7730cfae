"""What other people's work is in a built folder: Python packages and Debian packages, with their licences.

PyInstaller's archives and extension modules are compared with the files of the installed Python packages, and
shared libraries with those of Debian's. A module or library of unknown origin is an error, so that the list
cannot silently be too short.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import dpkg
from PyInstaller.archive.readers import ArchiveReadError, CArchiveReader

OWN = frozenset({"cni_plugins", "conflist", "flanneld", "ipam"})
_LICENCE = re.compile(r"(licen[cs]e|copying|notice)[^/]*", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A package of somebody else, all or some of which is in a built folder.

    Attributes:
        kind: `pypi` or `deb`.
        name: its name there.
        version: its version there.
        licences: the texts, by a file name for each.
        licence: the licence as the package names it; nothing where only the texts say it.
        source: for `deb`, the source package and its version.
    """

    kind: str
    name: str
    version: str
    licences: dict[str, bytes] = field(compare=False)
    licence: str = ""
    source: tuple[str, str] = ("", "")


def parts(folder: Path, arch: str) -> list[Part]:
    """Return what is in a folder, sorted by kind and name.

    Args:
        folder: what build.py or flanneld.py made.
        arch: its architecture, by Debian's name.

    Raises:
        SystemExit: something in the folder is of unknown origin.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    elf = [path for path in files if _is_elf(path)]
    modules = {name for path in elf for name in _archived(path)}
    python: set[str] = set()
    packages: set[dpkg.Package] = set()
    unknown: set[str] = set()
    if modules:
        python.add("pyinstaller")  # its bootloader starts them
        packages |= set(dpkg.interpreter(arch))
    owners = _module_owners()
    namespaces = {
        str(parent).replace("/", ".") for name in owners for parent in Path(*name.split(".")).parents
    }
    for name in modules - namespaces:
        top = name.partition(".")[0]
        if name in owners:
            python.add(owners[name])
        elif top not in OWN and top not in sys.stdlib_module_names and not _is_interpreters(name):
            unknown.add(name)
    libraries = {}
    for path in elf:
        name = _module_of(path)
        if name in owners:
            python.add(owners[name])
        elif ".so" in path.name:
            libraries[path] = path.name
    known = dpkg.libraries(arch, libraries.values())
    packages |= set(known.values())
    unknown |= {str(path.relative_to(folder)) for path, name in libraries.items() if name not in known}
    if (folder / "bridge").is_symlink():
        packages |= set(dpkg.linked(arch))
    if unknown:
        sys.exit(f"{folder}: nobody knows where this is from: {', '.join(sorted(unknown))}")
    return [*map(_debian_part, sorted(packages)), *map(_python_part, sorted(python))]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _archived(path: Path) -> list[str]:
    """Return the modules in the archive that PyInstaller has put behind a program; none if there is none."""
    try:
        archive = CArchiveReader(str(path))
    except ArchiveReadError:
        return []
    names = [name for name, entry in archive.toc.items() if entry[-1] in "zZ"]
    return [module for name in names for module in archive.open_embedded_archive(name).toc]


def _is_interpreters(name: str) -> bool:
    return name.startswith(("_sysconfigdata_", "pyimod", "pyiboot", "_pyi_rth"))


def _module_of(path: Path) -> str:
    """Return the dotted name of an extension module in a folder of PyInstaller's, for any architecture."""
    lib = next((parent for parent in path.parents if (parent / "base_library.zip").exists()), path.parent)
    inside = path.relative_to(lib)
    return ".".join((*inside.parts[:-1], inside.name.partition(".")[0]))


def _module_owners() -> dict[str, str]:
    """Return every module of the installed Python packages with its package's name."""
    owners = {}
    for distribution in importlib.metadata.distributions():
        package = distribution.metadata["Name"].lower().replace("_", "-")
        for file in distribution.files or ():
            inside = Path(*file.parts)
            if inside.suffix not in (".py", ".so") or ".." in inside.parts:
                continue
            name = ".".join((*inside.parts[:-1], inside.name.partition(".")[0])).removesuffix(".__init__")
            owners[name] = package
    # The project itself, if it is installed in place.
    return {name: owner for name, owner in owners.items() if name.partition(".")[0] not in OWN}


def _python_part(name: str) -> Part:
    distribution = importlib.metadata.distribution(name)
    texts = {}
    for file in distribution.files or ():
        if _LICENCE.fullmatch(file.name) and ".dist-info" in file.parts[0]:
            texts["-".join(file.parts[1:]).replace("licenses-", "")] = Path(str(file.locate())).read_bytes()
    metadata = distribution.metadata
    named = next((metadata[key] for key in ("License-Expression", "License") if key in metadata), "")
    if not named or "\n" in named:
        classes = [
            line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", ()) if "License ::" in line
        ]
        named = " AND ".join(classes)
    if not texts:
        texts["METADATA"] = (distribution.read_text("METADATA") or "").encode()
    return Part("pypi", name, distribution.version, texts, named)


def _debian_part(package: dpkg.Package) -> Part:
    texts = {"copyright": package.copyright()}
    source = (package.source, package.source_version)
    return Part("deb", package.name, package.version, texts, source=source)
