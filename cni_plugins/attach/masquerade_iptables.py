"""Masquerading with iptables: where it is asked for, and to clean up after the reference plugins."""

from __future__ import annotations

from cni_plugins.attach.programs import ProgramErrors
from cni_plugins.attach.undo import Teardown
from cni_plugins.kernel import iptables
from cni_plugins.kernel.programs import ProgramFailed
from cni_plugins.rules.masquerade import (
    IPTABLES_ENTRANCE,
    IPTABLES_TABLE,
    IPTABLES_TABLES,
    iptables_addition,
    iptables_chain,
    iptables_chains,
    iptables_removal,
    iptables_rules,
)
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from cni_plugins.address import Prefix
    from cni_plugins.kernel.nft import Nft


def add(network: str, container_id: str, addresses: Sequence[Prefix]) -> None:
    """Make a container's chain and what enters it.

    Raises:
        ProgramError: iptables failed.
    """
    for family, members in _by_family(addresses):
        rules = iptables_rules(network, container_id, members)
        chain = iptables_chain(network, container_id)
        with ProgramErrors():
            try:
                iptables.restore(family, IPTABLES_TABLE, [f"-N {chain}", *[f"-A {rule}" for rule in rules]])
            except ProgramFailed:
                # Most likely the chain is there, for the container's other interface. If not, it fails again.
                with iptables.lock():
                    there = set(iptables.rules(family, IPTABLES_TABLE))
                    lines = [] if f"-N {chain}" in there else [f"-N {chain}"]
                    missing = [rule for rule in rules if f"-A {rule}" not in there]
                    iptables.restore(family, IPTABLES_TABLE, [*lines, *iptables_addition(missing)])


def remove(network: str, container_id: str, found: Container[int]) -> None:
    """Remove a container's chain and what enters it, for all its interfaces on the network.

    Args:
        network: the network.
        container_id: the container.
        found: the families (4, 6) whose nf_tables have the chain. Whether the older kernel interface has it
            is not known before iptables was asked, which is done where it is in use.

    Raises:
        CNIError: iptables failed for a family; the other was tried.
    """
    chain = iptables_chain(network, container_id)
    teardown = Teardown()
    for family in IPTABLES_TABLES:
        teardown.step(_remove, family, chain, known=family in found)
    teardown.finish()


def _remove(family: int, chain: str, *, known: bool) -> None:
    if known or iptables.legacy_in_use(family, IPTABLES_TABLE):
        with ProgramErrors(), iptables.lock():
            entries = iptables.rules(family, IPTABLES_TABLE, IPTABLES_ENTRANCE)
            iptables.restore(family, IPTABLES_TABLE, iptables_removal(chain, entries))


def gc(tables: Nft | None, network: str, spared: Iterable[str]) -> None:
    """Remove the chains of a network's containers and what enters them, except some.

    Args:
        tables: tells without a program whether iptables, on nf_tables, has any; None: there is no such thing.
        network: the network.
        spared: ids of containers that stay.

    Raises:
        CNIError: iptables failed for a family; the other was tried.
    """
    kept = {iptables_chain(network, container_id) for container_id in spared}
    teardown = Teardown()
    for family in IPTABLES_TABLES:
        teardown.step(_collect, tables, family, network, kept)
    teardown.finish()


def _collect(tables: Nft | None, family: int, network: str, kept: set[str]) -> None:
    if not _may_hold(tables, family, network):
        return
    with ProgramErrors(), iptables.lock():
        entries = iptables.rules(family, IPTABLES_TABLE, IPTABLES_ENTRANCE)
        gone = sorted(iptables_chains(network, entries) - kept)
        lines = [line for chain in gone for line in iptables_removal(chain, entries)]
        if lines:
            iptables.restore(family, IPTABLES_TABLE, lines)
        for chain in gone:
            skel.removed(network, f"the iptables chain {chain}, which masquerades")


def _may_hold(tables: Nft | None, family: int, network: str) -> bool:
    """Tell whether iptables may have rules of a network, without running a program."""
    if iptables.legacy_in_use(family, IPTABLES_TABLE):
        return True
    marker = f'name: "{network}" id: "'
    return tables is not None and any(
        marker in rule.comment or marker.encode() in rule.expressions
        for rule in tables.rules(IPTABLES_TABLES[family], IPTABLES_ENTRANCE)
    )


def check(network: str, container_id: str, addresses: Sequence[Prefix]) -> None:
    """Compare the rules that are there with those that `add` makes.

    Raises:
        CheckFailedError: one is missing; the message quotes it.
        ProgramError: iptables is not installed.
    """
    for family, members in _by_family(addresses):
        rules = iptables_rules(network, container_id, members)
        with ProgramErrors():
            if iptables.holds(family, IPTABLES_TABLE, rules):
                continue
            for rule in rules:
                if not iptables.holds(family, IPTABLES_TABLE, [rule]):
                    raise CheckFailedError(f"the iptables rule is missing in table {IPTABLES_TABLE}: {rule}")


def _by_family(addresses: Sequence[Prefix]) -> Iterator[tuple[int, list[Prefix]]]:
    for family in (4, 6):
        members = [address for address in addresses if address.version == family]
        if members:
            yield family, members
