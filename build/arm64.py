"""Run PyInstaller for arm64 on a machine of another architecture: Debian's Python for arm64, under qemu.

Usage: arm64.py [--mount INSIDE=FOLDER …] ROOT COMMAND…, to run another program for arm64 in a root.

PyInstaller examines the interpreter that it runs in, so it has to run in one for arm64. That interpreter and
binutils are Debian's packages, unpacked with what they depend on below .work/arm64. The Python packages are
the locked ones, as wheels for arm64.

The kernel starts each of these programs with qemu's user mode emulation. It is registered as their handler in
a user namespace of its own, so nothing changes on the machine. Before Linux 6.7 there is one list of handlers
for all namespaces (binfmt_misc). It then has to be in that list already, which is what Debian's package
qemu-user-static does when it is installed.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import debian
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tools import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = ROOT / ".work/arm64"
PACKAGES = (
    *("bash", "binutils", "libc-bin", "libpython3.11", "python3.11"),
    *("libc6-dev", "libpython3.11-dev", "zlib1g-dev"),
)
"""PyInstaller runs objcopy, objdump and strip, and ldd, which is a shell script. The second row is what the
plugins' executable consists of: an archive has its licences (contents.py)."""
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in (17, 28, 34)))
"""Names of wheels that Debian 12's glibc (2.36) can load; pip looks for exactly these."""
QEMU = "/usr/bin/qemu-aarch64-static"
UNSHARE = "/usr/bin/unshare"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SOURCE, WHEELS = "/source", "/wheels"
"""Where this repository and the Python packages are in the root."""
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# P: the program sees its own argv[0]. F: qemu is opened here, so that no root needs to have it.
_HANDLER = f":qemu-aarch64:M::{_MAGIC}:{_MASK}:{QEMU}:PF"
_INSIDE = """
handlers=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc none $handlers 2>/dev/null && printf '%s' "$1" >$handlers/register
root=$2; shift 2
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --rbind "$1" "$root$2"; shift 2; done
shift
exec chroot "$root" "$@"
"""


def argv(root: Path, *command: str, mounts: Mapping[str, Path] | None = None) -> list[str]:
    """Return the command line that runs a program for arm64 in a root.

    Args:
        root: the folder.
        command: the program and its arguments.
        mounts: folders of the machine by where they are in the root, besides /proc and /dev.
    """
    words = []
    for target, source in {"/proc": "/proc", "/dev": "/dev", **(mounts or {})}.items():
        words += [str(source), target]
    namespaces = (UNSHARE, "--user", "--map-root-user", "--mount")
    return [*namespaces, "/bin/sh", "-c", _INSIDE, "sh", _HANDLER, str(root), *words, "--", *command]


def emulate(
    root: Path,
    *command: str,
    mounts: Mapping[str, Path] | None = None,
    env: Mapping[str, str] | None = None,
    **how: Any,
) -> str:
    """Run a program for arm64 in a root and return what it printed on standard output.

    Args:
        root: see `argv`.
        command: see `argv`.
        mounts: see `argv`.
        env: its environment, besides PATH.
        how: as `run` takes it.

    Raises:
        SystemExit: it failed, with everything that it printed.
    """
    return run(*argv(root, *command, mounts=mounts), env={"PATH": PATH, **(env or {})}, **how)


@functools.cache
def root() -> Path:
    """Return the root with Debian's Python for arm64, made once, in which programs for arm64 can be started.

    Raises:
        SystemExit: it cannot be made here; the message says what is missing.
    """
    if not os.access(QEMU, os.X_OK):
        sys.exit(f"there is no {QEMU}, of Debian's package qemu-user-static")
    made = debian.unpacked(FOLDER / "root", *PACKAGES, architecture="arm64", dependencies=True)
    try:
        # PyInstaller reads the list of libraries that libc-bin makes when it is installed.
        emulate(made, "/sbin/ldconfig")
    except SystemExit as error:
        sys.exit(
            "programs for arm64 do not start here. Before Linux 6.7, Debian's package qemu-user-static has to"
            f" be installed on the machine, since it registers qemu.\n{error}"
        )
    _compile(made / "usr/lib/python3.11", "/usr/lib/python3.11")
    return made


