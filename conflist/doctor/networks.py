"""What is wrong with the networks' configuration, and with what was made from it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from cni_plugins.address import Prefix, format_address
from cni_plugins.plugins.flannel import SubnetEnv
from cni_plugins.spec.errors import CNIError, LimitedConnectivityError, NotAvailableError
from cni_plugins.spec.result import VERSIONS
from cni_plugins.spec.schema import validate
from cni_plugins.spec.skel import as_cni_error
from conflist.doctor import facts as node
from conflist.doctor.finding import ERROR, WARNING, Finding
from conflist.findings import ERROR as LINT_ERROR
from conflist.lint import expand, lint
from conflist.load import NetworkList
from conflist.models import IPAM, PLUGINS
from conflist.run import Runner, at_least
from ipam.host_local.allocator import free
from ipam.host_local.ranges import range_sets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conflist.doctor.facts import Facts
    from ipam.host_local.ranges import RangeSet

_NEARLY_FULL = 0.9
_STATUS_SECONDS = 10.0
_NOT_READY = (NotAvailableError.code, LimitedConnectivityError.code)
_MISSING = re.compile(r"no plugin '(?P<kind>[^']+)' in ")


def lists(folder: str, path: Sequence[str]) -> Iterator[Finding]:
    """What the linter says: mistakes, plugins that are missing, networks in conflict with each other."""
    again = f"`cnictl lint {shlex.quote(folder)}` looks again"
    try:
        found = lint(expand([folder]), path)
    except CNIError as error:
        advice = f"write a network list, or set NETCONFPATH; {again}"
        yield Finding("lists", ERROR, "", error.msg, advice)
        return
    for each in found:
        severity = ERROR if each.severity == LINT_ERROR else WARNING
        missing = _MISSING.match(each.text)
        advice = f"{each.advice}; {again}" if each.advice else again
        if missing and missing["kind"] in (*PLUGINS, *IPAM) and path:
            advice = f"`make install BINDIR={shlex.quote(path[0])}`, where this suite was built, installs it"
        yield Finding("lists", severity, "", f"{each.file}:{each.line}: {each.text}", advice)


def in_list(network: NetworkList) -> str:
    """Return the end of advice to change a list."""
    path = shlex.quote(network.path)
    return f"in {path}, then look at it: `cnictl lint {path}`"


def ranges(facts: Facts) -> Iterator[Finding]:
    """Range sets that have few addresses left."""
    for name, network in facts.networks.items():
        held = {each.address for each in facts.reservations if each.network == name}
        for item in _range_sets(network):
            left = free(item, held)
            if left > item.size() * (1 - _NEARLY_FULL):
                continue
            text = f"{left} of {item.size()} addresses of {item} are left"
            severity = WARNING if left > 0 else ERROR
            advice = (
                "those of containers that are gone for a minute are told of below, and `cnictl doctor --fix` "
                f"releases them; else delete containers, or enlarge the range {in_list(network)}"
            )
            yield Finding("range", severity, name, text, advice)


def flannel(facts: Facts) -> Iterator[Finding]:
    """Whether flannel's daemon has given this node a subnet."""
    for name, network in facts.networks.items():
        for plugin in network.plugins:
            if plugin.get("type") != "flannel":
                continue
            try:
                SubnetEnv.load(str(plugin.get("subnetFile") or node.SUBNET_FILE))
            except (CNIError, OSError) as error:
                text = f"{as_cni_error(error).msg}: no pod can be attached"
                advice = (
                    "see why flanneld does not run on this node: "
                    "`kubectl -n kube-flannel logs -l app=flannel`, or `systemctl status flanneld`"
                )
                yield Finding("subnet-file", ERROR, name, text, advice)


def refusals(facts: Facts, path: Sequence[str], told: Sequence[Finding]) -> Iterator[Finding]:
    """What the plugins' own STATUS says of networks about which no other error is told.

    Args:
        facts: the node.
        path: of the plugins.
        told: what was found before.
    """
    errors = [each for each in told if each.severity == ERROR]
    runner = Runner(path, timeout=_STATUS_SECONDS)
    for name, network in facts.networks.items():
        if any(each.network == name or each.text.startswith(f"{network.path}:") for each in errors):
            continue
        asked = network
        try:
            asked = _with_status(network, runner)
            runner.status(asked)
        except CNIError as error:
            # A runtime never asks an older list for its STATUS: other errors may come from asking.
            if asked is network or error.code in _NOT_READY:
                again = f"cnictl status {shlex.quote(name)}" if asked is network else "cnictl doctor"
                advice = "; ".join(filter(None, (error.details, f"`{again}` asks again")))
                yield Finding("status", ERROR, name, str(error), advice)


