"""The command `cnictl`: runs and lints network lists by hand.

It takes cnitool's arguments and variables, so what is written about that command holds for this one.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from cni_plugins import VERSION
from cni_plugins.spec.codec import decode, encode_pretty
from cni_plugins.spec.errors import CNIError, InvalidEnvironmentError
from cni_plugins.spec.result import VERSIONS
from conflist.cache import DEFAULT_FOLDER as CACHE_FOLDER
from conflist.cache import Attachment, Cache
from conflist.invoke import PluginError
from conflist.load import DEFAULT_FOLDER as CONFIG_FOLDER
from conflist.load import iterate_networks, load_network
from conflist.run import CollectedError, Runner, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from conflist.doctor.finding import Finding

DEFAULT_PATH = "/opt/cni/bin"
_SECOND_LOOK = 2.0
"""Seconds after which a node is looked at again before anything is repaired."""
_ENVIRONMENT = f"""\
environment:
  NETCONFPATH   folder of the network lists (default {CONFIG_FOLDER})
  CNI_PATH      folders of the plugins, joined by : (default {DEFAULT_PATH})
  CNI_IFNAME    interface name in the container (default eth0)
  CNI_ARGS      arguments for plugins: KEY=VALUE;KEY=VALUE
  CAP_ARGS      capabilities as a JSON object: {{"portMappings": [...]}}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except CNIError as error:
        _complain(arguments, error)
    except BrokenPipeError:
        # Whoever read our output has enough; a second complaint at exit helps nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        advice = " (run it as root)" if isinstance(error, PermissionError) and os.geteuid() != 0 else ""
        print(f"cnictl: {place}{error.strerror}{advice}", file=sys.stderr)
    else:
        return status
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cnictl",
        description="Run and check CNI network configuration lists.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"cnictl {VERSION} (CNI {', '.join(VERSIONS)})"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("add", _add, "attach a namespace to a network and print the result"),
        ("check", _check, "compare an attachment with what add made"),
        ("del", _delete, "detach a namespace from a network"),
        ("gc", _gc, "remove all attachments of a network except those given by --valid"),
        ("status", _status, "tell whether a network is ready for attachments"),
    ):
        command = _command(commands, name, run, text)
        command.add_argument("net", metavar="NET", help="the network's name")
        attaches = name in ("add", "check", "del")
        unused = "" if attaches else " (not used; cnitool takes it, too)"
        command.add_argument(
            "netns",
            metavar="NETNS",
            nargs=None if attaches else "?",
            help=f"path of the network namespace{unused}",
        )
        command.add_argument(
            "-i", "--ifname", metavar="NAME", help=f"the container's interface{unused or ' (CNI_IFNAME)'}"
        )
        _cache_folder(command)
        command.add_argument(
            "--timeout", type=float, metavar="SECONDS", help="how long one plugin may take (no limit)"
        )
        if attaches:
            command.add_argument(
                "--container-id", metavar="ID", help="container id (cnitool- and a hash of NETNS)"
            )
        if name == "gc":
            command.add_argument(
                "--valid",
                action="append",
                default=[],
                metavar="CONTAINER-ID/IFNAME",
                help="an attachment to keep; may be repeated",
            )
    command = _command(commands, "lint", _lint, "explain every mistake in network lists")
    command.add_argument("files", metavar="FILE", nargs="*", help="file or folder (NETCONFPATH)")
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command = _command(commands, "doctor", _doctor, "find out what is wrong with this node's networks")
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.add_argument("--fix", action="store_true", help="run the safe repairs, and print each first")
    _cache_folder(command)
    _command(commands, "list", _list, "print the networks in the folder NETCONFPATH")
    command = _command(commands, "schema", _schema, "print the JSON Schema of a list, or of one plugin")
    command.add_argument("type", metavar="TYPE", nargs="?", default="", help="a plugin, such as bridge")
    return parser


def _cache_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cache-dir",
        default=CACHE_FOLDER,
        metavar="FOLDER",
        help="where attachments are remembered (%(default)s)",
    )


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    sentence = f"{text[0].upper()}{text[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=sentence)
    parser.set_defaults(run=run, command=name)
    return parser


def _add(arguments: argparse.Namespace) -> int:
    network = load_network(_config_folder(), arguments.net)
    result = _runner(arguments).add(network, _attachment(arguments))
    print(encode_pretty(result).decode())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    network = load_network(_config_folder(), arguments.net)
    _runner(arguments).check(network, _attachment(arguments))
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    network = load_network(_config_folder(), arguments.net)
    _runner(arguments).delete(network, _attachment(arguments))
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    valid = []
    for item in arguments.valid:
        container_id, slash, ifname = item.partition("/")
        if not (container_id and slash and ifname):
            raise InvalidEnvironmentError(f"--valid {item!r}: write CONTAINER-ID/IFNAME")
        valid.append((container_id, ifname))
    _runner(arguments).gc(load_network(_config_folder(), arguments.net), valid)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    network = load_network(_config_folder(), arguments.net)
    if not at_least(network.version, "1.1.0"):
        print(
            f"cnictl: status {network.name}: its cniVersion is {network.version}, and STATUS came with "
            "1.1.0; `cnictl doctor` asks its plugins all the same",
            file=sys.stderr,
        )
    _runner(arguments).status(network)
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    rows = [("NETWORK", "VERSION", "PLUGINS", "FILE")]
    for network in iterate_networks(_config_folder()):
        plugins = ",".join(plugin["type"] for plugin in network.plugins)
        rows.append((network.name, network.version, plugins, network.path))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        print("  ".join([*cells, row[3]]))
    return 0


