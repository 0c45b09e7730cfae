"""Network lists on disk: which files are read, in which order, and what they mean (CNI 1.1.0, section 1).

A `.conflist` file holds a list. A `.conf` or `.json` file holds one plugin object and counts as a list of
one; such files are looked at when no list has the network's name. Where the specification is silent this
does as libcni does, which every runtime is built upon.
"""

from __future__ import annotations

import os
import shlex

from cni_plugins.kernel import files
from cni_plugins.spec.codec import MAX_BYTES, decode, encode
from cni_plugins.spec.errors import CNIError, DecodeError, InvalidConfigError
from cni_plugins.spec.request import valid_identifier
from cni_plugins.spec.result import VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT_FOLDER = "/etc/cni/net.d"
LIST_EXTENSIONS = (".conflist",)
SINGLE_EXTENSIONS = (".conf", ".json")
INLINED_EXTENSIONS = (".conf",)


class NetworkNotFoundError(InvalidConfigError):
    """No file of the folder has a network of that name."""


class NetworkList:
    """A network: plugins that run one after another.

    Attributes:
        name: the network's name.
        version: the version of the specification that it is run with.
        plugins: the plugin objects, in the order of ADD.
        disable_check: CHECK succeeds without calling anything.
        disable_gc: GC does nothing.
        only_inlined: plugin objects in the folder beside the file do not belong to it.
        data: the text it was read from, as it goes into the cache.
        path: the file it was read from; empty when it was none.
    """

    __slots__ = ("data", "disable_check", "disable_gc", "name", "only_inlined", "path", "plugins", "version")

    def __init__(self, name: str, version: str, plugins: list[dict[str, Any]], data: bytes = b"") -> None:
        self.name = name
        self.version = version or VERSIONS[0]
        self.plugins = plugins
        self.disable_check = False
        self.disable_gc = False
        self.only_inlined = False
        self.data = data or encode({"cniVersion": self.version, "name": name, "plugins": plugins})
        self.path = ""


def load_network(folder: str, name: str) -> NetworkList:
    """Return the network of a name: the first list in the order of file names, or else the first plugin file.

    Raises:
        NetworkNotFoundError: no file has it.
        CNIError: a file that had to be read on the way is broken; the message names it.
    """
    seen = []
    for network in iterate_networks(folder):
        if network.name == name:
            return network
        seen.append(network.name)
    known = f"networks there: {', '.join(seen)}" if seen else "no configuration is there"
    raise NetworkNotFoundError(f"no network configuration with name {name!r} in {folder}", known)


def iterate_networks(folder: str) -> Iterator[NetworkList]:
    """Load a folder's networks, in the order in which they are looked through."""
    for path in config_files(folder, LIST_EXTENSIONS):
        yield load_list(path)
    for path in config_files(folder, SINGLE_EXTENSIONS):
        yield load_single(path)


