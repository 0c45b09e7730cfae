"""Debian's packages and sources in a folder, from the machine's own mirrors, without a change to the machine.

apt gets a configuration of its own: lists, cache and an empty list of installed packages are below a folder
of ours, and the sources are those of the machine that are Debian's, for another architecture or release
where one is asked for.

    debian.py mirror                    the address of the machine's mirror
    debian.py newest METAPACKAGE        the package that it depends on today: PACKAGE=VERSION
    debian.py unpack FOLDER PACKAGE…    packages, with --dependencies all that they need, for an
                                        --architecture or of a --release; no script of theirs is run
    debian.py source FOLDER PACKAGE     a source package, the newest that is served
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FORMAT = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)"


def _run(*command: str, cwd: Path, config: Path | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        SystemExit: it failed, with what it said.
    """
    environment = {**os.environ, "LC_ALL": "C", **({"APT_CONFIG": str(config)} if config else {})}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def machine_sources(state: Path) -> list[tuple[str, str]]:
    """Return the address and the release of each of the machine's sources that is Debian's main component.

    Args:
        state: a folder for apt's lists, which may be missing on the machine or be old.
    """
    (state / "partial").mkdir(parents=True, exist_ok=True)
    lists = ("-o", f"Dir::State::lists={state}", "-o", "APT::Sandbox::User=root")
    _run("apt-get", *lists, "-qq", "update", cwd=state)
    said = _run("apt-get", *lists, "indextargets", f"--format={_FORMAT}", "Created-By: Packages", cwd=state)
    found = []
    for line in said.splitlines():
        origin, _codename, component, address, release = line.split("|")
        if origin == "Debian" and component == "main" and (address, release) not in found:
            found.append((address, release))
    if not found:
        sys.exit("none of this machine's apt sources is Debian's main component")
    return found


class Apt:
    """apt with a configuration of its own.

    Args:
        folder: where it keeps everything; made when it is not there.
        architecture: as Debian names it; empty: the machine's.
        release: a release of Debian in the place of the machine's own, by its code name. Only the release
            itself is used then, without updates, since an older one's are in other places.
        sources: read the lists of source packages, too.

    Raises:
        SystemExit: apt failed, with what it said.
    """

    def __init__(
        self, folder: Path, *, architecture: str = "", release: str = "", sources: bool = False
    ) -> None:
        self.folder = folder.resolve()
        for name in ("lists/partial", "cache/archives/partial", "machine"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        kinds = "deb deb-src" if sources else "deb"
        rows = []
        for address, name in machine_sources(self.folder / "machine"):
            if release and ("-" in name or "/" in name):
                continue
            rows += [
                f"{kind} [signed-by={KEYRING}] {address} {release or name} main" for kind in kinds.split()
            ]
        (self.folder / "sources.list").write_text("\n".join(rows) + "\n")
        (self.folder / "status").write_text("")
        settings = {
            "Dir::Etc::sourcelist": str(self.folder / "sources.list"),
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": str(self.folder / "lists"),
            "Dir::State::status": str(self.folder / "status"),
            "Dir::Cache": str(self.folder / "cache"),
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
        }
        if architecture:
            settings["APT::Architecture"] = architecture
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        if architecture:
            lines.append(f'APT::Architectures {{ "{architecture}"; }};')
        self._config = self.folder / "apt.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self("apt-get", "-qq", "update")

    def __call__(self, *command: str, cwd: Path | None = None) -> str:
        """Run a program of apt with this configuration and return what it printed."""
        return _run(*command, cwd=cwd or self.folder, config=self._config)

    def newest(self, metapackage: str) -> str:
        """Return what a metapackage stands for, as `name=version`.

        It is the package whose name begins as the metapackage's own, and on which that depends, as
        linux-image-amd64 does on a kernel.
        """
        stem = metapackage.rpartition("-")[0]
        names = [
            line.removeprefix("  Depends: ")
            for line in self("apt-cache", "depends", metapackage).splitlines()
            if line.startswith(f"  Depends: {stem}-")
        ]
        if len(names) != 1:
            sys.exit(f"{metapackage} stands for {names or 'nothing'}")
        shown = self("apt-cache", "show", "--no-all-versions", names[0])
        return f"{names[0]}={_versions(shown)[0]}"

    def download(self, *packages: str, dependencies: bool = False) -> list[Path]:
        """Download packages, with all that they depend on if that is asked for; return the files."""
        archives = self.folder / "cache/archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        if dependencies:
            self("apt-get", "-qq", "--yes", "--download-only", "install", *packages)
        else:
            self("apt-get", "-qq", "download", *packages, cwd=archives)
        return sorted(archives.glob("*.deb"))

    def unpack(self, target: Path, *packages: str, dependencies: bool = False) -> None:
        """Download packages and unpack them into a folder, which is made new; no script of theirs is run."""
        target = target.resolve()
        spare = target.with_name(f"{target.name}.new")
        shutil.rmtree(spare, ignore_errors=True)
        spare.mkdir(parents=True)
        for archive in self.download(*packages, dependencies=dependencies):
            _run("dpkg-deb", "--extract", str(archive), str(spare), cwd=spare)
            _record(archive, spare)
        shutil.rmtree(target, ignore_errors=True)
        spare.rename(target)

    def source(self, package: str, target: Path) -> str:
        """Download a source package and unpack it into a folder; return the version.

        It is the newest version that is served: a mirror can list one whose files it has no more, or not yet.

        Raises:
            SystemExit: none is served.
        """
        place = self.folder / "source"
        said = self("apt-cache", "showsrc", package)
        refusals = []
        for version in sorted(set(_versions(said)), key=_Version, reverse=True):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                self("apt-get", "-qq", "source", "--download-only", f"{package}={version}", cwd=place)
            except SystemExit as error:
                refusals.append(str(error))
                continue
            (description,) = place.glob("*.dsc")
            shutil.rmtree(target, ignore_errors=True)
            # apt has compared the signature already.
            _run(
                "dpkg-source",
                "--no-check",
                "--no-copy",
                "-x",
                str(description),
                str(target.resolve()),
                cwd=place,
            )
            return version
        sys.exit("\n".join([f"no source of {package} is served", *refusals]))


def _record(archive: Path, root: Path) -> None:
    """Add a package to dpkg's database in a root: dpkg-query(1) with --admindir reads it."""
    control = _run("dpkg-deb", "--field", str(archive), cwd=root)
    fields = dict(line.split(": ", 1) for line in control.splitlines() if re.match(r"[\w-]+: ", line))
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "format").write_text("1\n")  # since when shared packages' lists have their architecture
    shared = f":{fields['Architecture']}" if fields.get("Multi-Arch") == "same" else ""
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as members:
        names = [member.name.removeprefix(".").rstrip("/") for member in members]
    (info / f"{fields['Package']}{shared}.list").write_text("".join(f"{name}\n" for name in names if name))
    with (root / "var/lib/dpkg/status").open("a", encoding="utf-8") as status:
        status.write(control.rstrip("\n").replace("\n", "\nStatus: install ok unpacked\n", 1) + "\n\n")


