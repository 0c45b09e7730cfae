"""The rules in nftables: a table per family, `flannel-ipv4` and `flannel-ipv6`, as the reference names them.

Chains accept what they do not match: a drop of ours would be a drop for everything on the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugins.kernel import programs
from cni_plugins.kernel.programs import ProgramFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld.traffic.rules import Match, RuleSet

NAMES = {4: ("ip", "flannel-ipv4"), 6: ("ip6", "flannel-ipv6")}
_CHAINS = {
    "forward": (
        "chain to accept flannel traffic",
        "type filter hook forward priority filter; policy accept;",
    ),
    "postrtg": (
        "chain to manage traffic masquerading by flannel",
        "type nat hook postrouting priority srcnat; policy accept;",
    ),
}


def available() -> bool:
    """Tell whether nftables can be used here."""
    try:
        programs.run("nft", ("list", "tables"))
    except (ProgramFailed, FileNotFoundError):
        return False
    return True


def write(wanted: RuleSet) -> None:
    """Make a family's table what is wanted, in one transaction.

    Raises:
        ProgramFailed: the kernel refuses.
    """
    programs.run("nft", ("-f", "-"), script(wanted).encode())


def script(wanted: RuleSet) -> str:
    """Return what nft(8) is to do."""
    family, table = NAMES[wanted.family]
    # Declared before it is deleted: there may be none yet.
    lines = [f"add table {family} {table}", f"delete table {family} {table}", f"add table {family} {table}"]
    for chain, matches in (("forward", wanted.forward), ("postrtg", wanted.masquerade)):
        if matches:
            comment, kind = _CHAINS[chain]
            lines.append(f'add chain {family} {table} {chain} {{ {kind} comment "{comment}"; }}')
            lines += [
                f"add rule {family} {table} {chain} {_text(match, family, random=wanted.random)}"
                for match in matches
            ]
    return "\n".join([*lines, ""])


def remove(family: int) -> None:
    """Remove a family's table, if it is there.

    Raises:
        ProgramFailed: the kernel refuses.
    """
    kind, table = NAMES[family]
    programs.run("nft", ("-f", "-"), f"add table {kind} {table}\ndelete table {kind} {table}\n".encode())


def listed(family: int) -> str:
    """Return a family's table as nft prints it, without counters; nothing when there is none.

    Raises:
        FileNotFoundError: nft is not installed.
    """
    try:
        return programs.run("nft", ("--stateless", "list", "table", *NAMES[family])).decode()
    except ProgramFailed:
        return ""


def concerned() -> Sequence[str]:
    """Return the tables whose changes concern us."""
    return [table for _family, table in NAMES.values()]


def _text(match: Match, family: str, *, random: bool) -> str:
    words = []
    if match.mark:
        value, mask = match.mark.split("/")
        words.append(f"meta mark & {mask} == {value}")
    for field, network in (("saddr", match.source), ("daddr", match.destination)):
        if network:
            words.append(f"{family} {field} {'!= ' if network[0] == '!' else ''}{network.removeprefix('!')}")
    words.append(match.verdict + (" fully-random" if match.verdict == "masquerade" and random else ""))
    return " ".join(words)
