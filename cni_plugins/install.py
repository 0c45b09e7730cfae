"""Puts a bundle into a runtime's bin folder, repairs what is installed, and goes back to what was there.

    <bindir>/bridge -> .cni-runtime/current/cni          one link per plugin
    <bindir>/.cni-runtime/current -> 0.1.0-1a2b3c4d      the one link that an upgrade changes
    <bindir>/.cni-runtime/previous -> 0.0.9-5e6f7a8b     what a roll-back returns to
    <bindir>/.cni-runtime/replaced/bridge                what had the name before the first installation

Every change is one rename(2): a pod that is made during an upgrade gets the old bundle or the new one, whole.
An installed folder is compared with the bundle. If they differ, a new copy (`0.1.0-1a2b3c4d.1`) takes its
place in the same way as an upgrade. `current` changes only after every program of the new copy has answered
on this machine.

A plugin that runs finds its libraries by its own real path, so the folder it came from stays until a later
installation. This file and preflight.py use only the standard library, and only what Python 3.6 has, which is
why annotations stand in quotes: both are in the bundle, to run on a node by whatever `python3` it has.
"""

import argparse
import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
import sys

if __package__:
    from cni_plugins import preflight
else:  # run as a script, with preflight.py beside it; a cache of it would make the bundle another one
    sys.dont_write_bytecode = True
    import preflight  # type: ignore[import-not-found,no-redef]

STATE = ".cni-runtime"
BUNDLED_RUNTIME = "cni-runtime"
_SPARE = ".new"
"""The end of the name of what is incomplete, or not yet in its place."""
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def install(bundle: str, bindir: str) -> str:
    """Install a bundle, upgrade to it, or repair an installation of it.

    Args:
        bundle: the folder that `make build` gives, or an unpacked archive.
        bindir: the runtime's folder of plugins, as /opt/cni/bin.

    Returns:
        The installed version's name.

    Raises:
        OSError: something could not be written; the old version still serves.
        preflight.UnfitError: the bundle does not run here; the old version still serves.
    """
    source = os.path.join(bundle, BUNDLED_RUNTIME)
    programs = _programs(bundle)
    number = _version(source)
    for program in sorted(set(programs.values())):
        preflight.check_machine(os.path.join(source, program))
    for name in programs:
        path = os.path.join(bindir, name)
        if os.path.isdir(path) and not os.path.islink(path):
            raise IsADirectoryError(errno.EISDIR, "this folder has the name of a plugin", path)
    wanted = _digest(source, plan=True)
    version = f"{number}-{wanted[:12]}"
    state = os.path.join(bindir, STATE)
    os.makedirs(state, mode=0o755, exist_ok=True)
    before = _target(state, "current")
    serving, whole = _place(state, version, wanted)
    folder = os.path.join(state, serving)
    if not whole:
        _add(source, folder)
    try:
        preflight.check(folder, programs, number)
    except preflight.UnfitError:
        if not whole:
            _discard(folder)
        raise
    if before != serving:
        if before and os.path.isdir(os.path.join(state, before)) and not _is_copy(before, version):
            _link(before, os.path.join(state, "previous"))
        _link(serving, os.path.join(state, "current"))
    for name, program in programs.items():
        _take_name(state, os.path.join(bindir, name), f"{STATE}/current/{program}")
    _prune(state, bindir, before)
    return serving


def roll_back(bindir: str) -> str:
    """Return to the version before; from the first one, to the files that had the names before it.

    Returns:
        What serves now.

    Raises:
        FileNotFoundError: nothing is installed there, or the version before is gone.
        preflight.UnfitError: the version before does not run here; the present one still serves.
    """
    state = os.path.join(bindir, STATE)
    current, previous = _target(state, "current"), _target(state, "previous")
    if not current:
        raise FileNotFoundError(errno.ENOENT, "nothing to roll back", state)
    if previous:
        _check_previous(os.path.join(state, previous), _names(bindir))
        _link(previous, os.path.join(state, "current"))
        _link(current, os.path.join(state, "previous"))
        return previous
    replaced = os.path.join(state, "replaced")
    for name in os.listdir(replaced) if os.path.isdir(replaced) else ():
        path = os.path.join(bindir, name)
        if _is_ours(path) or not os.path.lexists(path):
            os.rename(os.path.join(replaced, name), path)
    for name in _names(bindir):
        os.unlink(os.path.join(bindir, name))
    shutil.rmtree(state)
    return "the plugins that were here before"


