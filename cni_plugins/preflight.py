"""Finds out whether a bundle's programs run on this machine, and who is to blame if they do not.

Every program is started under each of its names, as a runtime starts it, in a clean environment and with a
time limit. Like install.py, this file uses only the standard library, and only what Python 3.6 has.
"""

import errno
import json
import os
import signal
import struct
import subprocess

SECONDS = 60
"""Time within which a program has to answer. Each takes milliseconds once its file is in memory."""

_TOOLS = {"cnictl": ("--version",)}
"""Names that are no plugins, with arguments to which they answer with the bundle's version."""
_DAEMONS = {"dhcp": ("daemon", "--help")}
"""Plugins that are a second program, too, with arguments that start it and end it at once."""

_MACHINES = {3: "i386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""ELF's e_machine (elf(5)) to the name that `uname -m` has for it."""
_RELEASES = {"x86_64": "amd64", "aarch64": "arm64"}
"""`uname -m` of the machines that a bundle is built for, to the name in the archive's name."""
_SIGNALS = {
    signal.SIGSYS: "a seccomp filter on this system forbids a system call that it needs",
    signal.SIGKILL: "the system ended it: out of memory, or a security program's rule",
    signal.SIGILL: "this machine's processor lacks an instruction that it needs",
    signal.SIGSEGV: "the bundle is damaged, or does not fit this system",
    signal.SIGBUS: "the bundle is damaged: a file is cut short",
}
"""What a signal that ends a program tells about the cause."""


class UnfitError(Exception):
    """The bundle is damaged, or does not run on this machine; the message says which. Nothing was swapped."""


def check(folder: str, programs: "dict[str, str]", number: str) -> None:
    """Start every program of an installed folder.

    Args:
        folder: the runtime folder, in its final place.
        programs: each name, with its program in the folder.
        number: the version that the tools have to name.

    Raises:
        UnfitError: one does not start, or answers something else than it should.
    """
    for name, program in programs.items():
        path = os.path.join(folder, program)
        if name in _TOOLS:
            if number not in _output(path, name, _TOOLS[name], {}):
                raise _unfit(
                    path, f"`{name} {_TOOLS[name][0]}` does not name the version {number}: it is damaged"
                )
            continue
        said = _output(path, name, (), {"CNI_COMMAND": "VERSION"})
        try:
            known = json.loads(said)["supportedVersions"]
        except (ValueError, KeyError, TypeError):
            known = None
        if not known or not isinstance(known, list):
            raise _unfit(path, f"`{name}` answers VERSION with {said[:80]!r}, which names no versions")
        if name in _DAEMONS:
            _output(path, name, _DAEMONS[name], {})


def _output(path: str, name: str, arguments: "tuple[str, ...]", environment: "dict[str, str]") -> str:
    """Run a program under one of its names and return what it prints.

    Raises:
        UnfitError: it cannot be started, is killed, reports a failure, or does not end in time.
    """
    called = os.path.join(os.path.dirname(path), name)
    try:
        child = subprocess.Popen(
            [called, *arguments],
            executable=path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise _unfit(path, _why_not_started(path, error)) from None
    with child:
        try:
            said, complaint = child.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise _unfit(path, f"`{name}` did not end within {SECONDS} seconds") from None
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        raise _unfit(path, _why_it_failed(name, child.returncode, complaint or said))
    return said.decode(errors="replace")


def _unfit(path: str, why: str) -> UnfitError:
    return UnfitError(f"{path}: {why}. Nothing was swapped: what served before still serves")


def check_machine(path: str) -> None:
    """Refuse a program for another machine, also where an emulator would start it (it has no namespaces).

    Raises:
        UnfitError: the program is for another machine than this one.
    """
    machine, ours = machine_of(path), os.uname().machine
    if machine in _RELEASES and ours in _RELEASES and machine != ours:
        raise _unfit(path, _other_machine(machine))


def _other_machine(machine: str) -> str:
    ours = os.uname().machine
    take = f": take the bundle for {_RELEASES[ours]}" if ours in _RELEASES else ""
    return f"it is built for {machine}, and this machine is {ours}{take}"


def _header(path: str) -> bytes:
    """Return an ELF file's header; nothing of any other file."""
    try:
        with open(path, "rb") as file:
            found = file.read(64)
    except OSError:
        return b""
    return found if found[:4] == b"\x7fELF" and len(found) == 64 and found[5] == 1 else b""


def machine_of(path: str) -> str:
    """Return the machine that an ELF file is for, as `uname -m` says it; nothing of any other file."""
    header = _header(path)
    if not header:
        return ""
    (number,) = struct.unpack_from("<H", header, 18)
    return _MACHINES.get(number, f"ELF machine {number}")


def _loader(path: str) -> str:
    """Return the loader that an ELF program of 64 bits names (PT_INTERP); nothing if it names none."""
    header = _header(path)
    if not header or header[4] != 2:
        return ""
    (start,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
    with open(path, "rb") as file:
        for number in range(count):
            file.seek(start + number * size)
            entry = file.read(56)
            if len(entry) == 56 and struct.unpack_from("<I", entry)[0] == 3:
                file.seek(struct.unpack_from("<Q", entry, 8)[0])
                return file.read(min(struct.unpack_from("<Q", entry, 32)[0], 4096)).rstrip(b"\0").decode()
    return ""


def _why_not_started(path: str, error: OSError) -> str:
    """Return the reason of execve(2)'s refusal."""
    if not os.path.lexists(path):
        return "it is missing: the bundle is damaged"
    if error.errno == errno.ENOEXEC:
        machine = machine_of(path)
        damaged = machine in ("", os.uname().machine)
        return (
            "the kernel finds no program in it: the bundle is damaged" if damaged else _other_machine(machine)
        )
    if error.errno == errno.ENOENT and _loader(path):
        return f"this system has no {_loader(path)}, the loader of the C library that it is linked with"
    if error.errno in (errno.EACCES, errno.EPERM):
        return _why_forbidden(path, error)
    return f"it cannot be started: {error.strerror}"


def _why_forbidden(path: str, error: OSError) -> str:
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec: mount it with exec, or use another folder for plugins"
    if not os.stat(path).st_mode & 0o111:
        return "it is not executable: the bundle lost its files' modes on the way here"
    return f"this system does not let it run ({error.strerror}): SELinux, AppArmor, seccomp or fapolicyd"


def _why_it_failed(name: str, status: int, complaint: bytes) -> str:
    """Return the reason why a program ended with an error, or by a signal."""
    if status < 0:
        why = _SIGNALS.get(signal.Signals(-status), "it crashed")
        return f"`{name}` was ended by {signal.Signals(-status).name}: {why}"
    text = " ".join(complaint.decode(errors="replace").split())
    said = "".join(letter for letter in text[:300] if letter.isprintable()) or "it says nothing"
    if "kernel too old" in text:
        return f"this system's kernel, {os.uname().release}, is too old for it ({said})"
    if "GLIBC_" in text:
        return f"this system's C library is older than the one it needs ({said})"
    if "shared object" in text or "shared libraries" in text:
        return f"a library is missing or damaged ({said})"
    return f"`{name}` ended with status {status}: {said}"
