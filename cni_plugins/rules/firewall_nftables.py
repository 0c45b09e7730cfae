"""Our nftables rules for forwarded packets, in `table inet cni_plugins_firewall`, their number fixed.

    forward     -> isolation -> admin; then the pods' packets are accepted as iptables' CNI-FORWARD does
    isolation   drops what isolated bridges send each other, by the pair of interfaces
    admin       the administrator's: made empty, and never touched
    pods4, pods6        the pods' addresses, each with its attachment in the comment
    bridges             bridges that are isolated from each other
    inside              of each of these, the way from itself to itself
    isolated            the same, of those that are closed inside as well

An accept ends this chain and no other's: where another base chain drops forwarded packets, no rule here can
help, which is why the plugin asks iptables first (plugins/firewall.py). A drop is final wherever it is.
"""

from __future__ import annotations

from cni_plugins.kernel import nftexpr, nftset
from cni_plugins.kernel.nftbatch import FILTER, FORWARD, INET, Chain, Layout, Rule, Table
from cni_plugins.rules.firewall import ADMIN_CHAIN, ISOLATED, OPEN, TABLE_NAME

TABLE = Table(INET, TABLE_NAME, "Forwarded packets of CNI plugins' containers")
PODS = {
    4: nftset.Set(TABLE, "pods4", (nftset.IPV4_ADDR,)),
    6: nftset.Set(TABLE, "pods6", (nftset.IPV6_ADDR,)),
}
BRIDGES = nftset.Set(TABLE, "bridges", (nftset.IFNAME,))
INSIDE = nftset.Set(TABLE, "inside", (nftset.IFNAME, nftset.IFNAME))
CLOSED = nftset.Set(TABLE, "isolated", (nftset.IFNAME, nftset.IFNAME))
_FORWARD, _ISOLATION, _ADMIN = "forward", "isolation", ADMIN_CHAIN

LAYOUT = Layout(
    TABLE,
    [
        Chain(_ISOLATION, "From and to bridges that are isolated"),
        Chain(_ADMIN, "Rules of the administrator, which no plugin changes"),
        Chain(_FORWARD, kind="filter", hook=FORWARD, priority=FILTER),
    ],
    [
        Rule(_ISOLATION, nftexpr.interfaces_among(CLOSED.name) + nftexpr.drop()),
        Rule(_ISOLATION, nftexpr.interfaces_among(INSIDE.name) + nftexpr.leave()),
        Rule(
            _ISOLATION,
            nftexpr.iifname_among(BRIDGES.name) + nftexpr.oifname_among(BRIDGES.name) + nftexpr.drop(),
        ),
        Rule(_FORWARD, nftexpr.jump(_ISOLATION)),
        Rule(_FORWARD, nftexpr.jump(_ADMIN)),
        *(
            Rule(_FORWARD, nftexpr.family(version) + match + nftexpr.accept())
            for version, pods in PODS.items()
            for match in (
                nftexpr.address_among("daddr", version, pods.name) + nftexpr.answers(),
                nftexpr.address_among("saddr", version, pods.name),
            )
        ),
    ],
    [*PODS.values(), BRIDGES, INSIDE, CLOSED],
)
LAYOUT.entrances[_ISOLATION] += 1  # the kernel counts the rule that enters it, too


def isolation(bridge: str, policy: str) -> list[tuple[nftset.Set, bytes]]:
    """Return the elements that isolate a bridge.

    Args:
        bridge: its name; empty: none.
        policy: OPEN, SAME_BRIDGE or ISOLATED.
    """
    if not bridge or policy == OPEN:
        return []
    name = nftexpr.interface(bridge)
    pairs = [(BRIDGES, name), (INSIDE, name + name)]
    return [*pairs, (CLOSED, name + name)] if policy == ISOLATED else pairs