def config_files(folder: str, extensions: tuple[str, ...]) -> list[str]:
    """Return the paths of a folder's files with one of the extensions, sorted; none if there is no folder.

    Raises:
        InvalidConfigError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            # As in libcni, a link counts as a file whatever it leads to.
            names = [
                entry.name
                for entry in entries
                if os.path.splitext(entry.name)[1] in extensions and not entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidConfigError(f"cannot read the folder {folder}: {error.strerror}") from None
    return [os.path.join(folder, name) for name in sorted(names)]


def load_list(path: str) -> NetworkList:
    """Load a list file, with the plugin objects in the folder beside it that has the network's name.

    Raises:
        CNIError: it cannot be read or is no valid list; the message names the file.
    """
    with _naming(path):
        network = parse_list(_read(path))
    network.path = path
    if not network.only_inlined:
        for part in inlined_files(path, network.name):
            with _naming(part):
                network.plugins.append(parse_plugin(_read(part)))
    if not network.plugins:
        raise InvalidConfigError(
            f"{path}: no plugin configuration found",
            f"give it plugins, or put plugin objects into {os.path.dirname(path)}/{network.name}/*.conf",
        )
    return network


def inlined_files(path: str, name: str) -> list[str]:
    """Return the files whose plugin objects are appended to the list at `path`."""
    if not valid_identifier(name):
        return []  # such a name could lead to another folder
    return config_files(os.path.join(os.path.dirname(path), name), INLINED_EXTENSIONS)


def load_single(path: str) -> NetworkList:
    """Load a file with one plugin object as a list of one.

    Raises:
        CNIError: it cannot be read or is no valid plugin object; the message names the file.
    """
    with _naming(path):
        plugin = parse_plugin(_read(path))
        name, version = plugin.get("name", ""), plugin.get("cniVersion", "")
        for key, value in (("name", name), ("cniVersion", version)):
            if not isinstance(value, str):
                raise InvalidConfigError(f"{key} must be a string")
        network = NetworkList(name, version, [plugin])
    network.path = path
    return network


def parse_list(data: bytes) -> NetworkList:
    """Read a list's text, without the folder beside it.

    Raises:
        DecodeError: it is not JSON.
        InvalidConfigError: it is no valid list.
    """
    raw = decode(data, "the network configuration list")
    if not isinstance(raw, dict):
        raise InvalidConfigError("the network configuration list must be an object")
    name = raw.get("name")
    if not isinstance(name, str):
        raise InvalidConfigError("name must be a string" if "name" in raw else "there is no name")
    network = NetworkList(name, _version(raw), [], data)
    network.disable_check = _flag(raw, "disableCheck")
    network.disable_gc = _flag(raw, "disableGC")
    network.only_inlined = _flag(raw, "loadOnlyInlinedPlugins")
    if "plugins" not in raw:
        if network.only_inlined:
            raise InvalidConfigError("loadOnlyInlinedPlugins is true, and there is no plugins key")
        return network
    plugins = raw["plugins"]
    if not isinstance(plugins, list) or not plugins:
        raise InvalidConfigError("plugins must be a list with at least one plugin object")
    for index, plugin in enumerate(plugins):
        network.plugins.append(_checked_plugin(plugin, f"plugins[{index}]"))
    return network


def parse_plugin(data: bytes) -> dict[str, Any]:
    """Read the text of one plugin object.

    Raises:
        DecodeError: it is not JSON.
        InvalidConfigError: it is no plugin object.
    """
    raw = decode(data, "the plugin configuration")
    if isinstance(raw, dict) and "type" not in raw and "plugins" in raw:
        raise InvalidConfigError(
            "this is a list, but the file's name says that it is a single plugin's configuration",
            "let the file's name end in .conflist",
        )
    return _checked_plugin(raw, "the plugin configuration")


def parse_version(text: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared.

    Raises:
        ValueError: it is none.
    """
    parts = text.split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not a version")
    numbers = [int(part) for part in parts]
    return tuple(numbers + [0] * (3 - len(numbers)))


def _version(raw: dict[str, Any]) -> str:
    """Select the highest version, of both keys, that we speak."""
    version = raw.get("cniVersion", "")
    if not isinstance(version, str):
        raise InvalidConfigError("cniVersion must be a string")
    if "cniVersions" not in raw:
        return version
    versions = raw["cniVersions"]
    if not isinstance(versions, list) or not all(isinstance(item, str) for item in versions):
        raise InvalidConfigError("cniVersions must be a list of strings")
    newest = parse_version(VERSIONS[-1])
    try:
        given = [(parse_version(item), item) for item in [*versions, version] if item]
    except ValueError as error:
        raise InvalidConfigError(f"cniVersions: {error}") from None
    return max(((key, item) for key, item in given if key <= newest), default=((), version))[1]


def _flag(raw: dict[str, Any], key: str) -> bool:
    """Read a boolean, which may be given as a string."""
    value = raw.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InvalidConfigError(f"{key} must be true or false")
    return value


def _checked_plugin(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidConfigError(f"{where} must be an object")
    if not isinstance(raw.get("type"), str) or not raw["type"]:
        raise InvalidConfigError(f"{where} has no type", "type names the plugin's executable")
    return raw


def _read(path: str) -> bytes:
    try:
        data = files.read(path, MAX_BYTES, follow=True)
    except OSError as error:
        raise InvalidConfigError(f"cannot be read: {error.strerror}") from None
    if data is None:
        raise InvalidConfigError("cannot be read: No such file or directory")
    return data


class _naming:  # noqa: N801 (reads as a statement)
    """Put a file's name before the message of any error inside."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, CNIError):
            place = f"`cnictl lint {shlex.quote(self.path)}` shows the place"
            details = place if isinstance(error, DecodeError) else error.details
            raise type(error)(f"{self.path}: {error.msg}", details) from None
