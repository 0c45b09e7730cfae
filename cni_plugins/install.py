"""Puts a bundle into a runtime's bin folder, and takes it back.

    <bindir>/bridge -> .cni-runtime/current/cni          one link per plugin
    <bindir>/.cni-runtime/current -> 0.1.0-1a2b3c4d      the one link that an upgrade changes
    <bindir>/.cni-runtime/previous -> 0.0.9-5e6f7a8b     what a roll-back returns to
    <bindir>/.cni-runtime/replaced/bridge                what had the name before the first installation

Every change is one rename(2): a pod that is made during an upgrade gets the old bundle or the new one, whole.
A plugin that runs finds its libraries by its own real path, so the folder it came from stays until the
upgrade after the next. Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import shutil
import sys

STATE = ".cni-runtime"
BUNDLED_RUNTIME = "cni-runtime"
_SPARE = ".new"
"""How the name of what is not whole, or not in its place, ends."""


def install(bundle: str, bindir: str) -> str:
    """Install a bundle, or upgrade to it.

    Args:
        bundle: the folder that `make build` gives.
        bindir: the runtime's folder of plugins, as /opt/cni/bin.

    Returns:
        The installed version's name.

    Raises:
        OSError: something could not be written; the old version still serves.
    """
    source = os.path.join(bundle, BUNDLED_RUNTIME)
    names = sorted(name for name in os.listdir(bundle) if os.path.islink(os.path.join(bundle, name)))
    with open(os.path.join(source, "VERSION"), encoding="ascii") as file:
        version = f"{file.read().strip()}-{_digest(source)[:12]}"
    state = os.path.join(bindir, STATE)
    os.makedirs(state, mode=0o755, exist_ok=True)
    folder = os.path.join(state, version)
    if not os.path.isdir(folder):
        fresh = f"{folder}.{os.getpid()}{_SPARE}"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            _copy(source, fresh)
            _sync(fresh)
            os.rename(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    before = _target(state, "current")
    if before != version:
        if before:
            _link(before, os.path.join(state, "previous"))
        _link(version, os.path.join(state, "current"))
    for name in names:
        executable = os.path.basename(os.readlink(os.path.join(bundle, name)))
        _take_name(state, os.path.join(bindir, name), f"{STATE}/current/{executable}")
    _prune(state, bindir)
    return version


def roll_back(bindir: str) -> str:
    """Return to the version before; from the first one, to the files that had the names before it.

    Returns:
        What serves now.

    Raises:
        FileNotFoundError: nothing is installed there.
    """
    state = os.path.join(bindir, STATE)
    current, previous = _target(state, "current"), _target(state, "previous")
    if not current:
        raise FileNotFoundError(errno.ENOENT, "nothing to roll back", state)
    if previous:
        _link(previous, os.path.join(state, "current"))
        _link(current, os.path.join(state, "previous"))
        return previous
    replaced = os.path.join(state, "replaced")
    for name in os.listdir(replaced) if os.path.isdir(replaced) else ():
        path = os.path.join(bindir, name)
        if _is_ours(path) or not os.path.lexists(path):
            os.rename(os.path.join(replaced, name), path)
    for name in os.listdir(bindir):
        path = os.path.join(bindir, name)
        if _is_ours(path):
            os.unlink(path)
    shutil.rmtree(state)
    return "the plugins that were here before"


def _take_name(state: str, path: str, target: str) -> None:
    """Make a name ours; what had it is kept, and the name is never missing."""
    if os.path.lexists(path) and not _is_ours(path):
        replaced = os.path.join(state, "replaced")
        os.makedirs(replaced, exist_ok=True)
        kept = os.path.join(replaced, os.path.basename(path))
        if os.path.lexists(kept):
            os.unlink(kept)  # an older one: somebody installed over us since
        os.link(path, kept, follow_symlinks=False)
    if not os.path.islink(path) or os.readlink(path) != target:
        _link(target, path)


def _is_ours(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path).startswith(f"{STATE}/")


def _link(target: str, path: str) -> None:
    spare = f"{path}.{os.getpid()}{_SPARE}"
    if os.path.lexists(spare):  # a killed installer's: in a container all of them have the same process id
        os.unlink(spare)
    os.symlink(target, spare)
    try:
        os.rename(spare, path)
    except OSError:
        os.unlink(spare)
        raise


def _target(state: str, name: str) -> str:
    try:
        return os.readlink(os.path.join(state, name))
    except FileNotFoundError:
        return ""


def _prune(state: str, bindir: str) -> None:
    """Remove the versions that serve no more, and what killed installers left."""
    keep = {_target(state, "current"), _target(state, "previous"), "replaced"}
    for name in os.listdir(state):
        path = os.path.join(state, name)
        if os.path.islink(path) and name.endswith(_SPARE):
            os.unlink(path)
        elif os.path.isdir(path) and not os.path.islink(path) and name not in keep:
            # Not under its own name: if we are killed half-way, the rest must not pass for that version.
            spare = path.removesuffix(_SPARE) + _SPARE
            if spare != path:
                shutil.rmtree(spare, ignore_errors=True)
                os.rename(path, spare)
            shutil.rmtree(spare)
    for name in os.listdir(bindir):
        path = os.path.join(bindir, name)
        if name.endswith(_SPARE) and _is_ours(path):
            os.unlink(path)


def _files(folder: str) -> list[str]:
    return sorted(os.path.join(path, name) for path, _folders, names in os.walk(folder) for name in names)


def _copy(source: str, target: str) -> None:
    """Copy a folder; it ends at the first error (shutil.copytree goes on, and lists them all)."""
    os.mkdir(target, mode=0o755)
    for entry in os.scandir(source):
        path = os.path.join(target, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        elif entry.is_dir():
            _copy(entry.path, path)
        else:
            shutil.copy2(entry.path, path)


def _digest(folder: str) -> str:
    whole = hashlib.sha256()
    for path in _files(folder):
        whole.update(os.path.relpath(path, folder).encode() + b"\0")
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _sync(folder: str) -> None:
    for path in [*_files(folder), *(path for path, _folders, _names in os.walk(folder))]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def main() -> int:
    """Install, or roll back, as the arguments say."""
    parser = argparse.ArgumentParser(description="Install the CNI plugins into a folder, or take them back.")
    parser.add_argument("--bundle", default="dist/cni", help="what `make build` gave (default: %(default)s)")
    parser.add_argument("--roll-back", action="store_true", help="return to the version before")
    parser.add_argument("bindir", help="the runtime's folder of plugins, as /opt/cni/bin")
    arguments = parser.parse_args()
    try:
        if arguments.roll_back:
            serving = roll_back(arguments.bindir)
        else:
            serving = install(arguments.bundle, arguments.bindir)
    except OSError as error:
        print(f"{error.filename or arguments.bindir}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{arguments.bindir}: {serving}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
