"""The rules in iptables: chains FLANNEL-POSTRTG and FLANNEL-FWD, entered from POSTROUTING and FORWARD.

The kernel has two interfaces for them, nf_tables and the older x_tables ("legacy"), and judges a packet by
the rules of both: ours belong where the node's others are. iptables(8) of version 1.8 exists for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_plugins.kernel import iptables, programs
from cni_plugins.kernel.programs import ProgramFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld.traffic.rules import Match, RuleSet

NFT, LEGACY = "nft", "legacy"
KUBELETS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
"""Chains that kubelet makes in the table mangle, for others to see which interface is the node's."""
MASQ, FORWARD = "flanneld masq", "flanneld forward"
_PLACES = (("nat", "POSTROUTING", "FLANNEL-POSTRTG", MASQ), ("filter", "FORWARD", "FLANNEL-FWD", FORWARD))
_TARGETS = {"return": "RETURN", "masquerade": "MASQUERADE", "accept": "ACCEPT"}
_OWN = "FLANNEL-"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the kernel's two interfaces, and the programs that write there.

    Attributes:
        kind: NFT or LEGACY.
        variant: what follows `iptables-` in its programs' names; empty: the machine's own `iptables`.
    """

    kind: str
    variant: str = ""

    def write(self, wanted: RuleSet) -> None:
        """Make our chains what is wanted; each table in one transaction.

        Raises:
            ProgramFailed: iptables refuses.
            FileNotFoundError: it is not installed.
        """
        for table, entrance, chain, comment in _PLACES:
            matches = wanted.masquerade if table == "nat" else wanted.forward
            if not matches and self._empty(wanted.family, table):
                continue
            there = iptables.rules(wanted.family, table, variant=self.variant)
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
                iptables.restore(wanted.family, table, lines, self.variant)

    def listed(self, family: int) -> str:
        """Return our chains and their entrances as iptables prints them, nothing where there is none.

        Raises:
            FileNotFoundError: iptables is not installed.
        """
        found = []
        for table, _entrance, chain, _comment in _PLACES:
            if self._empty(family, table):
                continue
            try:
                lines = iptables.rules(family, table, variant=self.variant)
            except ProgramFailed:
                continue  # no such table here: then there are no rules of ours in it
            found += [line for line in lines if chain in line.split()]
        return "\n".join(found)

    def reachable(self, family: int) -> bool:
        """Tell whether there can be rules of ours: some table is in use, and the programs work."""
        tables = [table for table, *_ in _PLACES if not self._empty(family, table)]
        return bool(tables) and iptables.available(family, tables[-1], self.variant)

    def _empty(self, family: int, table: str) -> bool:
        """Tell whether the kernel has no such table: then x_tables would make it for being asked."""
        return self.kind == LEGACY and not iptables.legacy_in_use(family, table)


def sides() -> list[Side]:
    """Return the interfaces that this machine has programs for, that of its own `iptables` first."""
    found = []
    try:
        said = programs.run("iptables", ("--version",))
    except (ProgramFailed, FileNotFoundError):
        pass
    else:
        found.append(Side(NFT if b"nf_tables" in said else LEGACY))  # before 1.8 it said neither
    own = [side.kind for side in found]
    return found + [
        Side(kind, kind)
        for kind in (NFT, LEGACY)
        if kind not in own and programs.installed(f"iptables-{kind}")
    ]


def choose(among: Sequence[Side]) -> tuple[Side, str]:
    """Return the interface that the node's other rules are in, and why it is that one.

    Kubelet's chains decide; without them the number of rules; and where that says nothing, the machine's own
    `iptables`. It is the way of the wrappers around iptables that images for Kubernetes have.

    Args:
        among: what `sides` returned.
    """
    if not among:
        return Side(NFT), "iptables is not installed"
    if len(among) == 1:
        return among[0], "there are no programs for another"
    ordered = sorted(among, key=lambda side: side.kind != NFT)
    for side in ordered:
        text = "".join(_saved(side, family, "mangle") for family in (4, 6))
        for chain in KUBELETS:
            if f"\n:{chain} " in text:
                return side, f"kubelet's chain {chain} is there"
    counts = [sum(_rules(side, family) for family in (4, 6)) for side in ordered]
    why = " and ".join(f"{count} rules in {side.kind}" for count, side in zip(counts, ordered, strict=True))
    if counts.count(max(counts)) == 1:
        return ordered[counts.index(max(counts))], f"there are {why}"
    return among[0], f"it is that of iptables as installed, and there are {why}"


def _rules(side: Side, family: int) -> int:
    """Count the rules that are not ours."""
    text = _saved(side, family)
    return sum(line.startswith("-") and _OWN not in line for line in text.splitlines())


def _saved(side: Side, family: int, table: str = "") -> str:
    """Return a table, or all, as iptables-save prints it; what cannot be read is no evidence."""
    if table and side.kind == LEGACY and not iptables.legacy_in_use(family, table):
        return ""
    words = ("ip6tables" if family == 6 else "iptables", side.variant, "save")
    name = "-".join(word for word in words if word)
    try:
        said = programs.run(name, ("-t", table) if table else ())
    except OSError:
        return ""
    return said.decode("utf-8", "replace")


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
