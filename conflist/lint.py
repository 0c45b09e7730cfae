"""The linter: reads list files and says what is wrong with them, and where.

Types and keys come from the models that the plugins themselves are built from (`conflist.models`); what no
model can say is in `conflist.rules` and `conflist.ranges`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from cni_plugins.kernel import files as system
from cni_plugins.spec.codec import MAX_BYTES
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.request import valid_identifier
from cni_plugins.spec.result import VERSIONS
from conflist import models, shape
from conflist.document import Document, SyntaxProblem, line_and_column
from conflist.findings import ERROR, Finding, Spot
from conflist.load import LIST_EXTENSIONS, SINGLE_EXTENSIONS, config_files, inlined_files, parse_version
from conflist.objects import Entry, check_entry
from conflist.overlap import Network, compare

if TYPE_CHECKING:
    from collections.abc import Sequence


def lint(files: Sequence[str], path: Sequence[str]) -> list[Finding]:
    """Check list files, one by one and against each other.

    Args:
        files: their paths; a folder stands for the files that a runtime would read in it.
        path: the folders in which plugins have to be: CNI_PATH.

    Returns:
        What was found, sorted by file and place.
    """
    findings: list[Finding] = []
    networks = [
        network for file in expand(files) if (network := _lint_file(findings, file, path)) is not None
    ]
    compare(networks)
    return sorted(findings)


def expand(files: Sequence[str]) -> list[str]:
    """Replace each folder by the list and plugin files in it.

    Raises:
        InvalidConfigError: a folder cannot be read, or has no such file.
    """
    expanded = []
    for file in files:
        if not os.path.isdir(file):
            expanded.append(file)
            continue
        inside = config_files(file, (*LIST_EXTENSIONS, *SINGLE_EXTENSIONS))
        if not inside:
            raise InvalidConfigError(f"no network configuration in {file}")
        expanded += inside
    return list(dict.fromkeys(expanded))


def _lint_file(findings: list[Finding], file: str, path: Sequence[str]) -> Network | None:
    """Check one file by itself; return what other files have to be compared with."""
    spot = _read(findings, file)
    if spot is None:
        return None
    data = spot.document.value
    single = os.path.splitext(file)[1] in SINGLE_EXTENSIONS
    if single and "plugins" in data and "type" not in data:
        spot.at("plugins").error(
            "this is a list, but the file's name says that it is a single plugin's configuration",
            f"name it {os.path.splitext(os.path.basename(file))[0]}.conflist",
            key=True,
        )
        single = False
    name = data.get("name")
    _check_name(spot, name)
    version = _check_version(spot, data)
    network = Network(spot, name if isinstance(name, str) else "", version)
    if single:
        _add_plugin(network, spot, data)
    else:
        _check_list(network, file)
    for index, entry in enumerate(network.entries):
        check_entry(network, entry, path)
        _check_place(network, entry, index)
    _check_port_mappings(network)
    return network


def _read(findings: list[Finding], file: str) -> Spot | None:
    """Return the top of a file's document; None when it cannot be read, which is noted."""
    try:
        data = system.read(file, MAX_BYTES, follow=True)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        text = data.decode()
    except OSError as error:
        findings.append(Finding(file, 1, 1, ERROR, f"cannot be read: {error.strerror}"))
        return None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        findings.append(Finding(file, *line_and_column(before, len(before)), ERROR, "the text is not UTF-8"))
        return None
    try:
        document = Document(text)
    except SyntaxProblem as problem:
        place = line_and_column(text, problem.offset)
        findings.append(Finding(file, *place, ERROR, f"not JSON: {problem.message}", problem.hint))
        return None
    spot = Spot(findings, file, document)
    for path, offset in document.repeated:
        place = line_and_column(text, offset)
        message = f"the key {shape.path_text(path)!r} comes a second time in this object"
        findings.append(Finding(file, *place, ERROR, message, "the last one counts; remove the other"))
    if not isinstance(document.value, dict):
        spot.error("a network configuration is an object", 'it starts with "{"')
        return None
    return spot


def _check_name(spot: Spot, name: Any) -> None:
    if name is None:
        spot.error("the network has no name", 'add "name": runtimes and IPAM tell networks apart by it')
    elif not isinstance(name, str):
        spot.at("name").error("name must be a string")
    elif not valid_identifier(name):
        spot.at("name").error(
            f"invalid network name {name!r}",
            "a letter or digit first, then letters, digits, underscores, dots and hyphens",
        )


