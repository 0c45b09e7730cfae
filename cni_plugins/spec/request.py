"""What a runtime asks: the CNI_* environment and standard input (CNI 1.1.0, section 2)."""

from __future__ import annotations

from cni_plugins.spec.errors import (
    DecodeError,
    IncompatibleVersionError,
    InvalidConfigError,
    InvalidEnvironmentError,
)
from cni_plugins.spec.result import VERSIONS, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
    "VERSION": (),
}
"""The variables each verb needs, besides CNI_COMMAND, as the reference's skeleton demands them."""

SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
"""The version of the specification a verb came with."""

ATTACHMENTS_KEY = "cni.dev/valid-attachments"
_OWN_KEYS = {key.lower(): key for key in ("cniVersion", "name", "prevResult", ATTACHMENTS_KEY)}
_MAX_IFNAME = 15
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_KNOWN_ARGS = ("IP", "GATEWAY", "MAC")


class Request:
    """One call of a plugin, its environment and configuration checked against the specification.

    Attributes:
        command: the verb.
        container_id: CNI_CONTAINERID; empty for STATUS and GC.
        ifname: CNI_IFNAME, the interface in the container; empty for STATUS and GC.
        netns: CNI_NETNS, the namespace's path; may be empty, or lead nowhere, on DEL.
        path: the folders of CNI_PATH.
        env: the whole environment, for delegates.
        raw: the configuration as decoded, with keys that only a delegate knows; those of the protocol itself
            are written as the specification writes them.
        version: the configuration's cniVersion: the version to answer in.
        network: the network's name.
        conf: the configuration as validated by the plugin's model.
        prev_result: the result before this plugin (ADD), or the last ADD's final one.
    """

    __slots__ = (
        "command",
        "conf",
        "container_id",
        "env",
        "ifname",
        "netns",
        "network",
        "path",
        "prev_result",
        "raw",
        "version",
    )

    def __init__(self, env: Mapping[str, str], raw: dict[str, Any]) -> None:
        self.env = env
        self.raw = raw = fold_keys(raw)
        self.command = env["CNI_COMMAND"]
        self.container_id = env.get("CNI_CONTAINERID", "")
        self.ifname = env.get("CNI_IFNAME", "")
        self.netns = env.get("CNI_NETNS", "")
        self.path = [folder for folder in env.get("CNI_PATH", "").split(":") if folder]
        self.version = config_version(raw)
        self.network = self._network()
        self._check_names()
        self._check_version()
        self.conf: Any = None
        self.prev_result: Result | None = None
        previous = raw.get("prevResult")
        if previous is not None:
            self.prev_result = Result.from_json(previous, self.version)
        elif self.command == "CHECK":
            raise InvalidConfigError("CHECK needs prevResult: the result of the last ADD")

    def _network(self) -> str:
        name = self.raw.get("name")
        if not isinstance(name, str) and name is not None:
            raise DecodeError("the network's name must be a string")
        if not name:
            raise InvalidConfigError("missing network name")
        if not valid_identifier(name):
            raise InvalidConfigError(f"invalid characters found in network name {name!r}")
        return name

    def _check_names(self) -> None:
        if self.command in ("GC", "STATUS"):
            return
        if not valid_identifier(self.container_id):
            raise InvalidEnvironmentError(
                f"CNI_CONTAINERID: invalid characters in container id {self.container_id!r}"
            )
        problem = ifname_problem(self.ifname)
        if problem:
            raise InvalidEnvironmentError(f"CNI_IFNAME: interface name {self.ifname!r} {problem}")

    def _check_version(self) -> None:
        if self.version not in VERSIONS:
            raise IncompatibleVersionError(
                f"incompatible CNI versions: config is {self.version!r}, plugin supports {list(VERSIONS)}",
                "set the network's cniVersion to one of them",
            )
        since = SINCE.get(self.command)
        if since and VERSIONS.index(self.version) < VERSIONS.index(since):
            raise IncompatibleVersionError(
                f"config version does not allow {self.command}: it is {self.version}, below {since}"
            )

    def cni_args(self) -> dict[str, str]:
        """Return CNI_ARGS' known keys: IP, GATEWAY and MAC.

        Raises:
            InvalidEnvironmentError: a pair has no "=", or an unknown key comes without IgnoreUnknown=1.
        """
        known: dict[str, str] = {}
        unknown = []
        ignore = False
        for pair in self.env.get("CNI_ARGS", "").split(";"):
            if not pair:
                continue
            key, equals, value = pair.partition("=")
            if not equals:
                raise InvalidEnvironmentError(
                    f"CNI_ARGS: invalid pair {pair!r}", "pairs are KEY=VALUE, joined by ;"
                )
            if key == "IgnoreUnknown":
                if value.lower() not in ("0", "1", "false", "true"):
                    raise InvalidEnvironmentError(
                        f"CNI_ARGS: IgnoreUnknown must be true or false, not {value!r}"
                    )
                ignore = value.lower() in ("1", "true")
            elif key in _KNOWN_ARGS:
                known[key] = value
            else:
                unknown.append(pair)
        if unknown and not ignore:
            raise InvalidEnvironmentError(
                f"CNI_ARGS: unknown args {unknown}", "add IgnoreUnknown=1 to let them pass"
            )
        return known

    def valid_attachments(self) -> set[tuple[str, str]]:
        """Return the (container id, interface name) pairs that a GC must spare.

        Raises:
            InvalidConfigError: the list is missing or has another form. An empty list is valid, a missing
                one is not: it would mean that everything goes.
        """
        listed = self.raw.get(ATTACHMENTS_KEY)
        if not isinstance(listed, list):
            raise InvalidConfigError(f"GC needs {ATTACHMENTS_KEY}: a list")
        pairs = set()
        for item in listed:
            if not isinstance(item, dict):
                raise InvalidConfigError(f"{ATTACHMENTS_KEY} must hold objects")
            container_id, ifname = item.get("containerID"), item.get("ifname")
            if not isinstance(container_id, str) or not isinstance(ifname, str):
                raise InvalidConfigError(f"{ATTACHMENTS_KEY} must hold objects with containerID and ifname")
            pairs.add((container_id, ifname))
        return pairs


