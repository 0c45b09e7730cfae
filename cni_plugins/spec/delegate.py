"""Calling other plugins (CNI 1.1.0, section 4): IPAM for interface plugins, the real one for flannel.

A delegate that CNI_PATH resolves to this very executable runs in this process: another start would cost more
than all the work it does. Any other is executed. Both ways go through the same checks and the same JSON
shape, so that a caller cannot tell which it was.
"""

from __future__ import annotations

import posix

from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.codec import decode, encode
from cni_plugins.spec.errors import (
    AlreadyAttachedError,
    CNIError,
    DecodeError,
    DelegateError,
    InvalidConfigError,
    NotAvailableError,
)
from cni_plugins.spec.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins import process
    from cni_plugins.spec.request import Request
else:
    process = Lazy("cni_plugins.process")

_REGULAR = 0o100000
_EXECUTABLE = 0o111
_TYPE_MASK = 0o170000


def add(request: Request, plugin: str, config: dict[str, Any]) -> Result:
    """Run a delegate's ADD and return its result. When it fails, its DEL is run before the error goes on.

    Args:
        request: the caller's own request: environment, verb and names are the delegate's too.
        plugin: the delegate's type.
        config: its whole configuration.

    Raises:
        CNIError: the delegate's own error, unchanged, or that it cannot be found or started.
    """
    path = find(request, plugin)
    try:
        answer = _call(request, "ADD", plugin, path, config)
        return Result.from_json(answer, request.version, f"the result of {plugin}")
    except (CNIError, OSError) as error:
        if getattr(error, "code", 0) == AlreadyAttachedError.code:
            raise
        try:
            _call(request, "DEL", plugin, path, config)
        except (CNIError, OSError) as second:
            skel.warn(f"{plugin}: DEL after a failed ADD: {skel.as_cni_error(second).msg}")
        raise error from None


def call(request: Request, plugin: str, config: dict[str, Any], command: str = "") -> None:
    """Run a delegate's DEL, CHECK, STATUS or GC: the request's own verb unless another is named.

    Raises:
        CNIError: as for `add`.
        NotAvailableError: in answer to STATUS, that the delegate cannot be found or started, or died.
    """
    verb = command or request.command
    try:
        _call(request, verb, plugin, find(request, plugin), config)
    except DelegateError as error:
        if verb == "STATUS":
            raise NotAvailableError(error.msg, error.details) from None
        raise


def find(request: Request, plugin: str) -> str:
    """Return the path of a plugin's executable in CNI_PATH.

    Raises:
        DelegateError: no folder of CNI_PATH has it.
        InvalidConfigError: the type is no plain file name.
    """
    if not plugin or "/" in plugin or "\0" in plugin or plugin in (".", ".."):
        raise InvalidConfigError(f"invalid plugin type {plugin!r}")
    for folder in request.path:
        path = f"{folder}/{plugin}"
        try:
            mode = posix.stat(path).st_mode
        except (OSError, ValueError):  # ValueError: no file can have that name
            continue
        if mode & _TYPE_MASK == _REGULAR and mode & _EXECUTABLE:
            return path
    raise DelegateError(
        f"failed to find plugin {plugin!r} in path {request.path}",
        "install it into one of these folders, or correct the configuration's type",
    )


def _call(request: Request, command: str, plugin: str, path: str, config: dict[str, Any]) -> Any:
    env = dict(request.env)
    env["CNI_COMMAND"] = command
    if skel.is_local(path):
        try:
            return skel.serve(skel.local(plugin), env, config)
        except Exception as error:  # as its skeleton would do in a process of its own
            raise skel.as_cni_error(error) from error
    return _execute(path, plugin, env, encode(config))


def _execute(path: str, plugin: str, env: dict[str, str], stdin: bytes) -> Any:
    try:
        done = process.run([path], env, stdin, capture_stderr=False)
    except OSError as error:
        raise DelegateError(f"cannot start {path}: {error.strerror}") from None
    if done.status == 0:
        return decode(done.stdout, f"the result of {plugin}") if env["CNI_COMMAND"] == "ADD" else None
    try:
        given = decode(done.stdout, "its output")
        refusal = CNIError(str(given["msg"]), str(given.get("details") or ""), code=int(given["code"]))
    except (DecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise DelegateError(f"{plugin} failed with status {done.status} and no error object") from None
    raise refusal