def _check_version(spot: Spot, data: dict[str, Any]) -> str:
    """Check both version keys; return the version that a runtime selects."""
    given: list[tuple[Spot, Any]] = []
    if data.get("cniVersion") is not None:
        given.append((spot.at("cniVersion"), data["cniVersion"]))
    listed = data.get("cniVersions")
    if isinstance(listed, list):
        given += [(spot.at("cniVersions", index), item) for index, item in enumerate(listed)]
    if not given:
        spot.warning(
            f"no cniVersion: {VERSIONS[0]} is taken, whose results have one address and no interfaces",
            f'add "cniVersion": "{VERSIONS[-2]}"',
        )
        return VERSIONS[0]
    spoken = []
    for where, version in given:
        try:
            parse_version(version)
        except (ValueError, AttributeError):
            where.error(f"{version!r} is not a version", f"known are: {', '.join(VERSIONS)}")
            continue
        if version in VERSIONS:
            spoken.append(version)
        elif len(given) == 1:
            where.error(f"unknown version {version}", f"known are: {', '.join(VERSIONS)}")
    return max(spoken, key=VERSIONS.index, default=VERSIONS[-1])


def _check_list(network: Network, file: str) -> None:
    """Check a list's own keys and collect its plugin objects, those of the folder beside it too."""
    spot, data = network.spot, network.spot.document.value
    own = {key: value for key, value in data.items() if key in ("cniVersions", "plugins")}
    shape.check(spot, models.ListConf, {"name": "", **own})
    shape.check_keys(spot, models.ListConf, data)
    for key in ("disableCheck", "disableGC", "loadOnlyInlinedPlugins"):
        value = data.get(key, False)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            spot.at(key).warning(f"{key} must be true or false, not a string", f"write {value.lower()}")
        elif not isinstance(value, bool):
            spot.at(key).error(f"{key} must be true or false")
    plugins = data.get("plugins")
    for index, plugin in enumerate(plugins if isinstance(plugins, list) else []):
        if isinstance(plugin, dict):
            _add_plugin(network, spot.at("plugins", index), plugin)
    parts = [] if data.get("loadOnlyInlinedPlugins") in (True, "true") else inlined_files(file, network.name)
    for part in parts:
        inlined = _read(spot.findings, part)
        if inlined is not None:
            _add_plugin(network, inlined, inlined.document.value)
    if plugins == [] or (plugins is None and not parts):
        spot.at("plugins").error("the list has no plugins", 'add "plugins": [{"type": …}]')


def _add_plugin(network: Network, spot: Spot, data: dict[str, Any]) -> None:
    kind = data.get("type")
    if kind is None:
        spot.error("the plugin object has no type", 'add "type": the name of the plugin\'s executable')
    elif not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
        spot.at("type").error(f"invalid plugin type {kind!r}", "type is the name of an executable, no path")
    else:
        network.entries.append(Entry(spot, data, kind))
    for key in data:
        if models.reserved(key):
            spot.at(key).error(f"the key {key!r} is the runtime's to write", "remove it", key=True)
    if spot.path and network.name and data.get("name") not in (None, network.name):
        spot.at("name").warning("the plugin's name is replaced by the list's", "remove it", key=True)


def _check_place(network: Network, entry: Entry, index: int) -> None:
    """Check that a plugin can stand where it does in the list."""
    before = [other.kind for other in network.entries[:index]]
    where = entry.spot.at("type")
    if not before and entry.kind in models.CHAINED_ONLY:
        where.error(
            f"{entry.kind} works on the result of another plugin; it cannot be the first",
            "put the plugin that makes the interface before it",
        )
    if entry.kind in models.IPAM_ONLY:
        where.error(
            f"{entry.kind} is an IPAM plugin, no member of a list",
            f'put it into a plugin\'s ipam: "ipam": {{"type": "{entry.kind}"}}',
        )
    maker = next((kind for kind in before if kind in models.MAKES_INTERFACE), "")
    takes_over = entry.kind == "ipvlan" and not entry.ipam_kind  # the addresses of the one before
    if maker and entry.kind in models.MAKES_INTERFACE and not takes_over:
        where.error(
            f"{entry.kind} makes the interface that {maker} has made before", "keep one of them in the list"
        )
    elif entry.kind in before:
        where.warning(f"{entry.kind} is in the list twice", "keep one of them")


def _check_port_mappings(network: Network) -> None:
    """Check that port mappings and portmap go together."""
    kinds = {entry.kind for entry in network.entries}
    for entry in network.entries:
        declared = entry.declares("portMappings")
        if entry.kind == "portmap" and not declared:
            entry.spot.warning(
                "portmap never gets a mapping: it does not declare the capability portMappings",
                'add "capabilities": {"portMappings": true}',
            )
        elif declared and "portmap" not in kinds and models.capabilities(entry.kind) is not None:
            entry.spot.at("capabilities", "portMappings").warning(
                "host ports are asked for, but portmap is not in the list",
                'add {"type": "portmap", "capabilities": {"portMappings": true}}',
                key=True,
            )