def _check_previous(folder: str, programs: "dict[str, str]") -> None:
    """Fail if nothing of the version before runs here; it may lack plugins that a later one has."""
    number = _version(folder)
    failures = []
    for name, program in programs.items():
        try:
            preflight.check(folder, {name: program}, number)
        except preflight.UnfitError as error:
            failures.append(error)
    if failures and len(failures) == len(programs):
        raise failures[0]


def _version(folder: str) -> str:
    """Return what a runtime folder says of its version."""
    with open(os.path.join(folder, "VERSION"), encoding="ascii") as file:
        number = file.read().strip()
    if not re.match(r"[0-9A-Za-z][0-9A-Za-z.+~-]*\Z", number):
        raise preflight.UnfitError(f"{folder}/VERSION has no version in it: it is damaged")
    return number


def _programs(bundle: str) -> "dict[str, str]":
    """Return a bundle's names with the program in its runtime folder that each leads to."""
    found = {}
    for name in sorted(os.listdir(bundle)):
        if os.path.islink(os.path.join(bundle, name)):
            folder, _, program = os.readlink(os.path.join(bundle, name)).partition("/")
            if folder != BUNDLED_RUNTIME or not program or "/" in program:
                raise preflight.UnfitError(f"{bundle}/{name} leads out of the bundle: the bundle is damaged")
            found[name] = program
    if not found:
        raise preflight.UnfitError(
            f"{bundle} has no symbolic links, which are the plugins' names: copy it with its links"
        )
    return found


def _place(state: str, version: str, wanted: str) -> "tuple[str, bool]":
    """Return the name of a version's folder, and whether it is there and as it should be.

    A folder that differs from the bundle is left as it is, since it serves: the next free name is returned.
    """
    current = _target(state, "current")
    if _is_copy(current, version) and _is_whole(os.path.join(state, current), wanted):
        return current, True
    for number in itertools.count():
        name = f"{version}.{number}" if number else version
        folder = os.path.join(state, name)
        if not os.path.lexists(folder):
            return name, False
        if _is_whole(folder, wanted):
            return name, True
    raise AssertionError


def _is_copy(name: str, version: str) -> bool:
    return name == version or name.startswith(f"{version}.")


def _is_whole(folder: str, wanted: str) -> bool:
    try:
        return _digest(folder) == wanted
    except OSError:  # no folder, or one with a file that even its owner may not read
        return False


