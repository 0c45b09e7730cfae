"""The doctor's rounds: look, tell, and repair when asked."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from conflist.doctor import host, iptables, leftovers, networks, nftables
from conflist.doctor.facts import collect
from conflist.doctor.finding import ERROR, WARNING
from conflist.findings import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conflist.doctor.finding import Finding


_MANY, _SOME = 12, 8
"""More findings of a kind than the first are cut to the second, but in JSON."""


def examine(folder: str, path: Sequence[str], cache_folder: str) -> list[Finding]:
    """Return everything that is wrong with the node; it is only read.

    Args:
        folder: of the network lists.
        path: of the plugins.
        cache_folder: libcni's.
    """
    facts = collect(folder, cache_folder)
    found = list(networks.lists(folder, path))
    for check in (
        networks.flannel,
        networks.bridges,
        networks.overlaps,
        networks.ranges,
        host.forwarding,
        host.bridge_filter,
        host.services,
        host.forward_policy,
        host.mtu,
        nftables.host_ports,
        leftovers.attachments,
        leftovers.damaged,
        leftovers.addresses,
        leftovers.scratch,
        leftovers.links,
        nftables.rules,
        nftables.elements,
        nftables.spoof_checks,
        iptables.rules,
        leftovers.kept,  # after those: DEL does not mind what is gone already, and they mind
        leftovers.stashes,
    ):
        found += check(facts)
    found += networks.refusals(facts, path, found)
    return list(dict.fromkeys(found))


def show(found: Sequence[Finding], *, as_json: bool) -> None:
    """Print what was found, each with the commands that repair it."""
    if as_json:
        print(json.dumps([each.to_json() for each in found], indent=4))
        return
    for alike in _alike(found):
        shown = alike if len(alike) <= _MANY else alike[:_SOME]
        for each in shown:
            _tell(each)
        if len(shown) < len(alike):
            what = f"{alike[0].check}, network {alike[0].network}" if alike[0].network else alike[0].check
            how = "; --fix repairs all" if all(each.safe for each in alike) else ""
            print(f"... and {len(alike) - len(shown)} more ({what}); --json tells each{how}")
    errors, warnings = (sum(each.severity == kind for each in found) for kind in (ERROR, WARNING))
    if errors or warnings:
        print(f"{count(errors, 'error')}, {count(warnings, 'warning')}")
    else:
        print("nothing is wrong")


def _alike(found: Sequence[Finding]) -> list[list[Finding]]:
    """Return the findings of the same check and network together, in the order of the first of each."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for each in found:
        groups.setdefault((each.check, each.network), []).append(each)
    return list(groups.values())


def _tell(each: Finding) -> None:
    about = f"network {each.network}: " if each.network else ""
    print(f"{each.severity}: {about}{each.text}")
    if each.advice:
        print(f"    {each.advice}")
    for command in each.repair:
        print(f"    {shlex.join(command)}{'' if each.safe else '    (look first)'}")


def repair(found: Sequence[Finding], cnictl: Callable[[list[str]], int]) -> bool:
    """Run the commands of findings that are safe to repair, each said first; tell whether all worked.

    Args:
        found: from `examine`.
        cnictl: runs a command line of cnictl's own.
    """
    worked = True
    for command in dict.fromkeys(each for item in found if item.safe for each in item.repair):
        print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
        if command[0] == "cnictl":
            status = cnictl(list(command[1:]))
        else:
            try:
                status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
            except OSError as error:
                print(f"{command[0]}: {error.strerror}", file=sys.stderr)
                status = 1
        worked = worked and status == 0
    return worked
