"""Host ports by nftables: one look and one transaction for an ADD, whatever else is on the node."""

from __future__ import annotations

from cni_plugins.attach.programs import ProgramErrors
from cni_plugins.kernel import programs
from cni_plugins.kernel.nft import Nft
from cni_plugins.kernel.nftbatch import Batch
from cni_plugins.kernel.nftprobe import usable
from cni_plugins.rules.portmap import conditions
from cni_plugins.rules.portmap_nftables import (
    CONTAINER_CHAINS,
    HOSTPORTS,
    MASQUERADING,
    TABLES,
    comment,
    layout,
    mapping_rule,
    masquerade_rules,
    script,
    signature,
)
from cni_plugins.spec.errors import CheckFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.config.portmap import PortmapConf
    from cni_plugins.kernel.nft import FoundRule
    from cni_plugins.kernel.nftbatch import Rule
    from cni_plugins.rules.portmap import Mapping
    from cni_plugins.rules.portmap_note import Note

    Handle = tuple[int, str, int]


def forward(
    conf: PortmapConf, container_id: str, mappings: list[Mapping], addresses: dict[int, bytes], note: Note
) -> None:
    """Add a container's rules, and what all containers share where it is missing.

    The newest container to claim a port comes first, and so has it: the one before may be dying still.

    Args:
        conf: the configuration.
        container_id: the container.
        mappings: all of them.
        addresses: the container's addresses, by family.
        note: gets the rules that were made.

    Raises:
        OSError: the kernel refused; nftprobe.UNUSABLE tells whether nftables can be used at all.
        ProgramError: nft refused the conditions.
        InvalidConfigError: a condition could end its rule.
    """
    rules: list[tuple[int, Rule]] = []
    scripts = []
    versions = []
    for version, address in addresses.items():
        served = [mapping for mapping in mappings if version in mapping.families]
        if not served:
            continue
        versions.append(version)
        words = conditions(conf, version)
        if words:
            scripts.append(script(container_id, served, words, address))
        else:
            rules += [(version, mapping_rule(container_id, each, address)) for each in reversed(served)]
        rules += [(version, rule) for rule in masquerade_rules(container_id, conf, address)]
    with Nft() as tables:

        def plan() -> Batch:
            batch = Batch()
            for version in versions:
                batch.extend(tables.start(layout(version)))
                if conf.snat and tables.chain_use(TABLES[version], MASQUERADING.name) is None:
                    batch.add_chain(TABLES[version], MASQUERADING)  # the reference without snat omits it
            for version, rule in rules:
                batch.add_rule(TABLES[version], rule, front=True)
            return batch

        handles = tables.change(plan)
        if rules:
            own = zip(rules, handles[-len(rules) :], strict=True)
            note.rules += [(version, rule.chain, handle) for (version, rule), handle in own]
        if scripts:
            with ProgramErrors():
                programs.run("nft", ("-f", "-"), "".join(scripts).encode())
            note.rules = _with_comment(tables, container_id)


def check(conf: PortmapConf, container_id: str, mappings: list[Mapping], addresses: dict[int, bytes]) -> None:
    """Compare the kernel's rules with those that `forward` adds.

    Raises:
        CheckFailedError: a rule is missing; the message names the mapping or the chain.
        OSError: the kernel refused.
    """
    with Nft() as tables:
        for version, address in addresses.items():
            served = [mapping for mapping in mappings if version in mapping.families]
            if not served:
                continue
            family = "ip" if version == 4 else "ip6"
            if tables.start(layout(version)):
                raise CheckFailedError(
                    f"the chains of nftables table {family} cni_hostport are not as portmap makes them"
                )
            found = [
                (rule.chain, signature(rule.expressions))
                for rule in tables.rules(TABLES[version])
                if rule.comment == comment(container_id)
            ]
            for mapping in served:
                if not _among(found, mapping_rule(container_id, mapping, address)):
                    raise CheckFailedError(
                        f"{mapping}: the rule is missing in nftables chain {family} cni_hostport {HOSTPORTS}"
                    )
            for rule in masquerade_rules(container_id, conf, address):
                if not _among(found, rule):
                    raise CheckFailedError(
                        f"{served[0]}: the container's masquerade rule is missing in nftables chain"
                        f" {family} cni_hostport {rule.chain}"
                    )


def _among(found: list[tuple[str, list[bytes]]], rule: Rule) -> bool:
    """Tell whether a rule is among those found, which may have conditions before what it says."""
    wanted = signature(rule.expressions)
    return any(chain == rule.chain and said[-len(wanted) :] == wanted for chain, said in found)


def remove(container_id: str, noted: list[Handle] | None, others: Callable[[], list[Handle]]) -> None:
    """Remove a container's rules: those that were noted, or, when that note is missing or wrong, all it has.

    A handle is believed only where the rule has the container's comment: after a table was written anew, it
    can be another's.

    Args:
        container_id: the container.
        noted: what `forward` noted; None when there is no note.
        others: returns what was noted for other attachments of the same container: these rules stay.

    Raises:
        OSError: the kernel refused.
    """
    with Nft() as tables:

        def plan() -> Batch:
            batch = Batch()
            gone = None if noted is None else _believed(tables, container_id, noted)
            if gone is None:
                stay = others()
                gone = [handle for handle in _with_comment(tables, container_id) if handle not in stay]
            for version, chain, number in gone:
                batch.delete_rule(TABLES[version], chain, number)
            return batch

        tables.change(plan)


def _believed(tables: Nft, container_id: str, noted: list[Handle]) -> list[Handle] | None:
    for version, chain, number in noted:
        if tables.find(TABLES[version], chain, [number], lambda said: said == comment(container_id)) is None:
            return None
    return noted


def _with_comment(tables: Nft, container_id: str) -> list[Handle]:
    """Search a container's rules: the time this takes grows with the node."""
    found: list[tuple[int, FoundRule]] = []
    for version, table in TABLES.items():
        for chain in CONTAINER_CHAINS:
            found += [(version, rule) for rule in tables.rules(table, chain)]
    return [
        (version, rule.chain, rule.handle) for version, rule in found if rule.comment == comment(container_id)
    ]


def has_rules(container_id: str) -> bool:
    """Tell whether there is any rule of a container.

    Raises:
        OSError: the kernel refused.
    """
    if not usable():
        return False
    with Nft() as tables:
        return bool(_with_comment(tables, container_id))
