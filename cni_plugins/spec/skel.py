"""The skeleton: reads a request, calls the plugin's verb, prints the result or the error object.

Every failure leaves here as an error object with a code; this is the only place that turns an OSError of the
kernel into a CNI error.
"""

from __future__ import annotations

import posix

from cni_plugins import VERSION, orphans
from cni_plugins.spec.codec import MAX_BYTES, decode, encode_pretty
from cni_plugins.spec.errors import (
    CNIError,
    DecodeError,
    IOFailureError,
    KernelError,
    NamespaceError,
    NotAvailableError,
)
from cni_plugins.spec.request import Request, check_environment, config_version, spare
from cni_plugins.spec.result import VERSIONS
from cni_plugins.spec.schema import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from cni_plugins.spec.plugin import Plugin

_ROOT = "let the plugins run as root, with CAP_NET_ADMIN"
_ADVICE = {1: _ROOT, 13: _ROOT, 95: "the kernel may lack a module"}
"""What to do about EPERM, EACCES and EOPNOTSUPP."""


class _Local:
    """Which executable this process is, and how it finds a plugin by name."""

    executable = ""
    lookup: Callable[[str], Plugin]


def register_local(executable: str, lookup: Callable[[str], Plugin]) -> None:
    """Let delegates whose file is `executable`, through whatever links, run in this process.

    Args:
        executable: path of the running program; empty: none is.
        lookup: returns the plugin of a name, or raises a CNIError.
    """
    _Local.executable = executable
    _Local.lookup = staticmethod(lookup)


def is_local(path: str) -> bool:
    """Tell whether a plugin's file is the executable of this process."""
    if not _Local.executable:
        return False
    ours, theirs = posix.stat(_Local.executable), posix.stat(path)
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def local(name: str) -> Plugin:
    """Return a plugin of this process.

    Raises:
        CNIError: it has none of that name.
    """
    return _Local.lookup(name)


def main(name: str, load: Callable[[str], Plugin], env: Mapping[str, str]) -> int:
    """Serve the process's one call; return its exit status.

    Args:
        name: the plugin's name.
        load: imports the plugin of a name; not called for VERSION, which podman asks of all, all the time.
        env: the environment.
    """
    if not env.get("CNI_COMMAND"):
        warn(about(name))
        # The reference exits with 1 here; VERSION is how a program asks.
        return 1
    version = VERSIONS[-1]
    try:
        command = check_environment(env)
        data = _read_stdin()
        if command == "VERSION":
            output = encode_pretty(versions(data))
        else:
            raw = _decode_config(data)
            # An error object is in the configuration's version, when that can be told.
            version = config_version(raw)
            version = version if version in VERSIONS else VERSIONS[-1]
            member = (env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", ""))
            group = (name, str(raw.get("name")))
            spared = orphans.begin(command, group, member, lambda text: warn(f"{name}: {text}"))
            if spared:
                raw = spare(raw, spared)
            answer = serve(load(name), env, raw)
            output = encode_pretty(answer) if answer is not None else b""
    except Exception as error:  # noqa: BLE001 (the runtime must never see a traceback)
        return fail(error, version)
    finally:
        orphans.end()
    return _answer(output, 0)


def fail(error: Exception, version: str = VERSIONS[-1]) -> int:
    """Print the error object of an error; return the exit status."""
    return _answer(encode_pretty(as_cni_error(error).to_json(version)), 1)


def _answer(output: bytes, status: int) -> int:
    try:
        _write(1, output)
    except OSError as error:
        warn(f"cannot write the answer: {error.strerror}")
        return 1
    return status


def serve(plugin: Plugin, env: Mapping[str, str], raw: dict[str, Any]) -> dict[str, Any] | None:
    """Carry out one verb other than VERSION; return an ADD's result in the configuration's version.

    The same for the process's own call and for a delegate's that runs in this process.

    Raises:
        CNIError: the verb failed.
        OSError: the kernel refused something; `as_cni_error` makes it a CNIError.
    """
    request = Request(env, raw)
    if request.command in ("ADD", "CHECK", "DEL"):
        _refuse_own_namespace(request)
    request.conf = validate(plugin.model, raw)
    if request.command == "ADD":
        return plugin.add(request).to_json(request.version)
    if request.command == "STATUS":
        _ask_status(plugin, request)
        return None
    verb = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.gc}
    verb[request.command](request)
    return None


