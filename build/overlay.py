"""Run a command with Debian's packages that the machine itself does not get.

Usage: overlay.py GROUP [COMMAND…]. GROUP is one of build/packages.txt. Without a command, it only installs
the packages.

The packages are installed once, into a layer: a folder below .work/debian with the changes that apt made to
/usr, /etc and /var. A command then runs in a mount namespace of its own, where overlays (overlayfs, in the
kernel's Documentation/filesystems/overlayfs.rst) show the machine's folders with the layer over them. What
the command changes there is kept in memory and goes with it, so nothing of the machine's /usr, /etc and /var
changes, and no service is started or enabled.

A layer's name is a digest of the list of its packages and of the machine's installed packages, so an upgrade
of the machine leads to a new layer. If the user is not root and all packages are installed, as while the
image is built, the command runs without overlays. If overlays cannot be made, as in a container whose root is
an overlay, the packages are installed on the machine.

Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "build/packages.txt"
OVERLAID = ("usr", "etc", "var")
STATUS = Path("/var/lib/dpkg/status")
INSIDE = "CNI_BUILD_OVERLAY"
"""The environment variable that tells a command the group of packages that it sees."""
OVERWRITE = ("--option", "Dpkg::Options::=--force-overwrite")

NEWNS = 0x00020000  # sched.h
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18  # sys/mount.h

_libc = ctypes.CDLL(None, use_errno=True)


class NoOverlayError(Exception):
    """This machine cannot have overlays; the message says why."""


def groups(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return each group of a list of packages: the group that it adds to, and its packages.

    Raises:
        ValueError: a line is neither a comment nor of one of the two forms.
    """
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        form = re.fullmatch(r"([a-z-]+)(?: < ([a-z-]+)|: (.+))", line)
        if form is None:
            raise ValueError(f"{PACKAGES.name}: {line!r} is no `group: packages` and no `group < group`")
        name, parent, packages = form.groups()
        before = found.get(name, ("", ()))
        found[name] = (parent or before[0], (*before[1], *(packages or "").split()))
    return found


def chain(name: str, known: dict[str, tuple[str, tuple[str, ...]]]) -> list[str]:
    """Return a group and those that it adds to, the widest first."""
    names = []
    while name:
        names.append(name)
        name = known[name][0]
    return names


def missing(packages: Sequence[str]) -> list[str]:
    """Return those of some packages that are not installed here."""
    form = "${db:Status-Abbrev}${Package}\n"
    said = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={form}", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    there = {line[3:].strip() for line in said.stdout.splitlines() if line.startswith("ii")}
    return [name for name in packages if name not in there]


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Put a file system, or a folder, in a place (mount(2)).

    Raises:
        OSError: it failed; the message names the target.
    """
    if _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def own_mounts() -> None:
    """Move this process to a mount namespace of its own, whose changes nobody else sees.

    Raises:
        NoOverlayError: the kernel refuses it.
    """
    if _libc.unshare(NEWNS):
        raise NoOverlayError(f"a mount namespace: {os.strerror(ctypes.get_errno())}")
    try:
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
    except OSError as error:  # the root is a chroot's, and no mount
        raise NoOverlayError(f"mounts that others do not see: {error.strerror}") from None


def mounts() -> list[tuple[str, str]]:
    """Return each place where something is mounted, and the kind of its file system (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.split() for line in file]
    return [
        (re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), row[4]), row[row.index("-") + 1])
        for row in rows
    ]


def points_below(folder: str) -> list[str]:
    """Return where something is mounted below a folder of the root, outermost first."""
    return sorted({place for place, _kind in mounts() if place.startswith(f"/{folder}/")})


def is_overlay(path: str) -> bool:
    """Tell whether a path is on an overlay."""
    above = [(place, kind) for place, kind in mounts() if f"{path}/".startswith(f"{place.rstrip('/')}/")]
    # Of mounts in one place, the last one is seen.
    return max(enumerate(above), key=lambda item: (len(item[1][0]), item[0]))[1][1] == "overlay"


def lay(layers: Sequence[Path], upper: Path) -> None:
    """Mount overlays over the machine's folders.

    What is mounted below these folders, and this repository, are seen in their places as before.

    Args:
        layers: the folders of layers, the uppermost first.
        upper: a folder for what is changed; it may be on another file system than the layers.

    Raises:
        NoOverlayError: the kernel or the file system refuses it.
    """
    for folder in OVERLAID:
        kept = points_below(folder)
        if str(ROOT).startswith(f"/{folder}/"):
            kept.append(str(ROOT))
        opened = [(os.open(place, os.O_PATH | os.O_CLOEXEC), place) for place in kept]
        for part in ("upper", "work"):
            (upper / folder / part).mkdir(parents=True, exist_ok=True)
        lower = ":".join([*(str(layer / folder) for layer in layers), f"/{folder}"])
        options = f"lowerdir={lower},upperdir={upper / folder / 'upper'},workdir={upper / folder / 'work'}"
        try:
            mount("overlay", f"/{folder}", "overlay", data=options)
        except OSError as error:
            raise NoOverlayError(f"an overlay over /{folder}: {error.strerror}") from None
        for fd, place in opened:
            with contextlib.suppress(FileNotFoundError):  # a mount over a place that is only in another mount
                mount(f"/proc/self/fd/{fd}", place, flags=MS_BIND | MS_REC)
            os.close(fd)


