"""The reference's iptables rules for forwarded ports, as lines for iptables-restore, all in the table nat.

PREROUTING, OUTPUT     traffic to an address of this host -> CNI-HOSTPORT-DNAT
CNI-HOSTPORT-DNAT      per container: its host ports -> CNI-DN-<hash of network and container>
CNI-DN-<hash>          per mapping: mark what needs masquerade, then DNAT
CNI-HOSTPORT-SETMARK   sets the mark
POSTROUTING            first of all -> CNI-HOSTPORT-MASQ, which masquerades what is marked
"""

from __future__ import annotations

from _sha512 import sha512  # type: ignore[import-not-found]

from cni_plugins.address import format_address
from cni_plugins.rules.portmap import conditions
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix
    from cni_plugins.config.portmap import PortmapConf
    from cni_plugins.rules.portmap import Mapping

TABLE = "nat"
DNAT_CHAIN = "CNI-HOSTPORT-DNAT"
SET_MARK_CHAIN = "CNI-HOSTPORT-SETMARK"
MASQUERADE_CHAIN = "CNI-HOSTPORT-MASQ"
_DEFAULT_MARK_BIT = 13
_PORTS_A_RULE = 15  # the limit of the multiport match
_COMMENT_BYTES = 255
_CHAIN_LENGTH = 28
_CHAIN_PREFIX = "CNI-DN-"


def container_chain(network: str, container_id: str) -> str:
    """Return the name of a container's own chain."""
    digest = sha512((network + container_id).encode()).hexdigest()
    return f"{_CHAIN_PREFIX}{digest}"[:_CHAIN_LENGTH]


def base_chains(conf: PortmapConf) -> list[str]:
    """Return the chains that all containers share."""
    return [DNAT_CHAIN, SET_MARK_CHAIN, MASQUERADE_CHAIN] if _marks(conf) else [DNAT_CHAIN]


def base_rules(conf: PortmapConf) -> list[tuple[str, str]]:
    """Return the rules that all containers share: the command that adds one ("-A", "-I"), and the rule.

    Each is written as `iptables -S` prints it.
    """
    local = f"-m addrtype --dst-type LOCAL -j {DNAT_CHAIN}"
    rules = [("-A", f"PREROUTING {local}"), ("-A", f"OUTPUT {local}")]
    if _marks(conf):
        bit = _DEFAULT_MARK_BIT if conf.mark_masq_bit is None else conf.mark_masq_bit
        mark = f"{1 << bit:#x}/{1 << bit:#x}"
        comment = '-m comment --comment "CNI portfwd'
        rules += [
            ("-A", f'{SET_MARK_CHAIN} {comment} masquerade mark" -j MARK --set-xmark {mark}'),
            ("-A", f"{MASQUERADE_CHAIN} -m mark --mark {mark} -j MASQUERADE"),
            # Before the masquerade chains of interface plugins, whose first rule accepts the pod's own subnet
            ("-I", f'POSTROUTING {comment} requiring masquerade" -j {MASQUERADE_CHAIN}'),
        ]
    return rules


def _marks(conf: PortmapConf) -> bool:
    return conf.snat and conf.external_set_mark_chain is None


class ContainerRules:
    """One container's rules of one family.

    Attributes:
        chain: the container's chain.
        entries: the rules of DNAT_CHAIN that lead to it, each with that chain's name first.
        rules: its own, each with the chain's name first.
    """

    __slots__ = ("chain", "entries", "rules")

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.entries: list[str] = []
        self.rules: list[str] = []

    def addition(self) -> list[str]:
        """Return the lines that add them. The newest container to claim a port comes first, and so has it."""
        return [
            f":{self.chain} - [0:0]",
            *[f"-A {rule}" for rule in self.rules],
            *[f"-I {entry}" for entry in reversed(self.entries)],
        ]


