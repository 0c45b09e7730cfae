"""The reference's nftables rules for forwarded ports, in the tables `ip cni_hostport` and `ip6 cni_hostport`.

    prerouting, output   traffic to an address of this host -> hostports_all
    hostports_all        -> hostip_hostports, which nothing is put into any more, -> hostports
    hostports            per mapping: [ip daddr HOST] tcp dport PORT dnat to CONTAINER:PORT
    masquerading         per container: its own traffic back to it, and that of localhost (IPv4)

Every rule of a container has the container id as its comment. Conditions are in the mapping's own rule, where
the reference has them in prerouting and output, for all networks at once: the last one's would hold for all.
"""

from __future__ import annotations

from cni_plugins.address import Prefix, format_address
from cni_plugins.kernel import nftexpr
from cni_plugins.kernel.nftbatch import (
    DSTNAT,
    IPV4,
    IPV6,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    SRCNAT,
    Chain,
    Layout,
    Rule,
    Table,
)
from cni_plugins.kernel.nftbatch import MAX_COMMENT as _MAX_COMMENT
from cni_plugins.kernel.nlattr import attribute_map, attributes, text
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.portmap import PortmapConf
    from cni_plugins.rules.portmap import Mapping

TABLES = {
    4: Table(IPV4, "cni_hostport", "CNI portmap plugin"),
    6: Table(IPV6, "cni_hostport", "CNI portmap plugin"),
}
HOSTPORTS = "hostports"
MASQUERADING = Chain("masquerading", kind="nat", hook=POSTROUTING, priority=SRCNAT)
CONTAINER_CHAINS = (HOSTPORTS, "hostip_hostports", MASQUERADING.name)
"""The chains that hold rules of containers."""
_ALL = "hostports_all"
_LOCALHOST = Prefix(b"\x7f\0\0\1", 32)
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2  # linux/netfilter/nf_tables.h: NFTA_EXPR_*
_VALUE_OF = {"cmp": 3, "immediate": 2}  # NFTA_CMP_DATA, NFTA_IMMEDIATE_DATA
_DATA_VALUE = 1


def layout(version: int) -> Layout:
    """Return what all containers share in a family's table (4 or 6)."""
    enter = nftexpr.fib_daddr_local() + nftexpr.jump(_ALL)
    made = Layout(
        TABLES[version],
        [
            Chain(HOSTPORTS),
            Chain("hostip_hostports"),
            Chain(_ALL),
            Chain("prerouting", kind="nat", hook=PREROUTING, priority=DSTNAT),
            Chain("output", kind="nat", hook=OUTPUT, priority=DSTNAT),
            MASQUERADING,
        ],
        [
            Rule(_ALL, nftexpr.jump("hostip_hostports")),
            Rule(_ALL, nftexpr.jump(HOSTPORTS)),
            Rule("prerouting", enter),
            Rule("output", enter),
        ],
    )
    made.entrances[_ALL] += 2  # the kernel counts the two rules that enter it, too
    return made


def comment(container_id: str) -> str:
    """Return the comment of a container's rules: what nft would keep of its id."""
    return container_id[:_MAX_COMMENT]


def mapping_rule(container_id: str, mapping: Mapping, address: bytes) -> Rule:
    """Return a mapping's rule for the family of the container's address, without conditions."""
    expressions = nftexpr.protocol(mapping.protocol) + nftexpr.port("dport", mapping.host_port)
    if mapping.host_ip:
        expressions = nftexpr.address("daddr", _host(mapping.host_ip)) + expressions
    expressions += nftexpr.dnat(address, mapping.container_port)
    return Rule(HOSTPORTS, expressions, comment(container_id))


def masquerade_rules(container_id: str, conf: PortmapConf, address: bytes) -> list[Rule]:
    """Return a container's rules for traffic that would not find its way back without a masquerade."""
    if not conf.snat:
        return []
    matches = [nftexpr.address("saddr", _host(address))]
    if len(address) == 4:
        matches.append(nftexpr.address("saddr", _LOCALHOST))
    if conf.masq_all:
        matches = [nftexpr.forwarded()]  # the reference has all sources here, not only what is forwarded
    end = nftexpr.address("daddr", _host(address)) + nftexpr.masquerade()
    return [Rule(MASQUERADING.name, match + end, comment(container_id)) for match in matches]


def script(container_id: str, mappings: list[Mapping], conditions: list[str], address: bytes) -> str:
    """Return mapping rules with conditions, which only nft itself can read, as its input.

    Raises:
        InvalidConfigError: a condition could end its rule.
    """
    for word in conditions:
        if any(char in ";\n\r\0\\#" for char in word):
            raise InvalidConfigError(f"the condition {word!r} cannot be written in an nftables rule")
    version = 4 if len(address) == 4 else 6
    family = "ip" if version == 4 else "ip6"
    target = format_address(address) if version == 4 else f"[{format_address(address)}]"
    lines = []
    for mapping in reversed(mappings):  # each goes before what is there
        host = f"{family} daddr {format_address(mapping.host_ip)} " if mapping.host_ip else ""
        lines.append(
            f"insert rule {family} {TABLES[version].name} {HOSTPORTS} {' '.join(conditions)} {host}"
            f"{mapping.protocol} dport {mapping.host_port} dnat to {target}:{mapping.container_port}"
            f' comment "{comment(container_id)}"\n'
        )
    return "".join(lines)


def signature(expressions: bytes) -> list[bytes]:
    """Return what a rule compares with and sets, in order: the same for ours and for one that nft made."""
    found = []
    for _kind, expression in attributes(expressions):
        described = attribute_map(expression)
        name = text(described[_EXPRESSION_NAME])
        if name in _VALUE_OF:
            data = attribute_map(described[_EXPRESSION_DATA])
            value = attribute_map(data[_VALUE_OF[name]]).get(_DATA_VALUE)
            if value is not None:
                found.append(value)
        elif name in ("nat", "masq"):
            found.append(name.encode())
    return found


def _host(address: bytes) -> Prefix:
    return Prefix(address, len(address) * 8)
