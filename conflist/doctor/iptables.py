"""Rules that plugins made by iptables, the reference's among them, for containers that are gone."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from cni_plugins.address import Prefix, format_address
from cni_plugins.rules import firewall_iptables as firewall
from conflist.doctor.finding import WARNING, Finding
from conflist.doctor.networks import network_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conflist.doctor.facts import Facts

_OWNER = re.compile(r'name: "(?P<network>[^"]+)" id: "(?P<container>[^"]+)"')
_OWN_CHAIN = re.compile(r"CNI-(DN-|SN-)?[0-9a-f]{20,}")
"""Chains of one container: masquerade (`CNI-`) and portmap (`CNI-DN-`; `CNI-SN-` of old versions)."""
_PROGRAMS = ("iptables", "ip6tables")


def rules(facts: Facts) -> Iterator[Finding]:
    """Rules that name a container that is gone, and chains of containers that nothing leads to."""
    for program in _PROGRAMS:
        for table, lines in _tables(program).items():
            yield from _table(facts, (program, "-t", table), lines)
            if table == firewall.TABLE:
                yield from _let_through(facts, (program, "-t", table), lines)


def _let_through(facts: Facts, command: tuple[str, ...], lines: list[str]) -> Iterator[Finding]:
    """Rules of the plugin firewall, which do not say whose they are, for addresses that nobody has."""
    for line in lines:
        rule = tuple(line.split()[1:])
        if rule[:1] != (firewall.CHAIN,) or rule[1:2] not in (("-s",), ("-d",)):
            continue
        try:
            host = Prefix.parse(rule[2])
        except ValueError:
            continue
        made = [tuple(each.split()) for each in firewall.address_rules([host])]
        address = format_address(host.address)
        if rule not in made or host.length != host.bits or address in facts.held:
            continue
        network = network_of(facts, host.address)
        text = (
            f"a rule in {command[0]} table {firewall.TABLE}, chain {firewall.CHAIN}, lets {address} through"
        )
        # Of a network that is not configured here, somebody may still know more.
        yield Finding(
            "stale-iptables-rule",
            WARNING,
            network,
            f"{text}, which nobody has",
            repair=((*command, "-D", *rule),),
            safe=bool(network),
        )


def _table(facts: Facts, command: tuple[str, ...], lines: list[str]) -> Iterator[Finding]:
    chains = [line.split()[0][1:] for line in lines if line.startswith(":")]
    entered: dict[str, list[tuple[str, ...]]] = {}
    where = f"{command[0]} table {command[2]}"
    for line in lines:
        if not line.startswith("-A "):
            continue
        rule = tuple(shlex.split(line)[1:])
        target = rule[rule.index("-j") + 1] if "-j" in rule[:-1] else ""
        owner = _OWNER.search(" ".join(rule))
        chain = target if _OWN_CHAIN.fullmatch(target) else ""
        if chain:
            entered.setdefault(chain, []).append(rule)
        if owner is None or rule[0] == chain or _OWN_CHAIN.fullmatch(rule[0]):
            continue  # what is in a container's chain goes with the chain
        network, container = owner["network"], owner["container"]
        if network not in facts.networks or facts.is_known(container) or _in_use(facts, rule):
            continue
        repair = [(*command, "-D", *rule)]
        if chain and not any(other != rule for other in entered[chain]):
            repair += [(*command, "-F", chain), (*command, "-X", chain)]
        text = f"a rule in {where}, chain {rule[0]}, is for container {container}, which is gone"
        yield Finding("stale-iptables-rule", WARNING, network, text, repair=tuple(repair), safe=True)
    for chain in chains:
        if _OWN_CHAIN.fullmatch(chain) and chain not in entered:
            text = f"nothing leads to chain {chain} in {where}: the container it was made for is gone"
            repair = [(*command, "-F", chain), (*command, "-X", chain)]
            yield Finding("stale-iptables-chain", WARNING, "", text, repair=tuple(repair))


def _in_use(facts: Facts, rule: tuple[str, ...]) -> bool:
    """Tell whether somebody has the address that a rule is for."""
    return any(word.partition("/")[0] in facts.inside for word in rule)


def _tables(program: str) -> dict[str, list[str]]:
    """Return the lines of each table that is in use; none where there is no such program."""
    try:
        done = subprocess.run([f"{program}-save"], capture_output=True, check=False)
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line[1:], [])
        elif not line.startswith("#"):
            lines.append(line)
    return found
