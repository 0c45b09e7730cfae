"""The rules in iptables: chains FLANNEL-POSTRTG and FLANNEL-FWD, entered from POSTROUTING and FORWARD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugins.kernel import iptables
from cni_plugins.kernel.programs import ProgramFailed

if TYPE_CHECKING:
    from flanneld.traffic.rules import Match, RuleSet

MASQ, FORWARD = "flanneld masq", "flanneld forward"
_PLACES = (("nat", "POSTROUTING", "FLANNEL-POSTRTG", MASQ), ("filter", "FORWARD", "FLANNEL-FWD", FORWARD))
_TARGETS = {"return": "RETURN", "masquerade": "MASQUERADE", "accept": "ACCEPT"}


def available(family: int) -> bool:
    """Tell whether a family's iptables can be used here."""
    return iptables.available(family, "filter")


def write(wanted: RuleSet) -> None:
    """Make our chains what is wanted; each table in one transaction.

    Raises:
        ProgramFailed: iptables refuses.
        FileNotFoundError: it is not installed.
    """
    for table, entrance, chain, comment in _PLACES:
        matches = wanted.masquerade if table == "nat" else wanted.forward
        there = iptables.rules(wanted.family, table)
        jump = f'{entrance} -m comment --comment "{comment}" -j {chain}'
        entered = there.count(f"-A {jump}")
        lines = [f"-D {jump}"] * (entered - 1 if matches else entered)
        if matches:
            lines = [
                f":{chain} - [0:0]",
                *lines,
                *(_text(match, chain, comment, random=wanted.random) for match in matches),
            ]
            lines += [] if entered else [f"-A {jump}"]
        elif f"-N {chain}" in there:
            lines += [f"-F {chain}", f"-X {chain}"]
        if lines:
            iptables.restore(wanted.family, table, lines)


def listed(family: int) -> str:
    """Return our chains and their entrances as iptables prints them, nothing where there is none.

    Raises:
        FileNotFoundError: iptables is not installed.
    """
    found = []
    for table, _entrance, chain, _comment in _PLACES:
        try:
            found += [line for line in iptables.rules(family, table) if chain in line.split()]
        except ProgramFailed:
            continue  # no such table here: then there are no rules of ours in it
    return "\n".join(found)


def _text(match: Match, chain: str, comment: str, *, random: bool) -> str:
    words = [f"-A {chain}"]
    for flag, network in (("-s", match.source), ("-d", match.destination)):
        if network:
            words.append(f"{'! ' if network[0] == '!' else ''}{flag} {network.removeprefix('!')}")
    if match.mark:
        words.append(f"-m mark --mark {match.mark}")
    words.append(f'-m comment --comment "{comment}" -j {_TARGETS[match.verdict]}')
    if match.verdict == "masquerade" and random:
        words.append("--random-fully")
    return " ".join(words)
