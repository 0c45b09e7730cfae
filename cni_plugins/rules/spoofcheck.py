"""The reference's rules against forged source MAC addresses, in the table that ebtables and libvirt use too.

The base chain sends frames of a container's port to the container's chain, that one to its MAC chain, which
lets the one address pass and drops the rest.
"""

from __future__ import annotations

from cni_plugins.kernel import nftexpr
from cni_plugins.kernel.nftbatch import BRIDGE, PREROUTING, Chain, Rule, Table

TABLE = Table(BRIDGE, "nat")
ENTRANCE = Chain("PREROUTING", kind="filter", hook=PREROUTING, priority=-300)


def chain(container_id: str, ifname: str) -> str:
    """Return the name of an attachment's chain."""
    return f"cni-br-iface-{container_id}-{ifname}"


def mac_chain(container_id: str, ifname: str) -> str:
    """Return the name of an attachment's MAC chain, which its own chain enters."""
    return f"{chain(container_id, ifname)}-mac"


def comment(container_id: str, ifname: str) -> str:
    """Return the comment of an attachment's rules."""
    return f"macspoofchk-{container_id}-{ifname}"


def own_rules(container_id: str, ifname: str, mac: bytes) -> list[Rule]:
    """Return the rules of an attachment's two chains.

    Args:
        container_id: the container.
        ifname: its interface.
        mac: the interface's address.
    """
    text = comment(container_id, ifname)
    checks = mac_chain(container_id, ifname)
    return [
        Rule(chain(container_id, ifname), nftexpr.jump(checks), text),
        Rule(checks, nftexpr.ether_saddr(mac) + nftexpr.leave(), text),
        Rule(checks, nftexpr.drop(), text),
    ]


def entrance_rule(container_id: str, ifname: str, port: str) -> Rule:
    """Return the rule that sends a bridge port's frames to the attachment's chain."""
    expressions = nftexpr.iifname(port) + nftexpr.jump(chain(container_id, ifname))
    return Rule(ENTRANCE.name, expressions, comment(container_id, ifname))