def _add(source: str, folder: str) -> None:
    """Copy a bundle's runtime; the folder gets its name when all of it is on the disk."""
    fresh = f"{folder}.{os.getpid()}{_SPARE}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _copy(source, fresh)
        _sync(fresh)
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _take_name(state: str, path: str, target: str) -> None:
    """Make a name ours; what had it is kept, and the name is never missing."""
    if os.path.lexists(path) and not _is_ours(path):
        replaced = os.path.join(state, "replaced")
        os.makedirs(replaced, exist_ok=True)
        kept = os.path.join(replaced, os.path.basename(path))
        if os.path.lexists(kept):
            os.unlink(kept)  # an older one: somebody installed over us since
        try:
            os.link(path, kept, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            shutil.copy2(path, kept, follow_symlinks=False)
    if not os.path.islink(path) or os.readlink(path) != target:
        _link(target, path)


def _is_ours(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path).startswith(f"{STATE}/")


def _names(bindir: str) -> "dict[str, str]":
    """Return our names in a folder, each with the program that it leads to."""
    links = {name: os.path.join(bindir, name) for name in sorted(os.listdir(bindir))}
    return {name: os.path.basename(os.readlink(path)) for name, path in links.items() if _is_ours(path)}


def _link(target: str, path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):  # whoever copied the folder followed its links
        _discard(path)
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
    """Return the folder that one of our links names; nothing if the link is missing, or leads elsewhere."""
    path = os.path.join(state, name)
    found = os.readlink(path) if os.path.islink(path) else ""
    return "" if "/" in found else found


def _prune(state: str, bindir: str, before: str) -> None:
    """Remove the versions that serve no more, and what killed installers left.

    Args:
        state: our folder.
        bindir: the folder of the names.
        before: the folder that served until now, from which plugins may run.
    """
    keep = {"current", "previous", "replaced", before, _target(state, "current"), _target(state, "previous")}
    for name in os.listdir(state):
        path = os.path.join(state, name)
        if name in keep:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            _discard(path)
        else:
            os.unlink(path)
    for name in os.listdir(bindir):
        path = os.path.join(bindir, name)
        if name.endswith(_SPARE) and _is_ours(path):
            os.unlink(path)


def _discard(folder: str) -> None:
    """Remove a version. Its name goes first: if we are killed half-way, the rest is no version."""
    spare = folder if folder.endswith(_SPARE) else folder + _SPARE
    if spare != folder:
        shutil.rmtree(spare, ignore_errors=True)
        os.rename(folder, spare)
    # A damaged mode may keep even the owner out: a container's root has no right to pass over modes.
    os.chmod(spare, 0o700)
    for path, folders, _files in os.walk(spare):
        for name in folders:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(spare)


def _entries(folder: str) -> "list[os.DirEntry[str]]":
    return sorted(os.scandir(folder), key=lambda entry: entry.name)


def _mode(found: os.stat_result) -> int:
    """Return the mode that a file or folder gets, whatever the umask was where the bundle was unpacked."""
    return 0o755 if stat.S_ISDIR(found.st_mode) or found.st_mode & 0o111 else 0o644


def _copy(source: str, target: str) -> None:
    """Copy a folder; it ends at the first error (shutil.copytree goes on, and lists them all)."""
    os.mkdir(target)
    for entry in _entries(source):
        path = os.path.join(target, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        elif entry.is_dir():
            _copy(entry.path, path)
        else:
            shutil.copyfile(entry.path, path)
            os.chmod(path, _mode(entry.stat()))
    os.chmod(target, 0o755)  # noqa: S103 - any user may read the plugins


def _digest(folder: str, plan: bool = False) -> str:
    """Return a digest of a folder's names, modes, contents and links.

    Args:
        folder: what is read.
        plan: take the modes that the files get when they are installed, in place of their own.

    Raises:
        OSError: something in it cannot be read.
    """
    whole = hashlib.sha256()

    def add(path: str, name: str) -> None:
        found = os.lstat(path)
        mode = _mode(found) if plan else stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            line = f"link {os.readlink(path)}"
        elif stat.S_ISDIR(found.st_mode):
            line = f"folder {mode:o}"
        elif stat.S_ISREG(found.st_mode):
            content = hashlib.sha256()
            with open(path, "rb") as file:
                for part in iter(lambda: file.read(1 << 20), b""):
                    content.update(part)
            line = f"file {mode:o} {content.hexdigest()}"
        else:
            line = "neither file, folder nor link"
        whole.update(f"{name}\0{line}\0".encode("utf-8", "surrogateescape"))
        if stat.S_ISDIR(found.st_mode):
            for entry in _entries(path):
                add(entry.path, f"{name}/{entry.name}")

    add(folder, "")
    return whole.hexdigest()


def _sync(folder: str) -> None:
    for path, _folders, names in os.walk(folder):
        for name in (path, *(os.path.join(path, name) for name in names)):
            if not os.path.islink(name):
                fd = os.open(name, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def main() -> int:
    """Install, or roll back, as the arguments say."""
    here = os.path.dirname(os.path.abspath(__file__))
    own = os.path.dirname(here) if os.path.basename(here) == BUNDLED_RUNTIME else "dist/cni"
    parser = argparse.ArgumentParser(description="Install the CNI plugins into a folder, or take them back.")
    parser.add_argument("--bundle", default=own, help="the folder to install (default: %(default)s)")
    parser.add_argument("--roll-back", action="store_true", help="return to the version before")
    parser.add_argument("bindir", help="the runtime's folder of plugins, as /opt/cni/bin")
    arguments = parser.parse_args()
    try:
        if arguments.roll_back:
            serving = roll_back(arguments.bindir)
        else:
            serving = install(arguments.bundle, arguments.bindir)
    except preflight.UnfitError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"{error.filename or arguments.bindir}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{arguments.bindir}: {serving}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