def _ask_status(plugin: Plugin, request: Request) -> None:
    """Call STATUS; if the kernel refuses even to answer, an ADD could not be served either."""
    try:
        plugin.status(request)
    except OSError as error:
        failure = as_cni_error(error)
        raise NotAvailableError(failure.msg, failure.details) from None


def as_cni_error(error: Exception) -> CNIError:
    """Return the error as the runtime sees it."""
    if isinstance(error, CNIError):
        return error
    if isinstance(error, OSError):
        notes = getattr(error, "__notes__", None)
        # Errors of files may come without a note.
        doing = f"{notes[0]}: " if notes else "failed to use a file: " if error.filename else ""
        place = f" ({error.filename})" if error.filename and str(error.filename) not in doing else ""
        details = f"errno {error.errno}" if error.errno else ""
        if error.errno in _ADVICE:
            details = f"{details}: {_ADVICE[error.errno]}"
        return KernelError(f"{doing}{error.strerror or error}{place}", details)
    if isinstance(error, RecursionError):  # deeper than the encoder can go, although the decoder could
        return DecodeError("the network configuration is nested too deeply")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return CNIError(
        f"internal error: {type(error).__name__}: {error}", f"a fault in the plugin{place}; please report it"
    )


def about(name: str) -> str:
    """Return what a plugin says of itself when a person starts it."""
    return f"CNI {name} plugin v{VERSION}\nCNI protocol versions supported: {', '.join(VERSIONS)}"


def versions(data: bytes) -> dict[str, Any]:
    """Return the answer to VERSION: the version asked in, and those supported (section 2, "VERSION")."""
    try:
        asked = config_version(_decode_config(data)) if data.strip() else VERSIONS[-1]
    except DecodeError:
        asked = VERSIONS[-1]  # the reference does not read standard input here
    return {"cniVersion": asked, "supportedVersions": list(VERSIONS)}


def _decode_config(data: bytes) -> dict[str, Any]:
    raw = decode(data, "the network configuration on standard input")
    if not isinstance(raw, dict):
        raise DecodeError("the network configuration on standard input is not a JSON object")
    return raw


def _refuse_own_namespace(request: Request) -> None:
    """Fail when CNI_NETNS is the namespace we run in: a container would get the host's interfaces."""
    if not request.netns or request.env.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "t", "true"):
        return
    try:
        theirs = posix.stat(request.netns)
    except (OSError, ValueError):
        return  # DEL goes on without it; ADD and CHECK say so when they open it
    ours = posix.stat("/proc/self/ns/net")
    if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
        raise NamespaceError(
            f"CNI_NETNS {request.netns} is the namespace the plugin itself runs in",
            "set CNI_NETNS_OVERRIDE=1 if that is meant",
        )


def _read_stdin() -> bytes:
    parts = []
    size = 0
    try:
        while size <= MAX_BYTES:
            part = posix.read(0, 1 << 16)
            if not part:
                break
            parts.append(part)
            size += len(part)
    except OSError as error:
        raise IOFailureError(f"cannot read standard input: {error.strerror}") from None
    return b"".join(parts)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def removed(network: str, what: str) -> None:
    """Report what a GC removed, on standard error: an operator may wonder where it went."""
    warn(f"GC of network {network}: removed {what}")


def warn(text: str) -> None:
    """Write a line to standard error, which runtimes log; a failure to write is ignored."""
    try:
        _write(2, f"{text}\n".encode("utf-8", "replace"))
    except OSError:
        return