def hide_services() -> None:
    """Show an empty /run, where no package's script finds a service of the machine; names still resolve."""
    resolver = os.path.realpath("/etc/resolv.conf")
    content = Path(resolver).read_bytes() if os.path.exists(resolver) else b""
    mount("run", "/run", "tmpfs", data="mode=755")
    os.makedirs("/run/lock")
    if resolver.startswith("/run/"):
        os.makedirs(os.path.dirname(resolver), exist_ok=True)
        Path(resolver).write_bytes(content)
    # A package's script would register emulators with the machine's kernel there (binfmt_misc).
    if os.path.ismount("/proc/sys/fs/binfmt_misc"):
        mount("none", "/proc/sys/fs/binfmt_misc", "tmpfs")


def apt_install(packages: Sequence[str], *, in_layer: bool) -> None:
    """Install packages, starting no service (policy-rc.d, invoke-rc.d(8)).

    Args:
        packages: their names.
        in_layer: they may take over files of the machine's packages, as Debian's kubectl does of somebody
            else's: nobody but our commands sees it.

    Raises:
        SystemExit: apt failed, with what it said.
    """
    print(f"installing {' '.join(packages)} …", file=sys.stderr, flush=True)
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        options = ["--yes", "--no-install-recommends", *OVERWRITE * in_layer]
        for command in (["update"], ["install", *options, *packages]):
            done = subprocess.run(
                ["apt-get", "-qq", *command],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(f"apt-get {command[0]} failed:\n{done.stdout[-4000:]}")
    finally:
        if made:
            policy.unlink()


def state_folder() -> Path:
    """Return where layers are kept: in the repository, unless that is itself in a folder that is overlaid."""
    if str(ROOT).startswith(tuple(f"/{folder}/" for folder in OVERLAID)):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cni-plugins/debian")
    return ROOT / ".work/debian"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one process has at a time; a `make -j` starts several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_layer(layer: Path, below: Sequence[Path], packages: Sequence[str]) -> None:
    """Install packages into a layer, which gets its name when it is whole.

    Raises:
        NoOverlayError: this machine cannot have overlays.
        SystemExit: apt or a mount failed, with the reason.
    """
    spare = layer.with_name(f"{layer.name}.new")
    shutil.rmtree(spare, ignore_errors=True)
    spare.mkdir(parents=True)
    child = os.fork()
    if child == 0:  # its mounts go with it
        status = 1
        try:
            own_mounts()
            lay(below, spare)
            hide_services()
            apt_install(packages, in_layer=True)
            shutil.rmtree("/var/cache/apt/archives", ignore_errors=True)
            status = 0
        except NoOverlayError as error:
            print(error, file=sys.stderr)
            status = 3
        except (OSError, SystemExit) as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 3:
        raise NoOverlayError("this machine cannot have overlays")
    if status:
        sys.exit(status)
    for folder in OVERLAID:
        shutil.rmtree(spare / folder / "work")
        (spare / folder / "upper").rename(spare / f"{folder}.layer")
        (spare / folder).rmdir()
        (spare / f"{folder}.layer").rename(spare / folder)
    spare.rename(layer)


def remove_others(layer: Path, group: str) -> None:
    """Remove a group's layers of other lists, and of the machine before an upgrade, that nobody uses."""
    for other in layer.parent.glob(f"{group}-*"):
        if other == layer or other.suffix == ".lock":
            continue
        with other.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(other)
            other.with_suffix(".lock").unlink()


def layers_of(names: Sequence[str], known: dict[str, tuple[str, tuple[str, ...]]]) -> list[Path]:
    """Return the layers of groups, made when they are not there; each is in use until this process ends.

    Args:
        names: as `chain` gives them.
        known: every group.

    Raises:
        NoOverlayError: this machine cannot have overlays.
    """
    if is_overlay("/usr"):
        raise NoOverlayError(
            "/usr is on one already, and the tests need another; the kernel stacks two at most"
        )
    state = state_folder()
    key = hashlib.sha256(STATUS.read_bytes())
    layers: list[Path] = []
    with locked(state / "lock"):
        for name in reversed(names):
            key.update("\0".join(known[name][1]).encode())
            layer = state / f"{name}-{key.hexdigest()[:12]}"
            # Inherited by the command, so held until its end.
            using = os.open(layer.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
            os.set_inheritable(using, True)
            fcntl.flock(using, fcntl.LOCK_SH)
            if not layer.exists():
                make_layer(layer, layers, known[name][1])
                remove_others(layer, name)
            layers.insert(0, layer)
    return layers


def enter(group: str, known: dict[str, tuple[str, tuple[str, ...]]]) -> None:
    """Give this process mounts in which a group's packages are installed.

    Raises:
        NoOverlayError: this machine cannot have overlays.
    """
    layers = layers_of(chain(group, known), known)
    own_mounts()
    mount("changes", "/mnt", "tmpfs", data="mode=755")
    lay(layers, Path("/mnt"))
    _libc.umount2(b"/mnt", 2)  # MNT_DETACH: the overlays hold what they need of it
    os.environ[INSIDE] = group


def main() -> None:
    """Install a group's packages, and run the command."""
    group, command = sys.argv[1], sys.argv[2:]
    known = groups(PACKAGES.read_text())
    if group not in known:
        sys.exit(f"{group} is no group of {PACKAGES.name}: {', '.join(known)}")
    packages = [package for name in chain(group, known) for package in known[name][1]]
    inside = os.environ.get(INSIDE)
    if (inside and group in chain(inside, known)) or (os.geteuid() and not missing(packages)):
        pass
    elif os.geteuid():
        sys.exit(f"this needs root, or these Debian packages: {' '.join(missing(packages))}")
    else:
        try:
            enter(group, known)
        except NoOverlayError as error:
            if wanted := missing(packages):
                print(f"no overlay here ({error}): Debian's packages go onto this machine", file=sys.stderr)
                apt_install(wanted, in_layer=False)
    if command:
        os.execvp(command[0], command)  # noqa: S606 (a shell would be one more process)


if __name__ == "__main__":
    main()
