"""Calling one plugin, as a runtime does (CNI 1.1.0, section 2)."""

from __future__ import annotations

import os
import stat
import sys

from cni_plugins.spec.codec import MAX_BYTES, decode, encode
from cni_plugins.spec.errors import CNIError, DecodeError, InvalidConfigError
from cni_plugins.spec.result import VERSIONS
from conflist import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cni_plugins.process import Completed
    from conflist.cache import Attachment

_LATE = "it was killed; it may have waited for a lock: `lslocks` shows who holds one"
_OWN_VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


class PluginError(CNIError):
    """A plugin of a list failed, or could not be run; code, msg and details are those of its error object.

    Attributes:
        plugin: its type.
        command: the verb.
        position: its place in the list, from 1; 0 when it was called by itself.
        total: how many plugins the list has.
        stderr: what it printed on standard error.
        answered: it gave an error object; otherwise it may have been killed half-way.
    """

    answered = False

    def __init__(
        self, plugin: str, command: str, msg: str, details: str = "", code: int = 999, stderr: bytes = b""
    ) -> None:
        super().__init__(msg, details, code=code)
        self.plugin = plugin
        self.command = command
        self.stderr = stderr
        self.position = 0
        self.total = 0

    def __str__(self) -> str:
        place = f" ({self.position} of {self.total})" if self.position else ""
        return f"plugin {self.plugin}{place} failed on {self.command}: {self.msg}"


class PluginNotFoundError(PluginError):
    """No folder of the path has the plugin; the details say where it was looked for."""

    def __str__(self) -> str:
        return self.msg


class Invoker:
    """Starts plugins and reads their answers.

    Args:
        path: folders in which plugins are looked for, in order: CNI_PATH.
        env: the environment plugins get besides the variables of the specification; None: this process's.
        timeout: seconds that one plugin may take; None: no limit.
        limit: bytes that one plugin may print.
        forward_stderr: let what plugins print on standard error appear on ours.
    """

    def __init__(
        self,
        path: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int = MAX_BYTES,
        forward_stderr: bool = False,
    ) -> None:
        self.path = [folder for folder in path if folder]
        self.timeout = timeout
        self.limit = limit
        self.forward_stderr = forward_stderr
        base = os.environ if env is None else env
        self._env = {key: value for key, value in base.items() if key not in _OWN_VARIABLES}
        self._env["CNI_PATH"] = ":".join(self.path)

    def call(self, command: str, config: dict[str, Any], attachment: Attachment | None = None) -> bytes:
        """Call the plugin that a configuration's type names; return what it printed.

        Args:
            command: the verb.
            config: the request configuration.
            attachment: whose names go into the environment; None for STATUS, GC and VERSION.

        Raises:
            PluginError: it cannot be found or started, broke a limit, or failed.
        """
        plugin = config["type"]
        path = find_plugin(plugin, self.path)
        env = {**self._env, "CNI_COMMAND": command}
        if attachment is not None:
            env["CNI_CONTAINERID"] = attachment.container_id
            env["CNI_IFNAME"] = attachment.ifname
            env["CNI_NETNS"] = attachment.netns
            env["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in attachment.args)
        try:
            done = spawn.run([path], env, encode(config), limit=self.limit, timeout=self.timeout)
        except (OSError, ValueError, spawn.OutputLimitError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            details = _LATE if isinstance(error, TimeoutError) else ""
            raise PluginError(plugin, command, f"{path}: {reason}", details, code=5) from None
        if done.stderr and self.forward_stderr:
            sys.stderr.write(done.stderr.decode(errors="replace"))
        if done.status != 0:
            raise _failure(plugin, command, done)
        return done.stdout

    def versions(self, plugin: str) -> list[str]:
        """Ask a plugin which versions of the specification it speaks.

        One that does not know the question speaks 0.1.0 (VERSION came with 0.2.0).

        Raises:
            PluginError: it cannot be found or started, or does not answer.
        """
        try:
            answer = decode(
                self.call("VERSION", {"cniVersion": VERSIONS[-1], "type": plugin}), f"VERSION of {plugin}"
            )
            supported = answer.get("supportedVersions") if isinstance(answer, dict) else None
        except DecodeError as error:
            raise PluginError(plugin, "VERSION", error.msg, error.details, error.code) from None
        except PluginError as error:
            if error.msg.startswith("unknown CNI_COMMAND"):
                return [VERSIONS[0]]
            raise
        if not isinstance(supported, list) or not all(isinstance(item, str) for item in supported):
            raise PluginError(plugin, "VERSION", "its answer has no list supportedVersions", code=6)
        return supported


def find_plugin(plugin: str, path: Sequence[str]) -> str:
    """Return the path of a plugin's executable in the first of some folders that has it.

    Raises:
        InvalidConfigError: the type is no plain file name.
        PluginNotFoundError: none has it.
    """
    if not plugin or "/" in plugin or "\0" in plugin or plugin in (".", ".."):
        raise InvalidConfigError(f"invalid plugin type {plugin!r}", "type is the name of an executable")
    looked = []
    for folder in path:
        candidate = os.path.join(folder, plugin)
        try:
            mode = os.stat(candidate).st_mode
        except OSError as error:
            looked.append(f"{candidate}: {error.strerror}")
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return candidate
        looked.append(f"{candidate}: {'not executable' if stat.S_ISREG(mode) else 'not a file'}")
    raise PluginNotFoundError(
        plugin,
        "lookup",
        f"failed to find plugin {plugin!r} in path {list(path)}",
        "; ".join(looked) or "no folder is given: set CNI_PATH",
        code=103,
    )


def _failure(plugin: str, command: str, done: Completed) -> PluginError:
    """Make an exception of a plugin's error object, or of what else it left."""
    said = done.stderr.decode(errors="replace").strip()
    try:
        body = decode(done.stdout, "its error object")
        msg, details, code = str(body["msg"]), str(body.get("details", "")), int(body["code"])
    except (DecodeError, KeyError, TypeError, ValueError, AttributeError):
        how = f"was killed by signal {-done.status}" if done.status < 0 else f"exited with {done.status}"
        printed = said or done.stdout[:1000].decode(errors="replace").strip()
        return PluginError(plugin, command, f"it {how} and gave no error object", printed, stderr=done.stderr)
    failure = PluginError(plugin, command, msg, details, code, done.stderr)
    failure.answered = True
    return failure
