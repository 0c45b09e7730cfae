"""Forwarded packets let through by iptables: where it decides on them, or is asked for.

What adds and removes keeps others out meanwhile (`notes.lock`): each looks, then changes.
"""

from __future__ import annotations

from cni_plugins.attach.programs import ProgramErrors
from cni_plugins.kernel import iptables
from cni_plugins.kernel.programs import ProgramFailed
from cni_plugins.rules.firewall_iptables import (
    CHAIN,
    ENTRANCE,
    TABLE,
    address_rules,
)
from cni_plugins.spec.errors import CheckFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugins.address import Prefix
    from cni_plugins.rules.firewall_iptables import Frame


def add(frame: Frame, family: int, addresses: Sequence[Prefix], *, known: bool = False) -> None:
    """Add the rules of addresses, and what all share where it is missing: all of it, or nothing.

    Args:
        frame: what all share.
        family: 4 or 6.
        addresses: the container's of this family; with none, the shared rules alone.
        known: there may be rules of these addresses already, which are not to be made twice.

    Raises:
        ProgramError: iptables failed.
    """
    rules = address_rules(addresses)
    with ProgramErrors():
        if not known:
            try:
                checks = [f"-C {rule}" for _add, rule in frame.rules]
                iptables.restore(family, TABLE, [*checks, *[f"-A {rule}" for rule in rules]])
            except ProgramFailed:
                pass  # most likely something shared is missing; if not, it fails again and says so
            else:
                return
        there = set(iptables.rules(family, TABLE))
        own = [f"-A {rule}" for rule in rules if f"-A {rule}" not in there]
        iptables.restore(family, TABLE, [*frame.missing(there), *own])


def remove(family: int, addresses: Sequence[Prefix], *, once: bool = False) -> None:
    """Remove every rule of addresses; none there is no error.

    Args:
        family: 4 or 6.
        addresses: of this family.
        once: `add` made each of them, once: they need not be looked for, unless one is missing.

    Raises:
        ProgramError: iptables failed.
    """
    rules = address_rules(addresses)
    with ProgramErrors():
        if once:
            try:
                iptables.restore(family, TABLE, [f"-D {rule}" for rule in rules])
            except ProgramFailed:
                pass  # most likely somebody removed one; if not, it fails again and says so
            else:
                return
        gone = {f"-A {rule}" for rule in rules}
        found = [line for line in iptables.rules(family, TABLE, CHAIN) if line in gone]
        if found:
            iptables.restore(family, TABLE, [f"-D{line.removeprefix('-A')}" for line in found])


def drops(family: int) -> bool:
    """Tell whether what no rule accepts is dropped, where the older kernel interface is in use.

    What the newer one does, the kernel itself says (`nftprobe.iptables_drops`).

    Raises:
        ProgramError: iptables is not installed, or fails.
    """
    if not iptables.legacy_in_use(family, TABLE):
        return False
    with ProgramErrors():
        return f"-P {ENTRANCE} DROP" in iptables.rules(family, TABLE, ENTRANCE)


def check(frame: Frame, family: int, addresses: Sequence[Prefix]) -> None:
    """Compare the kernel's rules with those that `add` adds.

    Raises:
        CheckFailedError: one is missing; the message quotes it.
        ProgramError: iptables is not installed.
    """
    rules = [*[rule for _add, rule in frame.rules], *address_rules(addresses)]
    with ProgramErrors():
        if iptables.holds(family, TABLE, rules):
            return
        for rule in rules:
            if not iptables.holds(family, TABLE, [rule]):
                raise CheckFailedError(f"the iptables rule is missing in table {TABLE}: {rule}")