def _lint(arguments: argparse.Namespace) -> int:
    # These bring in pydantic, which the other commands need not wait for.
    from conflist import findings  # noqa: PLC0415
    from conflist.lint import expand, lint  # noqa: PLC0415

    files = expand(arguments.files or [_config_folder()])
    found = lint(files, _plugin_path())
    if arguments.json:
        print(encode_pretty(findings.to_json(found)).decode())
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(findings.to_text(found, len(files), colour=colour))
    return int(any(finding.severity == findings.ERROR for finding in found))


def _doctor(arguments: argparse.Namespace) -> int:
    # These bring in the linter, and with it pydantic.
    from conflist.doctor import report  # noqa: PLC0415
    from conflist.doctor.finding import INFO  # noqa: PLC0415

    def look() -> list[Finding]:
        return report.examine(_config_folder(), _plugin_path(), arguments.cache_dir)

    found = look()
    worked = True
    if arguments.fix and any(each.safe for each in found):
        if not arguments.json:
            report.show(found, as_json=False)
        # What an ADD that runs just now has made is no leftover: at a second look it is not amiss.
        time.sleep(_SECOND_LOOK)
        again = set(look())
        worked = report.repair([each for each in found if each in again], main)
        found = look()
    report.show(found, as_json=arguments.json)
    return int(not worked or any(each.severity != INFO for each in found))


def _schema(arguments: argparse.Namespace) -> int:
    from conflist import models  # noqa: PLC0415 (it brings in pydantic)

    try:
        schema = models.schema(arguments.type)
    except KeyError:
        known = ", ".join(sorted((*models.PLUGINS, *models.IPAM)))
        raise CNIError(f"there is no schema of {arguments.type!r}", f"known are: {known}") from None
    print(encode_pretty(schema).decode())
    return 0


def _runner(arguments: argparse.Namespace) -> Runner:
    cache = Cache(arguments.cache_dir)
    return Runner(_plugin_path(), cache, timeout=arguments.timeout, forward_stderr=True)


def _attachment(arguments: argparse.Namespace) -> Attachment:
    """Make the attachment that arguments and environment ask for, named as cnitool names it."""
    from _sha512 import sha512  # type: ignore[import-not-found] # noqa: PLC0415 (hashlib brings in OpenSSL)

    netns = os.path.abspath(arguments.netns)
    container_id = arguments.container_id or f"cnitool-{sha512(os.fsencode(netns)).digest()[:10].hex()}"
    ifname = arguments.ifname or os.environ.get("CNI_IFNAME") or "eth0"
    given = os.environ.get("CAP_ARGS", "")
    capabilities = decode(os.fsencode(given), "CAP_ARGS") if given else {}
    if not isinstance(capabilities, dict):
        raise InvalidEnvironmentError("CAP_ARGS must be a JSON object", 'as in {"portMappings": [...]}')
    return Attachment(container_id, ifname, netns, cni_args(os.environ.get("CNI_ARGS", "")), capabilities)


def cni_args(text: str) -> list[tuple[str, str]]:
    """Read CNI_ARGS.

    Raises:
        InvalidEnvironmentError: a pair has no key or no value.
    """
    pairs = []
    for pair in filter(None, text.split(";")):
        key, _equals, value = pair.partition("=")
        if not key or not value:
            raise InvalidEnvironmentError(
                f"invalid CNI_ARGS pair {pair!r}", "pairs are KEY=VALUE, joined by ;"
            )
        pairs.append((key, value))
    return pairs


def _config_folder() -> str:
    return os.environ.get("NETCONFPATH") or CONFIG_FOLDER


def _plugin_path() -> list[str]:
    return [folder for folder in (os.environ.get("CNI_PATH") or DEFAULT_PATH).split(":") if folder]


def _complain(arguments: argparse.Namespace, error: CNIError) -> None:
    """Say what failed, as a person reads it."""
    about = f"{arguments.command} {arguments.net}" if hasattr(arguments, "net") else arguments.command
    for part in error.errors if isinstance(error, CollectedError) else [error]:
        print(f"cnictl: {about}: {part}", file=sys.stderr)
        details = getattr(part, "details", "")
        if details:
            print(f"    {details}", file=sys.stderr)
        if isinstance(part, PluginError):
            print(f"    code {part.code}", file=sys.stderr)
    if arguments.command == "add" and isinstance(error, PluginError) and _left_something(error):
        print(f"    Undo what was made before that: {_undoing(arguments)}", file=sys.stderr)


def _left_something(error: PluginError) -> bool:
    """Tell whether a failed `add` left something: a plugin that answers has undone its own part."""
    return error.position > 1 or (error.position == 1 and not error.answered)


def _undoing(arguments: argparse.Namespace) -> str:
    """Return the command line that takes a failed `add` back, with the options that were given."""
    words = ["cnictl", "del", arguments.net, arguments.netns]
    for option, value, default in (
        ("--ifname", arguments.ifname or os.environ.get("CNI_IFNAME"), None),
        ("--container-id", arguments.container_id, None),
        ("--cache-dir", arguments.cache_dir, CACHE_FOLDER),
    ):
        if value != default:
            words += [option, value]
    return shlex.join(words)