def fold_keys(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in which the protocol's own keys have the specification's case.

    Go's decoder, and so the reference, matches keys without regard to case where none matches exactly.
    """
    renamed = {}
    for given in raw:
        key = _OWN_KEYS.get(given.lower())
        if key is not None and key not in raw:
            renamed[given] = key
    if not renamed:
        return raw
    return {renamed.get(given, given): value for given, value in raw.items()}


def spare(raw: dict[str, Any], attachments: list[tuple[str, str]]) -> dict[str, Any]:
    """Return a configuration in which some attachments are valid besides those that are listed.

    Args:
        raw: the configuration of a GC; delegates get it, too.
        attachments: container ids and interface names.
    """
    raw = fold_keys(raw)
    listed = raw.get(ATTACHMENTS_KEY)
    if not isinstance(listed, list):
        return raw  # valid_attachments refuses it
    more = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in attachments]
    return {**raw, ATTACHMENTS_KEY: [*listed, *more]}


def config_version(raw: dict[str, Any]) -> str:
    """Return a configuration's cniVersion; a configuration without one is 0.1.0, as in the reference."""
    version = fold_keys(raw).get("cniVersion")
    if version is not None and not isinstance(version, str):
        raise DecodeError("cniVersion must be a string")
    return version or "0.1.0"


def check_environment(env: Mapping[str, str]) -> str:
    """Return the verb, once every variable it needs is there.

    Raises:
        InvalidEnvironmentError: the verb is unknown, or variables are missing: all of them are named.
    """
    command = env.get("CNI_COMMAND", "")
    if command not in REQUIRED:
        raise InvalidEnvironmentError(f"unknown CNI_COMMAND: {command}", f"known are {', '.join(REQUIRED)}")
    missing = [name for name in REQUIRED[command] if not env.get(name)]
    if missing:
        raise InvalidEnvironmentError(f"required env variables [{','.join(missing)}] missing")
    return command


def valid_identifier(text: str) -> bool:
    """Tell whether a container id or network name obeys the specification, and so is safe in a path."""
    return bool(text) and text[0].isascii() and text[0].isalnum() and _NAME_CHARS.issuperset(text)


def ifname_problem(name: str) -> str:
    """Return what is wrong with an interface name; empty when it is valid (dev_valid_name in the kernel)."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogateescape")) > _MAX_IFNAME:
        return f"is too long; the kernel takes {_MAX_IFNAME} bytes"
    if name in (".", ".."):
        return "is . or .."
    if any(char in "/:\0" or char.isspace() for char in name):
        return "contains / or : or white space"
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        return "is not UTF-8"  # the kernel takes any bytes, a result in JSON does not
    return ""
