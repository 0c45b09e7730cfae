"""The reference's masquerade rules: what leaves its subnet gets the host's address. For both backends.

nftables: one table, one rule per address, told apart by comments that begin with two hashes, one of the
network, one of the interface and the container. iptables: one chain per network and container, entered from
POSTROUTING; the interface's name plays no part.
"""

from __future__ import annotations

from _sha512 import sha512  # type: ignore[import-not-found]

from cni_plugins.address import Prefix
from cni_plugins.kernel import nftexpr
from cni_plugins.kernel.nftbatch import (
    INET,
    IPV4,
    IPV6,
    MAX_COMMENT,
    POSTROUTING,
    SRCNAT,
    Chain,
    Layout,
    Rule,
    Table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MULTICAST = {4: Prefix(b"\xe0\0\0\0", 4), 6: Prefix(b"\xff" + bytes(15), 8)}

TABLE = Table(
    INET,
    "cni_plugins_masquerade",
    "Masquerading for plugins from github.com/containernetworking/plugins",
)
CHAIN = "masq_checks"
ENTRANCE = "postrouting"
LAYOUT = Layout(
    TABLE,
    [
        Chain(CHAIN, "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"),
        Chain(ENTRANCE, kind="nat", hook=POSTROUTING, priority=SRCNAT),
    ],
    [
        *(
            Rule(
                ENTRANCE,
                nftexpr.family(version) + nftexpr.address("daddr", multicast) + nftexpr.leave(),
            )
            for version, multicast in _MULTICAST.items()
        ),
        Rule(ENTRANCE, nftexpr.goto(CHAIN)),
    ],
)
"""Names, comments and rules are the reference's, so that either takes over what the other made."""

IPTABLES_TABLE = "nat"
IPTABLES_TABLES = {4: Table(IPV4, IPTABLES_TABLE), 6: Table(IPV6, IPTABLES_TABLE)}
"""The tables in which iptables-nft keeps its rules, by family."""
IPTABLES_ENTRANCE = "POSTROUTING"
_IPTABLES_COMMENT_BYTES = 255
_IPTABLES_CHAIN_LENGTH = 28


def rule(address: Prefix, comment: str) -> Rule:
    """Return the rule of one address.

    Args:
        address: the host's address with its subnet's length.
        comment: the attachment's.
    """
    host = Prefix(address.address, address.bits)
    return Rule(
        CHAIN,
        nftexpr.family(address.version)
        + nftexpr.address("saddr", host)
        + nftexpr.address("daddr", address, equal=False)
        + nftexpr.masquerade(),
        comment,
    )


def network_hash(network: str) -> str:
    """Return what the comments of a network's rules begin with; a hyphen follows."""
    return _hash(network)


def attachment_hash(network: str, container_id: str, ifname: str) -> str:
    """Return what the comments of an attachment's rules begin with; a comma follows."""
    return f"{_hash(network)}-{_hash(f'{ifname}:{container_id}')}"


def comment(network: str, container_id: str, ifname: str) -> str:
    """Return the comment of an attachment's rules, cut to what nftables takes."""
    hashes = attachment_hash(network, container_id, ifname)
    name = ifname.replace('"', "")
    whole = f"{hashes}, net: {network}, if: {name}, id: {container_id}"
    return _cut(whole, MAX_COMMENT)


def iptables_chain(network: str, container_id: str) -> str:
    """Return the name of a container's chain."""
    return f"CNI-{_digest(network + container_id)}"[:_IPTABLES_CHAIN_LENGTH]


def iptables_rules(network: str, container_id: str, addresses: Sequence[Prefix]) -> list[str]:
    """Return a container's rules of one family, each with its chain first, as `iptables -S` prints them.

    Args:
        network: the network.
        container_id: the container.
        addresses: of one family, with the lengths of their subnets.
    """
    chain = iptables_chain(network, container_id)
    whole = _cut(f'name: "{network}" id: "{container_id}"', _IPTABLES_COMMENT_BYTES)
    quoted = whole.replace('"', '\\"')
    noted = f'-m comment --comment "{quoted}"'
    version = addresses[0].version
    # All subnets are spared before anything is masqueraded
    spared = [f"{chain} -d {address.network()} {noted} -j ACCEPT" for address in addresses]
    entries = [
        f"{IPTABLES_ENTRANCE} -s {Prefix(address.address, address.bits)} {noted} -j {chain}"
        for address in addresses
    ]
    return [*spared, f"{chain} ! -d {_MULTICAST[version]} {noted} -j MASQUERADE", *entries]


def iptables_addition(rules: Iterable[str]) -> list[str]:
    """Return the lines that add such rules to a chain that may have some already."""
    return [f"-I {each}" if each.endswith(" -j ACCEPT") else f"-A {each}" for each in rules]


def iptables_removal(chain: str, entries: Iterable[str]) -> list[str]:
    """Return the lines that remove a chain and what enters it; they do not mind if it is gone.

    Args:
        chain: the container's chain.
        entries: the rules of POSTROUTING, as `iptables -S` prints them.
    """
    leading = [f"-D {line.removeprefix('-A ')}" for line in entries if line.endswith(f" -j {chain}")]
    return [*leading, f":{chain} - [0:0]", f"-X {chain}"]


def iptables_chains(network: str, entries: Iterable[str]) -> set[str]:
    """Return the chains of a network's containers.

    Args:
        network: the network.
        entries: the rules of POSTROUTING, as `iptables -S` prints them.
    """
    marker = f'--comment "name: \\"{network}\\" id: \\"'
    found = set()
    for line in entries:
        _before, jump, target = line.rpartition(" -j ")
        if jump and target.startswith("CNI-") and marker in line:
            found.add(target)
    return found


def _digest(text: str) -> str:
    digest: str = sha512(text.encode("utf-8", "surrogateescape")).hexdigest()
    return digest


def _hash(text: str) -> str:
    return _digest(text)[:16]


def _cut(text: str, limit: int) -> str:
    return text.encode("utf-8", "surrogateescape")[:limit].decode("utf-8", "surrogateescape")
