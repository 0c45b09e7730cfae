"""Host ports by iptables: for nodes whose other software needs its rules there, or without nftables."""

from __future__ import annotations

from cni_plugins.attach.programs import ProgramErrors
from cni_plugins.kernel import iptables
from cni_plugins.kernel.programs import ProgramFailed
from cni_plugins.rules.portmap_iptables import (
    DNAT_CHAIN,
    TABLE,
    base_chains,
    base_rules,
    container_chain,
    container_chains,
    container_rules,
    mapping_rules,
    removal,
)
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix
    from cni_plugins.config.portmap import PortmapConf
    from cni_plugins.rules.portmap import Mapping


def forward(conf: PortmapConf, attachment: tuple[str, str], mappings: list[Mapping], address: Prefix) -> None:
    """Add a container's rules, and what all containers share where it is missing: all of it, or nothing.

    Args:
        conf: the configuration.
        attachment: network and container id.
        mappings: of both families, one at least of the address's.
        address: the container's.

    Raises:
        ProgramError: iptables failed.
        InvalidConfigError: a condition cannot be written in a rule.
    """
    family = address.version
    addition = container_rules(conf, attachment, mappings, address).addition()
    shared = base_rules(conf)
    with ProgramErrors():
        try:
            iptables.restore(family, TABLE, [*[f"-C {rule}" for _add, rule in shared], *addition])
        except ProgramFailed:
            # Most likely something shared is missing. If something else is wrong, it fails again and says so.
            # And if the program was killed, all may be there: nothing is to lead to the container twice.
            with iptables.lock():
                there = set(iptables.rules(family, TABLE))
                chains = [f":{chain} - [0:0]" for chain in base_chains(conf) if f"-N {chain}" not in there]
                rules = [f"{add} {rule}" for add, rule in shared if f"-A {rule}" not in there]
                addition = [
                    line for line in addition if not (line.startswith("-I") and f"-A{line[2:]}" in there)
                ]
                iptables.restore(family, TABLE, [*chains, *rules, *addition])


def check(conf: PortmapConf, attachment: tuple[str, str], mappings: list[Mapping], address: Prefix) -> None:
    """Compare the kernel's rules with those that `forward` adds.

    Raises:
        CheckFailedError: a rule is missing; the message names the mapping, or the shared rule.
        ProgramError: iptables is not installed.
    """
    family = address.version
    wanted = container_rules(conf, attachment, mappings, address)
    shared = [rule for _add, rule in base_rules(conf)]
    with ProgramErrors():
        if iptables.holds(family, TABLE, [*shared, *wanted.entries, *wanted.rules]):
            return
        for mapping in mappings:
            rules = mapping_rules(conf, wanted.chain, mapping, address)
            if family in mapping.families and not iptables.holds(family, TABLE, rules):
                raise CheckFailedError(f"{mapping}: rules are missing in the iptables chain {wanted.chain}")
        for rule in [*shared, *wanted.entries]:
            if not iptables.holds(family, TABLE, [rule]):
                raise CheckFailedError(f"the iptables rule is missing in table {TABLE}: {rule}")


def remove(attachment: tuple[str, str], family: int) -> None:
    """Remove a container's chain and what leads to it; nothing there is no error.

    Args:
        attachment: network and container id.
        family: 4 or 6.

    Raises:
        ProgramError: iptables failed.
    """
    with ProgramErrors(), iptables.lock():
        entries = iptables.rules(family, TABLE, DNAT_CHAIN)
        iptables.restore(family, TABLE, removal(container_chain(*attachment), entries))


def collect(network: str, spared: set[str], family: int) -> None:
    """Remove the rules of a network's containers, also those of the reference, except some.

    Args:
        network: the network.
        spared: ids of containers that stay.
        family: 4 or 6.

    Raises:
        ProgramError: iptables failed.
    """
    with ProgramErrors(), iptables.lock():
        entries = iptables.rules(family, TABLE, DNAT_CHAIN)
        kept = {container_chain(network, each) for each in spared}
        found = container_chains(network, entries)
        gone = sorted(found.keys() - kept)
        lines = [line for chain in gone for line in removal(chain, entries)]
        if lines:
            iptables.restore(family, TABLE, lines)
        for chain in gone:
            skel.removed(network, f"iptables rules of host ports of container {found[chain]}")