def container_rules(
    conf: PortmapConf, attachment: tuple[str, str], mappings: list[Mapping], address: Prefix
) -> ContainerRules:
    """Return a container's rules for the family of its address.

    Args:
        conf: the configuration.
        attachment: network and container id.
        mappings: of both families: the reference's rules that lead to the chain name all ports in either one.
        address: the container's, with its subnet's length: the whole subnet is marked for masquerade.

    Raises:
        InvalidConfigError: a condition or a chain's name cannot be written in a rule.
    """
    network, container_id = attachment
    made = ContainerRules(container_chain(network, container_id))
    comment = _quote(_cut(f'dnat name: "{network}" id: "{container_id}"'))
    extra = "".join(f" {_quote(word)}" for word in conditions(conf, address.version))
    for protocol in sorted({mapping.protocol for mapping in mappings}):
        ports = [str(mapping.host_port) for mapping in mappings if mapping.protocol == protocol]
        for start in range(0, len(ports), _PORTS_A_RULE):
            listed = ",".join(ports[start : start + _PORTS_A_RULE])
            made.entries.append(
                f"{DNAT_CHAIN} -p {protocol} -m comment --comment {comment}"
                f" -m multiport --destination-ports {listed}{extra} -j {made.chain}"
            )
    for mapping in mappings:
        if address.version in mapping.families:
            made.rules += mapping_rules(conf, made.chain, mapping, address)
    return made


def mapping_rules(conf: PortmapConf, chain: str, mapping: Mapping, address: Prefix) -> list[str]:
    """Return the rules of one mapping in its container's chain."""
    match = f"{chain} -p {mapping.protocol} -m {mapping.protocol} --dport {mapping.host_port}"
    if mapping.host_ip:
        match += f" -d {format_address(mapping.host_ip)}"
    v6 = address.version == 6
    text = format_address(address.address)
    rules = []
    if conf.snat:
        mark = _quote(conf.external_set_mark_chain or SET_MARK_CHAIN)
        anywhere = "::/0" if v6 else "0.0.0.0/0"
        rules.append(f"{match} -s {anywhere if conf.masq_all else address} -j {mark}")
        if not v6 and not conf.masq_all:
            rules.append(f"{match} -s 127.0.0.1 -j {mark}")
    target = f"[{text}]" if v6 else text
    rules.append(f"{match} -j DNAT --to-destination {target}:{mapping.container_port}")
    return rules


def removal(chain: str, entries: list[str]) -> list[str]:
    """Return the lines that remove a container's chain and what leads to it; they do not mind if it is gone.

    Args:
        chain: the container's chain.
        entries: the rules of DNAT_CHAIN, as `iptables -S` prints them.
    """
    leading = [line for line in entries if line.endswith(f" -j {chain}")]
    return [f"-D {line.removeprefix('-A ')}" for line in leading] + [f":{chain} - [0:0]", f"-X {chain}"]


def container_chains(network: str, entries: list[str]) -> dict[str, str]:
    """Return the chains of a network's containers, each with the container's id as far as a comment has it.

    Args:
        network: the network.
        entries: the rules of DNAT_CHAIN, as `iptables -S` prints them.
    """
    found = {}
    for line in entries:
        _before, named, after = line.partition(f'dnat name: \\"{network}\\" id: \\"')
        _rest, jump, chain = line.rpartition(" -j ")
        if named and jump and chain.startswith(_CHAIN_PREFIX):
            found[chain] = after.partition('"')[0].removesuffix("\\")
    return found


def _cut(comment: str) -> str:
    return comment if len(comment) <= _COMMENT_BYTES else comment[: _COMMENT_BYTES - 2] + "..."


def _quote(word: str) -> str:
    """Return a word as iptables-restore reads it back."""
    if any(ord(char) < 0x20 for char in word):
        raise InvalidConfigError(f"{word!r} cannot be written in an iptables rule")
    if word and not any(char in " \"'\\" for char in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
