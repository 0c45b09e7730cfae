"""Which of Debian's packages a file is from: this machine's, or those in the roots of another architecture.

Those roots are below .work. debian.py has made them and has written dpkg's database there, too.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher import ARCHITECTURES, own_architecture, sysroot
from tools import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORM = "${Package} ${Version} ${source:Package} ${source:Version}\n"
MACHINE = Path("/")


class Package(NamedTuple):
    """A package as it is in one root; ordered by name."""

    name: str
    version: str
    source: str
    source_version: str
    root: Path

    def copyright(self) -> bytes:
        """Return what Debian says of its licences.

        A package's documentation may be a link into that of another one, which is not in every root.
        """
        places = [root / "usr/share/doc" / self.name / "copyright" for root in (self.root, MACHINE)]
        return next((path for path in places if path.exists()), places[0]).read_bytes()


def roots(arch: str) -> list[Path]:
    """Return the roots in which packages of an architecture are."""
    if arch == own_architecture():
        return [MACHINE]
    return [path.parents[3] for path in sorted((ROOT / ".work" / arch).glob("*/var/lib/dpkg/status"))]


def _query(root: Path, *arguments: str) -> str:
    """Return what dpkg-query says. It fails if a file is of no package, after naming those of the others."""
    command = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def owners(root: Path, paths: Iterable[str]) -> dict[str, Package]:
    """Return the package of each path in a root; a path of no package is left out."""
    asked = sorted(set(paths))
    found = {}
    for line in _query(root, "--search", *asked).splitlines() if asked else ():
        names, _, path = line.rpartition(": ")
        name = names.partition(",")[0]
        if path in asked:
            fields = _query(root, "--show", f"--showformat={_FORM}", name).split()
            found[path] = Package(fields[0], fields[1], fields[2], fields[3], root)
    return found


def libraries(arch: str, names: Iterable[str]) -> dict[str, Package]:
    """Return the package of each shared library or extension module of the interpreter, by its file name."""
    folder = ARCHITECTURES[arch].triple
    # The loader is in /lib or /lib64. Some packages name their files by the links in the root.
    places = [f"{top}{name}" for top in ("", "/usr") for name in (f"/lib/{folder}", "/lib", "/lib64")]
    candidates = {
        f"{place}/{name}": name for place in ("/usr/lib/python3.11/lib-dynload", *places) for name in names
    }
    found: dict[str, Package] = {}
    for root in roots(arch):
        for path, package in owners(root, candidates).items():
            found.setdefault(candidates[path], package)
    return found


def linked(arch: str) -> list[Package]:
    """Return the packages of what build/launcher.py links into the plugins' executable.

    Raises:
        SystemExit: a library is of no package.
    """
    triple, root = ARCHITECTURES[arch].triple, sysroot(arch)
    own = [f"/usr/lib/python3.11/config-3.11-{triple}/libpython3.11.a", f"/usr/lib/{triple}/libz.a"]
    # The C library and the compiler's own: with a cross compiler, they are packages of this machine.
    named = [
        str(Path(run(f"{triple}-gcc", f"-print-file-name={name}").strip()).resolve())
        for name in ("libc.a", "libm.a", "libgcc.a")
    ]
    found = {**owners(root, own), **owners(MACHINE, named)}
    if missing := {*own, *named} - set(found):
        raise SystemExit(f"no Debian package has {', '.join(sorted(missing))}")
    return sorted(set(found.values()))


def interpreter(arch: str) -> list[Package]:
    """Return the packages of the interpreter's modules that PyInstaller collects."""
    files = ("/usr/lib/python3.11/os.py", "/usr/lib/python3.11/asyncio/__init__.py")
    return sorted({package for root in roots(arch) for package in owners(root, files).values()})