def _versions(shown: str) -> list[str]:
    """Return the versions in what apt-cache shows of packages."""
    return [line.removeprefix("Version: ") for line in shown.splitlines() if line.startswith("Version: ")]


class _Version:
    """A version as dpkg orders them."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: _Version) -> bool:
        return not subprocess.run(
            ["dpkg", "--compare-versions", self.text, "lt", other.text], check=False
        ).returncode


def unpacked(
    target: Path, *packages: str, architecture: str = "", release: str = "", dependencies: bool = False
) -> Path:
    """Return a folder with packages unpacked into it, downloaded when others are asked for than before.

    Args:
        target: the folder.
        packages: their names.
        architecture: as `Apt` takes it.
        release: as `Apt` takes it.
        dependencies: with all that they depend on.
    """
    mark = target.with_name(f"{target.name}.packages")
    asked = f"{packages} {architecture} {release} {dependencies} with dpkg's database\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # `make -j` and parallel tests ask for a folder at the same time
        if not (target.is_dir() and mark.exists() and mark.read_text() == asked):
            with tempfile.TemporaryDirectory() as folder:
                apt = Apt(Path(folder), architecture=architecture, release=release)
                apt.unpack(target, *packages, dependencies=dependencies)
            mark.write_text(asked)
    return target


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=("mirror", "newest", "unpack", "source"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--architecture", default="")
    parser.add_argument("--release", default="")
    parser.add_argument("--dependencies", action="store_true")
    given = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.command == "mirror":
            print(machine_sources(Path(folder))[0][0])
        elif given.command == "source":
            target, package = given.words
            print(Apt(Path(folder), sources=True).source(package, Path(target)))
        elif given.command == "newest":
            print(Apt(Path(folder)).newest(*given.words))
        else:
            target, *packages = given.words
            apt = Apt(Path(folder), architecture=given.architecture, release=given.release)
            apt.unpack(Path(target), *packages, dependencies=given.dependencies)


if __name__ == "__main__":
    main()
