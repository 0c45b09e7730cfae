"""What other people's work is in a built folder: Python packages and Debian packages, with their licences.

PyInstaller's archives and extension modules are compared with the files of the installed Python packages, and
shared libraries with those of Debian's. A module or library of unknown origin is an error, so that the list
cannot silently be too short.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PyInstaller.archive.readers import ArchiveReadError, CArchiveReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWN = frozenset({"cni_plugins", "conflist", "flanneld", "ipam"})
_INTERPRETER = frozenset({"libpython3.11-minimal", "libpython3.11-stdlib"})
"""Debian's packages of the interpreter and of the standard library, as PyInstaller finds them here."""
_LICENCE = re.compile(r"(licen[cs]e|copying|notice)[^/]*", re.IGNORECASE)
_MULTIARCH = sysconfig.get_config_var("MULTIARCH")


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


def parts(folder: Path, root: Path = Path("/")) -> list[Part]:
    """Return what is in a folder, sorted by kind and name.

    Args:
        folder: what build.py or flanneld.py made.
        root: the root with Debian's packages of the folder's architecture. Only this machine's is expected to
            have dpkg's database.

    Raises:
        SystemExit: something in the folder is of unknown origin.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    elf = [path for path in files if _is_elf(path)]
    modules = {name for path in elf for name in _archived(path)}
    python: set[str] = set()
    debian: set[str] = set()
    unknown: set[str] = set()
    if modules:
        python.add("pyinstaller")  # its bootloader starts them
        debian |= _INTERPRETER
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
            libraries[path] = _debians_own(path.name)
    static = _static_libraries() if (folder / "bridge").is_symlink() else []
    packages = _packages((*libraries.values(), *static))
    debian |= {packages[path] for path in (*libraries.values(), *static) if path in packages}
    unknown |= {str(path.relative_to(folder)) for path, own in libraries.items() if own not in packages}
    unknown |= {str(path) for path in static if path not in packages}
    if unknown:
        sys.exit(f"{folder}: nobody knows where this is from: {', '.join(sorted(unknown))}")
    return [
        *(_debian_part(name, root) for name in sorted(debian)),
        *(_python_part(name) for name in sorted(python)),
    ]


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


def _query(*arguments: str) -> str:
    """Return what dpkg-query says. It fails if a file is of no package, after naming those of the others."""
    command = ["dpkg-query", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def _debians_own(name: str) -> Path:
    """Return where this machine has a shared library, or one of the interpreter's extension modules."""
    own = re.sub(r"(aarch64|x86_64)-linux-gnu", _MULTIARCH, name)
    if own.startswith("ld-linux"):  # its name has the architecture in another form
        own = "libc.so.6"
    module = Path("/usr/lib/python3.11/lib-dynload", own)
    return module if module.exists() else Path("/usr/lib", _MULTIARCH, own)


def _static_libraries() -> list[Path]:
    """Return what the plugins' executable is linked with: build/launcher.py has the list."""
    found = []
    for name in ("libc.a", "libm.a", "libz.a", "libgcc.a"):
        command = ["gcc", f"-print-file-name={name}"]
        found.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    interpreter = Path(sysconfig.get_config_var("LIBPL"), sysconfig.get_config_var("LIBRARY"))
    return [interpreter, *map(Path, found)]


def _packages(files: Iterable[Path]) -> dict[Path, str]:
    """Return each file's Debian package; files of no package are left out."""
    names: dict[str, list[Path]] = {}
    for file in files:
        real = str(file.resolve())
        # Debian's database has some by the links in the root.
        for name in {real, real.removeprefix("/usr")}:
            names.setdefault(name, []).append(file)
    found = {}
    for line in _query("--search", *sorted(names)).splitlines() if names else ():
        package, _, name = line.rpartition(": ")
        for file in names.get(name, ()):
            found[file] = package.partition(":")[0]
    return found


def _debian_part(name: str, root: Path) -> Part:
    doc = root / "usr/share/doc" / name
    texts = {"copyright": (doc / "copyright").read_bytes()}
    if root == Path("/"):
        form = "${Version} ${source:Package} ${source:Version}\n"
        version, source, source_version = _query("--show", f"--showformat={form}", name).split()[:3]
    else:
        source, version = next(_changes(doc))
        source_version = re.sub(r"\+b\d+$", "", version)
    return Part("deb", name, version, texts, source=(source, source_version))


def _changes(doc: Path) -> Iterator[tuple[str, str]]:
    """Give the source package's name and version of each entry in a package's changelog, newest first."""
    path = next(doc.glob("changelog.Debian*"))
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for found in re.finditer(rb"^(\S+) \(([^)]+)\)", content, re.MULTILINE):
        yield found[1].decode(), found[2].decode()