def _with_status(network: NetworkList, runner: Runner) -> NetworkList:
    """Return the network in a version that has STATUS, if its plugins speak one; else as it is."""
    if not at_least(network.version, "1.1.0"):
        kinds = {plugin["type"] for plugin in network.plugins}
        if all(VERSIONS[-1] in runner.plugins.versions(kind) for kind in kinds):
            return NetworkList(network.name, VERSIONS[-1], network.plugins)
    return network


def bridges(facts: Facts) -> Iterator[Finding]:
    """Bridges that do not have their gateway's address."""
    found = {link["ifname"]: link for link in facts.links}
    for name, network in facts.networks.items():
        for plugin in node.objects(network):
            if plugin.get("type") != "bridge" or not (
                plugin.get("isGateway") or plugin.get("isDefaultGateway")
            ):
                continue
            link = found.get(plugin.get("bridge") or "cni0")
            if link is not None and not plugin.get("vlan"):
                yield from _bridge(name, link, sets_of(plugin, network.version))


def _bridge(name: str, link: dict[str, Any], sets: list[RangeSet]) -> Iterator[Finding]:
    held = {
        f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each.get("scope") == "global"
    }
    expected = {
        f"{format_address(item.gateway)}/{item.subnet.length}": item.subnet.version
        for each in sets
        for item in each.ranges
    }
    if link.get("operstate") == "DOWN" and "UP" not in link["flags"]:
        repair = (("ip", "link", "set", link["ifname"], "up"),)
        yield Finding(
            "bridge-down", ERROR, name, f"bridge {link['ifname']} is down", repair=repair, safe=True
        )
    for gateway, version in expected.items():
        if gateway in held:
            continue
        others = sorted(each for each in held - expected.keys() if Prefix.parse(each).version == version)
        commands = [("ip", "address", "delete", each, "dev", link["ifname"]) for each in others]
        commands.append(("ip", "address", "add", gateway, "dev", link["ifname"]))
        instead = f"; it has {', '.join(others)}" if others else ""
        text = f"bridge {link['ifname']} does not have its gateway address {gateway}{instead}"
        yield Finding("bridge-address", ERROR, name, text, repair=tuple(commands), safe=not others)


def overlaps(facts: Facts) -> Iterator[Finding]:
    """Subnets that the host reaches by another way already."""
    own = {
        plugin.get("bridge") or "cni0"
        for network in facts.networks.values()
        for plugin in node.objects(network)
        if plugin.get("type") == "bridge"
    }
    foreign = []
    for link in facts.links:
        kind = link.get("linkinfo", {}).get("info_kind")
        if link["ifname"] in own or link.get("link_type") == "loopback":
            continue
        # A pod's host end; a node that is a container itself may have an uplink with such an alias.
        if (kind == "veth" and ":" in link.get("ifalias", "")) or kind in ("vxlan", "wireguard", "ipip"):
            continue
        foreign += [
            (link["ifname"], Prefix.parse(f"{each['local']}/{each['prefixlen']}").network())
            for each in link["addr_info"]
            if each.get("scope") == "global" and "local" in each
        ]
    for name, network in facts.networks.items():
        for item in _range_sets(network):
            for within in item.ranges:
                for ifname, taken in foreign:
                    if taken.length < taken.bits and within.subnet.overlaps(taken):
                        text = f"its subnet {within.subnet} overlaps {taken}, which the host has on {ifname}"
                        advice = (
                            f"give the network addresses of its own {in_list(network)}; "
                            f"`ip address show dev {ifname}` tells what the host has"
                        )
                        yield Finding("conflict", ERROR, name, text, advice)


def _range_sets(network: Any) -> Iterator[RangeSet]:
    for plugin in node.objects(network):
        yield from sets_of(plugin, network.version)


def network_of(facts: Facts, address: bytes) -> str:
    """Return the network that has a subnet with an address; empty if none has."""
    for name, network in facts.networks.items():
        for item in _range_sets(network):
            if any(address in each.subnet for each in item.ranges):
                return name
    return ""


def sets_of(plugin: dict[str, Any], version: str) -> list[RangeSet]:
    """Return the range sets of a plugin object, when it takes addresses from host-local."""
    ipam = plugin.get("ipam")
    if not isinstance(ipam, dict) or ipam.get("type") != "host-local":
        return []
    try:
        return range_sets(validate("HostLocalConf", {"ipam": ipam}), version)
    except CNIError:
        return []  # the linter says why