def _compile(folder: Path, inside: str) -> None:
    """Compile a folder's modules where that has not been done: qemu would take minutes for it."""
    names = ("-s", folder, "-p", inside)  # in tracebacks
    run(sys.executable, "-m", "compileall", "-q", "-j", "0", "-x", "lib2to3/tests|test/bad", *names, folder)


def pyinstaller(spec: str, work: Path, env: Mapping[str, str]) -> None:
    """Run PyInstaller for arm64.

    Args:
        spec: a file in build/.
        work: a folder below this repository, for what it makes: see `programs.collect`.
        env: variables that make its output reproducible.
    """
    inside = f"{SOURCE}/{work.relative_to(ROOT)}"
    emulate(
        root(),
        *("/usr/bin/python3.11", "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
        *("--workpath", f"{inside}/pyinstaller", "--distpath", f"{inside}/dist", f"{SOURCE}/build/{spec}"),
        mounts={SOURCE: ROOT, WHEELS: wheels()},
        env={**env, "PYTHONPATH": WHEELS, "PYINSTALLER_CONFIG_DIR": f"{inside}/cache", "LC_ALL": "C.UTF-8"},
    )


def wanted() -> list[str]:
    """Return the names of the packages that PyInstaller and our programs need, with their dependencies."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    waiting = [
        Requirement(text)
        for text in [*project["dependencies"], *project["optional-dependencies"]["flanneld"]]
    ]
    waiting.append(Requirement("pyinstaller"))
    done: set[tuple[str, str]] = set()
    while waiting:
        asked = waiting.pop()
        for extra in ("", *asked.extras):
            if (asked.name, extra) in done:
                continue
            done.add((asked.name, extra))
            needs = [Requirement(text) for text in metadata.requires(asked.name) or ()]
            waiting += [
                need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
            ]
    return sorted({canonicalize_name(name) for name, _extra in done})


def locked(names: list[str]) -> str:
    """Return what the lock file says of some packages.

    Raises:
        SystemExit: it does not have one of them.
    """
    text = (ROOT / "build/requirements.lock").read_text()
    found = {
        str(canonicalize_name(block.partition("==")[0])): block
        for block in re.findall(r"^[a-z0-9][^\n]*(?:\n +[^\n]*)*", text, re.MULTILINE)
    }
    if missing := [name for name in names if name not in found]:
        sys.exit(f"build/requirements.lock has no {', '.join(missing)}")
    return "".join(found[name] + "\n" for name in names)


def wheels() -> Path:
    """Return a folder with the locked packages for arm64, downloaded once for each state of the lock."""
    folder, asked = FOLDER / "wheels", locked(wanted())
    stamp = folder.with_suffix(".lock")
    if not (folder.is_dir() and stamp.exists() and stamp.read_text() == asked):
        print("downloading Python packages for arm64 …", flush=True)
        spare = folder.with_suffix(".new")
        shutil.rmtree(spare, ignore_errors=True)
        (FOLDER / "asked.txt").write_text(asked)
        run(
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-compile",
            ),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", "--target", spare),
            *(word for platform in PLATFORMS for word in ("--platform", platform)),
            *("-r", FOLDER / "asked.txt"),
        )
        _compile(spare, WHEELS)
        shutil.rmtree(folder, ignore_errors=True)
        spare.rename(folder)
        stamp.write_text(asked)
    return folder


def main() -> None:
    """Run what the command line names, with no variables but PATH."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mount", action="append", default=[], metavar="INSIDE=FOLDER")
    parser.add_argument("root", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    mounts = {
        inside: Path(folder).resolve() for inside, folder in (word.split("=", 1) for word in given.mount)
    }
    command = argv(given.root.resolve(), *given.command, mounts=mounts)
    os.execve(UNSHARE, command, {"PATH": PATH})  # noqa: S606


if __name__ == "__main__":
    main()
